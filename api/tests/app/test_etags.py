"""If-Match and If-None-Match."""

from __future__ import annotations

import pytest

from app.http.etags import unchanged, versions
from app.http.problems import Problem


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('"3"', [3]),
        ("*", None),
        ('W/"3"', [3]),
        ('"1", W/"2" ,"x"', [1, 2]),
        ('"' + "9" * 30 + '"', []),
        (',"1",, "a,b",', [1]),
    ],
)
def test_if_match_names_versions(condition: str, expected: list[int] | None) -> None:
    assert versions(condition) == expected


@pytest.mark.parametrize("condition", ["", " ,", "3", '"3', 'x"3"', '"3" "4"', '"a b"', "\xa0*"])
def test_what_is_no_list_of_tags_is_refused(condition: str) -> None:
    with pytest.raises(Problem):
        versions(condition)


@pytest.mark.parametrize(
    ("condition", "same"),
    [
        (None, False),
        ('"3"', True),
        ('W/"3"', True),
        ("*", True),
        ('"4"', False),
        ('"4","3"', True),
        ('"a,b","3",', True),
        ('x "3"', False),
    ],
)
def test_if_none_match_compares_weakly(condition: str | None, same: bool) -> None:
    assert unchanged(condition, '"3"') is same
