"""Each of `raw_requests` is answered as it says there, and nobody is answered what another one asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raw_requests import ALL, FOLLOWED, ask
from served import Service


@pytest.fixture(scope="module")
def unsmuggled(service: Service) -> Iterator[Service]:
    """The service; after all of them, none of its workers has seen what was smuggled."""
    yield service
    log = service.log.read_text()
    assert " - GET /users (" in log
    assert " - GET /smuggled (" not in log


@pytest.mark.parametrize("service", ["pymongo"], indirect=True)  # no driver sees these
@pytest.mark.parametrize("way", ["through", "past"])
@pytest.mark.parametrize("name", ALL)
def test_a_raw_request_is_answered_as_itself_or_refused(unsmuggled: Service, name: str, way: str) -> None:
    raw = ALL[name]
    expected = (raw.through if way == "through" else raw.past).split()
    answers, waits = ask(getattr(unsmuggled, way), raw.sent)
    assert [str(answer.status) for answer in answers] + ["waits"] * waits == expected
    ids = [answer.headers.get("x-request-id") for answer in answers]
    assert "smuggled" not in ids
    if expected[-1] == str(FOLLOWED):
        assert ids.pop() == "following"
    assert "following" not in ids or len(answers) == 1  # what begins its head is itself refused
