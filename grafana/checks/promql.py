"""Just enough of PromQL: which metrics an expression reads, and an alert's expression without its comparisons."""

from __future__ import annotations

import re

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|\[[^\]]*\]|[A-Za-z_:][\w:]*|\d[\w.]*|[=!<>]=|[=!]~|\S')
_SET_OPERATORS = frozenset({"and", "or", "unless"})
_COMPARISONS = frozenset({"<", ">", "<=", ">=", "==", "!="})
_LABELS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_KEYWORDS = _SET_OPERATORS | _LABELS | {"bool", "offset", "inf", "nan"}


def metrics(expression: str) -> set[str]:
    """The names of the metrics that `expression` reads."""
    plain = re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', '""', expression)
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", plain)
    plain = re.sub(rf"\b(?:{'|'.join(_LABELS)})\s*\([^)]*\)", " ", plain)
    names = re.finditer(r"(?<![\w.])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])", plain)
    return {name.group() for name in names if name.group().lower() not in _KEYWORDS}


def signals(expression: str) -> list[str]:
    """What an alert's `expression` compares, each without its comparison.

    `a > 1 and (b < 2 or c == 3)` gives `a`, `b` and `c`.
    """
    expression = expression.strip()
    while expression.startswith("(") and _closing(expression) == len(expression) - 1:
        expression = expression[1:-1].strip()
    tokens = _top_level(expression)
    for position, token in tokens:
        if token in _SET_OPERATORS:
            rest = re.sub(r"^\s*(?:on|ignoring)\s*\([^)]*\)", "", expression[position + len(token) :])
            return [*signals(expression[:position]), *signals(rest)]
    for position, token in tokens:
        if token in _COMPARISONS:
            return [expression[:position].strip()]
    return [expression]


def _top_level(expression: str) -> list[tuple[int, str]]:
    """The tokens that are in no brackets, with their positions."""
    depth, found = 0, []
    for token in _TOKEN.finditer(expression):
        if token.group() in ("(", "{"):
            depth += 1
        elif token.group() in (")", "}"):
            depth -= 1
        elif depth == 0:
            found.append((token.start(), token.group()))
    return found


def _closing(expression: str) -> int:
    """Where the bracket that `expression` begins with is closed."""
    depth = 0
    for token in _TOKEN.finditer(expression):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        if depth == 0:
            return token.start()
    return -1
