"""Hides secrets in text that is logged: where they can occur, not letters that are the same.

A password such as `o` or `user` must cost no other word a letter, and `mongodb://u:o@h` must show none of it.
Every expression here is linear: much of what is logged was chosen by a caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from app.settings.mongodb_url import masked

HIDDEN = "***"
ANYWHERE = 16
"""Characters from which a secret is hidden also within a word: nothing else has so many in common with it."""
ALONE = 8
"""Characters from which a secret is hidden as a word of its own; a shorter one only where it's said to be one."""
WORDS = frozenset({"connection", "connections", "execution", "operation", "operations", "database", "traceback"})
"""What our own lines are found by. Who has such a password has none, and is treated as if it were short."""

_MONGODB = re.compile(r"mongodb(?:(?:\+|%2B)srv)?(?::|%3A)(?:/|%2F)\S*", re.IGNORECASE)
_ENDS_URL = "%@/=*_"
"""Beside letters and digits, what may stand at a URL's end; anything else ends a sentence or a quotation."""
_USER_INFO = re.compile(r"(?<=://)[^\s/?#@\"'<>]*@")
_BEFORE = r"(?:(?<![^\W_])|(?<=\\[abfnrtv])|(?<=%[0-9A-Fa-f]{2}))"
_AFTER = r"(?![^\W_])"
_NAMED = r"((?i:password|passwd|pwd|api[_-]?key|bearer|token|secret)\W{1,6}(?:b\W)?)"


class Masks:
    """Called with a text: the text with `***` for these secrets, and for whoever may log in by a URL in it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form: secret for secret in secrets for form in _forms(secret)}
        anywhere = [form for form, secret in forms.items() if len(secret) >= ANYWHERE]
        short = [form for form, secret in forms.items() if len(secret) < ALONE or secret.lower() in WORDS]
        alone = forms.keys() - {*anywhere, *short}
        self._known = [
            (re.compile(f"{before}(?:{_any(texts)}){after}"), replacement)
            for texts, before, after, replacement in (
                (anywhere, "", "", HIDDEN),
                (alone, _BEFORE, _AFTER, HIDDEN),
                (short, _NAMED, _AFTER, rf"\1{HIDDEN}"),
            )
            if texts
        ]

    def __call__(self, text: str) -> str:
        for pattern, replacement in self._known:
            text = pattern.sub(replacement, text)
        return _USER_INFO.sub(f"{HIDDEN}@", _MONGODB.sub(_without_credentials, text))


def _without_credentials(found: re.Match[str]) -> str:
    text = found[0]
    end = len(text)
    while not (text[end - 1].isalnum() or text[end - 1] in _ENDS_URL):  # it begins with a letter
        end -= 1
    url, rest = text[:end], text[end:]
    if "://" in url:
        return masked(url) + rest
    head, at, tail = url.rpartition("%40")  # within another URL, say
    return f"{head[: len('mongodb')]}{HIDDEN}{at}{tail}{rest}" if at else text


def _any(texts: Iterable[str]) -> str:
    """The longest first: one may begin with another."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _forms(secret: str) -> set[str]:
    """A secret as it is, and as it looks within JSON, a `repr`, bytes or a URL."""
    raw = secret.encode("utf-8", "surrogateescape")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        repr(raw)[2:-1],
        *quoted,
        *(re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in quoted),
    }
