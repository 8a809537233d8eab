"""Each of `raw_requests` is answered as it says there, and nobody is answered what another one asked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest
from raw_requests import ALL, FOLLOWED, MARK, Answer, ask
from served import Service

MARKED = re.compile(r"(?:message|smuggled|following)-([0-9a-f]{8})")
OTHERS = 4
"""Clients that ask after each message: nginx has two workers or more, each with connections of its own to the API."""


@pytest.fixture(scope="module")
def unsmuggled(service: Service) -> Iterator[Service]:
    """The service; after all of them, none of its workers has seen what was smuggled."""
    yield service
    log = service.log.read_text()
    assert " - GET /users (" in log
    assert " - GET /smuggled" not in log


def marks(answer: Answer) -> set[str]:
    """Of all that was asked and shows in it."""
    return set(MARKED.findall(f"{answer.headers}{answer.body.decode(errors='replace')}"))


@pytest.mark.parametrize("service", ["pymongo"], indirect=True)  # no driver sees these
@pytest.mark.parametrize("way", ["through", "past"])
@pytest.mark.parametrize("name", ALL)
def test_a_raw_request_is_answered_as_itself_or_refused(unsmuggled: Service, name: str, way: str) -> None:
    raw = ALL[name]
    url = getattr(unsmuggled, way)
    expected = (raw.through if way == "through" else raw.past).split()
    mark = secrets.token_hex(len(MARK) // 2)
    answers, waits = ask(url, raw.sent, mark)
    assert [str(answer.status) for answer in answers] + ["waits"] * waits == expected
    assert set().union(*map(marks, answers)) <= {mark}
    ids = [answer.ids for answer in answers]
    if expected[-1] == str(FOLLOWED):
        assert ids.pop() == {f"following-{mark}"}
    assert all(len(each) <= 1 for each in ids)  # the head's is nginx's, the body's of whoever made that
    seen = set().union(*ids)
    assert f"smuggled-{mark}" not in seen
    assert f"following-{mark}" not in seen or len(answers) == 1  # what begins its head is itself refused
    for _ in range(OTHERS):  # whatever is left on a connection that nginx keeps would be another client's answer
        other = secrets.token_hex(len(MARK) // 2)
        (answer,), waits = ask(url, b"", other)
        assert (answer.status, answer.ids, marks(answer), waits) == (FOLLOWED, {f"following-{other}"}, {other}, False)
