"""Names that were meant to be a setting's: `MAX_POOLSIZE` sets nothing, and nobody would say so."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

CLOSE = 0.85
"""`MY_API_KEY`, which is other people's, is less like `API_KEY` than that."""
SHORT, CLOSE_AND_SHORT = 9, 0.9
"""For names below that length: `APP_KEY` and `APP_NAME` are other people's, too."""
_ALIASES = {
    "API_KEY_PATH": "API_KEY_FILE",
    "API_TOKEN": "API_KEY",
    "MAX_POOL": "MAX_POOL_SIZE",
    "MIN_POOL": "MIN_POOL_SIZE",
    "MONGODB_URI": "MONGODB_URL",
    "MONGO_URI": "MONGODB_URL",
    "POOL_SIZE": "MAX_POOL_SIZE",
}


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name`, which isn't one, was probably meant to be: other case, separators or letters."""
    shapes = {_shape(candidate): candidate for candidate in known}
    shape = _shape(name)
    if shape in shapes:
        return shapes[shape]
    if alias := _ALIASES.get(name.upper()):
        return alias
    for candidate, found in shapes.items():
        if sorted(candidate) == sorted(shape):  # letters changed places
            return found
    close = get_close_matches(name.upper(), shapes.values(), 1, CLOSE_AND_SHORT if len(name) < SHORT else CLOSE)
    return close[0] if close else None


def near_names(known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names in the environment that are almost a known one, each with that; platforms put their own there, too."""
    for name in sorted(os.environ):
        # The service takes its own in any case.
        if name.upper() not in known and not name.startswith("SLUICE_") and (right := meant(name, known)):
            yield name, right


def _shape(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())
