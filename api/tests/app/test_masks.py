"""Secrets are hidden in every form and wherever they can occur; nothing else loses a letter."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from app.observe.masks import Masks
from app.settings.mongodb_url import masked

LINES = """connection pool ready: pymongo driver, 127.0.0.1:27017
Execution time of users.find_one for GET /users/{id} (seconds): 1.234
GET /users?city=o 200 "user agent"
POST https://example.org/user/o?next=/user@home 201
"""


@pytest.mark.parametrize("secret", ["o", "user", "pool", "time", "connection", "Execution", "s", "1", "GET", "users"])
def test_a_secret_that_is_a_word_garbles_nothing(secret: str) -> None:
    masks = Masks({secret})
    assert masks(LINES) == LINES
    for url in (f"mongodb://u:{secret}@h/db", f"mongodb+srv://{secret}:{secret}@h.example.org/?w=1"):
        for text in (f"no way to {url}", f"{url!r}.", json.dumps({"url": url}), f"({url})", f"x={quote(url, safe='')}"):
            assert f":{secret}@" not in masks(text)
            assert f"%3A{secret}%40" not in masks(text)
            assert "***" in masks(text)
    assert masks(f"mongodb://u:{secret}@h/") == "mongodb://***@h/"


@pytest.mark.parametrize(
    "text",
    [
        *("password='{}'", '{{"password": "{}"}}', "X-API-Key: {}", "(b'x-api-key', b'{}')", "api_key={}"),
        *("Authorization: Bearer {}", "pwd={}&x=1", "Password: {}"),
    ],
)
def test_a_short_secret_is_hidden_where_it_is_said_to_be_one(text: str) -> None:
    assert Masks({"o"})(text.format("o")) == text.format("***")
    assert Masks({"o"})(text.format("other")) == text.format("other")


@pytest.mark.parametrize(
    "secret", ["ge-heim!42", "schluessel", "a" * 43, "q\"u\\o'te", "\u00fcber geheim", "p@:/?#[]%ss+w"]
)
@pytest.mark.parametrize(
    "form",
    [
        *(str, repr, json.dumps, ascii, quote_plus, lambda secret: json.dumps(secret, ensure_ascii=False)),
        *(
            lambda secret: quote(secret, safe=""),
            lambda secret: quote(secret, safe="").lower(),
            lambda s: repr(s.encode()),
        ),
        *(
            lambda secret: f"[{secret}]",
            lambda secret: f"app_{secret}_",
            lambda secret: f"x\\n{secret}",
            "%3A{}%40".format,
        ),
    ],
)
def test_a_long_secret_is_hidden_in_each_of_its_forms(secret: str, form: Callable[[str], str]) -> None:
    text = f"said {form(secret)} twice: {form(secret)}"
    hidden = Masks({secret})(text)
    assert hidden.count("***") == 2
    assert secret[2:8].lower() not in hidden.lower()


def test_other_words_that_hold_a_secret_stay_whole_unless_it_is_long() -> None:
    assert Masks({"schluessel"})("schluesselbund") == "schluesselbund"
    assert Masks({"a1" * 8})(f"x{'a1' * 8}y") == "x***y"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://u:geheim@h:443/a@b", "at https://***@h:443/a@b"),
        ("mongodb://app:ge?he/im@h/db, then", "mongodb://***@h/db, then"),
        ("'mongodb://app:it's@h/db'", "'mongodb://***@h/db'"),
        ("mongodb://h1:27017,h2/db?replicaSet=rs0.", "mongodb://h1:27017,h2/db?replicaSet=rs0."),
        ("mongodb://h/?tlsCertificateKeyFilePassword=x&w=1", "mongodb://h/?tlsCertificateKeyFilePassword=***&w=1"),
        ("mongodb: 3 members, GET /users/a@b.org", "mongodb: 3 members, GET /users/a@b.org"),
        ("mongodb://u:geheim", "mongodb://***"),
    ],
)
def test_whoever_may_log_in_by_a_url_is_hidden(text: str, shown: str) -> None:
    assert Masks(set())(text) == shown


@pytest.mark.parametrize(
    "part",
    [
        *(
            "mongodb://",
            "mongodb://u:",
            "://",
            "://a",
            "a@",
            "?",
            "&password",
            "password",
            "password=",
            "[",
            ":",
            "%40",
        ),
        *(
            "%40",
            "mongodb%3A%2F",
            "\\n",
            "%3A",
            "o",
            "bearer ",
            "schluessel",
            " ",
            "x",
            "mongodb://[",
            "mongodb://?password",
        ),
    ],
)
@pytest.mark.parametrize(("head", "tail"), [("", ""), ("mongodb://", "x")])
def test_hiding_takes_twice_the_time_for_twice_the_text(part: str, head: str, tail: str) -> None:
    masks = Masks({"o", "schluessel", "a1" * 20})

    def seconds(length: int) -> float:
        text = head + part * (length // len(part)) + tail
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            masks(text)
            masked(text)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(160_000) < 6 * seconds(40_000) + 0.05  # four times the text; sixteen would be quadratic
