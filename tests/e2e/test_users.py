"""Users, and what every answer has, through nginx."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from whole_stack import Stack

NOBODY = "0" * 24


def person(**fields: Any) -> dict[str, Any]:
    return {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada Lovelace", "age": 36, **fields}


def assert_problem(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, f"/problems/{kind}")
    assert problem["title"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_user_lives_from_creation_to_deletion(stack: Stack, driver: str) -> None:
    new = person(city=f"Town {uuid.uuid4().hex}", tags=["maths"])
    created = stack.http.post("/users", json=new)
    assert created.status_code == 201
    place, user = created.headers["location"], created.json()
    assert user.items() >= new.items()
    read = stack.http.get(place)
    assert read.json() == user
    assert stack.http.get(place, headers={"If-None-Match": read.headers["etag"]}).status_code == 304

    found = stack.http.get("/users", params={"city": new["city"]})
    assert [each["id"] for each in found.json()["items"]] == [user["id"]]

    changed = stack.http.patch(place, json={"age": 37}, headers={"If-Match": read.headers["etag"]})
    assert (changed.status_code, changed.json()["age"], changed.json()["version"]) == (200, 37, 2)
    late = stack.http.patch(place, json={"age": 38}, headers={"If-Match": read.headers["etag"]})
    assert_problem(late, 412, "precondition-failed")

    assert stack.http.delete(place, headers={"If-Match": changed.headers["etag"]}).status_code == 204
    assert_problem(stack.http.get(place), 404, "not-found")


def test_pages_follow_each_other_without_gap_or_repetition(stack: Stack, user_ids: list[str]) -> None:
    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 100}
    while parameters.get("cursor", "") is not None:
        page = stack.http.get("/users", params=parameters).json()
        seen += [user["id"] for user in page["items"]]
        parameters["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen))
    assert set(user_ids) <= set(seen)


def test_mistakes_are_told_as_problems(stack: Stack) -> None:
    taken = person()
    assert stack.http.post("/users", json=taken).status_code == 201
    assert_problem(stack.http.post("/users", json=taken), 409, "duplicate")
    assert_problem(stack.http.get(f"/users/{NOBODY}"), 404, "not-found")
    assert_problem(stack.http.get("/nowhere"), 404, "not-found")
    assert_problem(stack.http.post("/users", json=person(shoe_size=38)), 422, "invalid")
    assert_problem(stack.http.get("/users/not-an-id"), 422, "invalid")
    assert_problem(stack.http.patch(f"/users/{NOBODY}", json={"age": 1}), 428, "precondition-required")


@pytest.mark.parametrize("way", ["url", "api_url"])
def test_a_body_that_is_too_large_is_refused(stack: Stack, way: str) -> None:
    body = b'{"name": "' + b"x" * (1 << 20) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{getattr(stack, way)}/users", content=body, headers=headers)
    assert_problem(answer, 413, "content-too-large")


def test_a_callers_request_id_and_trace_come_back(stack: Stack) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = "00f067aa0ba902b7"
    headers = {"X-Request-ID": "order-66.a", "traceparent": f"00-{trace}-{parent}-01"}
    answer = stack.http.get(f"/users/{NOBODY}", headers=headers)
    assert answer.headers.get_list("x-request-id") == ["order-66.a"]
    assert answer.json()["request_id"] == "order-66.a"
    version, same_trace, span, flags = answer.headers["traceparent"].split("-")
    assert (version, same_trace, flags) == ("00", trace, "01")
    assert span != parent


def test_a_request_without_an_id_gets_one_and_a_harmful_one_another(stack: Stack) -> None:
    first, second = (stack.http.get("/health/live").headers["x-request-id"] for _ in range(2))
    assert first != second
    odd = stack.http.get(f"/users/{NOBODY}", headers={"X-Request-ID": 'a"b {x}'})
    assert_problem(odd, 404, "not-found")
    assert '"' not in odd.headers["x-request-id"]


def test_long_answers_are_compressed(stack: Stack, user_ids: list[str]) -> None:
    packed = stack.http.get("/users", params={"limit": 100})
    plain = stack.http.get("/users", params={"limit": 100}, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


@pytest.mark.parametrize(("path", "status"), [("/health", 200), (f"/users/{NOBODY}", 404), ("/metrics", 404)])
def test_answers_carry_security_headers_and_no_versions(stack: Stack, path: str, status: int) -> None:
    answer = stack.http.get(path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["server"] == "nginx"


def test_an_answer_says_where_its_time_went(stack: Stack, user_ids: list[str]) -> None:
    timing = stack.http.get(f"/users/{user_ids[0]}").headers["server-timing"]
    parts = dict(part.strip().split(";dur=") for part in timing.split(","))
    assert set(parts) == {"queue", "db", "handler"}
    assert all(float(milliseconds) >= 0 for milliseconds in parts.values())
