"""What schemathesis can't be asked of `/users/bulk`, which is also a `/users/{id}`: what becomes of other methods."""

from __future__ import annotations

import httpx
import pytest
from served import KEY, Service

ALLOWED = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"


@pytest.mark.parametrize("service", ["pymongo"], indirect=True)  # no driver sees these
@pytest.mark.parametrize("way", ["through", "past"])
@pytest.mark.parametrize("method", ["PUT", "TRACE", "PROPFIND", "SOURCE"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": KEY}], ids=["without a key", "with the key"])
def test_others_are_refused_and_allow_names_all(
    service: Service, way: str, method: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, f"{getattr(service, way)}/users/bulk", headers=headers)
    assert (answer.status_code, answer.headers.get_list("Allow")) == (405, [ALLOWED])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("service", ["pymongo"], indirect=True)
@pytest.mark.parametrize("way", ["through", "past"])
def test_what_allow_names_is_answered(service: Service, way: str) -> None:
    url = f"{getattr(service, way)}/users/bulk"
    for method in ALLOWED.split(", "):
        answer = httpx.request(method, url, headers={"X-API-Key": KEY})
        assert answer.status_code == (204 if method == "OPTIONS" else 422), method
    assert httpx.options(url).headers.get_list("Allow") == [ALLOWED]
