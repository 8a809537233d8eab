"""`.env`, understood whole or refused: its usual parser warns of a line that it doesn't understand, and goes on.

A line such as `API_KEY="s3cret` would then open the service to everybody. What Docker Compose would read otherwise than
this does is refused too, where it concerns a setting of ours. No message quotes a value.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from app.settings.errors import SettingsError
from app.settings.names import meant

ALLOWED = "allowed is NAME=value, the value in quotation marks that are closed or in none, or a comment (#)"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BEGINNING = re.compile(r"\s*(?:export\s+)?'?([A-Za-z_][A-Za-z0-9_]*)'?\s*")
_LITERAL = re.compile(r"[^=]*=\s*'")
_QUOTED = re.compile(r"[^=]*=\s*['\"]")
_ANOTHER = re.compile(r"(?<=\s)([A-Z][A-Z0-9_]*)=")
_COMMENT_FOR_VALUE = re.compile(r"[^=]*=[ \t]+#")
_DOLLAR = re.compile(r"\$(?!\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}$]*)?\})")


@dataclass(frozen=True)
class Entry:
    """A name that the file sets, in which line, and to what."""

    name: str
    value: str
    line: int


def read(path: Path, known: Collection[str]) -> dict[str, str]:
    """What the file sets; nothing where there is none. `known` are the names of settings.

    Raises `SettingsError` with a line for each mistake: of the file's form, or in a name that is almost a known one.
    """
    if path.is_dir() or not os.path.lexists(path):  # some have a folder of this name
        return {}
    where = _Where(path)
    entries = list(_entries(_text(path, where), known, where))
    mistakes = [where.line(entry.line, text) for entry in entries if (text := _misnamed(entry.name, known))]
    first: dict[str, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.name, entry)
        if entry.name in known and other.value != entry.value:
            mistakes.append(where.line(entry.line, f"{entry.name} is set in line {other.line} already, otherwise"))
    if mistakes:
        raise SettingsError(*mistakes)
    return {entry.name: entry.value for entry in entries}


@dataclass(frozen=True)
class _Where:
    path: Path

    def line(self, number: int, text: str) -> str:
        return f"{self.path} line {number}: {text}"

    def refuse(self, number: int, text: str) -> SettingsError:
        return SettingsError(self.line(number, text))


def _text(path: Path, where: _Where) -> str:
    try:
        if path.is_fifo():  # each who reads it would take it from the others
            raise OSError(errno.ESPIPE, "it is a pipe")
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror}): allowed is a readable file") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        number = raw.count(b"\n", 0, raw.find(b"\0")) + 1 if not raw.startswith((b"\xff\xfe", b"\xfe\xff")) else 1
        raise where.refuse(number, "there are bytes of value zero, as in UTF-16: allowed is text in UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise where.refuse(raw.count(b"\n", 0, error.start) + 1, "this is no UTF-8: allowed is text in UTF-8") from None
    if lone := re.search(r"\r(?!\n)", text):
        raise where.refuse(text.count("\n", 0, lone.start()) + 1, "allowed are line ends of Unix or Windows")
    return text


def _entries(text: str, known: Collection[str], where: _Where) -> Iterator[Entry]:
    """Each line's name and value. Raises `SettingsError` for the first one that isn't understood."""
    environment: dict[str, str | None] = dict(os.environ)
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        line = binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")
        if binding.error or binding.key is None or binding.value is None:
            if not binding.error and binding.key is None:
                continue  # a comment, or the end
            raise where.refuse(line, _not_understood(original, known))
        if not _NAME.fullmatch(binding.key):
            raise where.refuse(line, f"what is before = is no name: {ALLOWED}")
        name = binding.key
        if problem := _read_otherwise(binding, name, known):
            raise where.refuse(line, f"{name}: {problem}")
        value = binding.value
        if not _LITERAL.match(original):
            value = _interpolated(name, value, environment, name in known, line, where)
        environment[name] = value
        yield Entry(name, value, line)


def _not_understood(original: str, known: Collection[str]) -> str:
    """Why, as far as that can be said without quoting what may be a secret."""
    beginning = _BEGINNING.match(original)
    rest = original[beginning.end() :] if beginning else ""
    name = f"{beginning[1]}: " if beginning and beginning[1] in known else ""
    if rest.startswith("=") and rest[1:].lstrip()[:1] in ("'", '"'):
        return f"{name}the quotation marks don't end where the value does: {ALLOWED}"
    return f"{name}{ALLOWED}"


def _read_otherwise(binding: Binding, name: str, known: Collection[str]) -> str | None:
    """What is wrong with a value that goes on over lines, or that Docker Compose would take for another one."""
    value = binding.value or ""
    original = binding.original.string
    swallowed = [
        found[1]
        for line in value.splitlines()[1:]
        if (found := _BEGINNING.match(line)) and found[1] in known and line[found.end() :].startswith("=")
    ]
    if swallowed:
        return f"the quotation marks that begin here also take in {swallowed[0]}: {ALLOWED}"
    if not _QUOTED.match(original):
        for found in _ANOTHER.finditer(value):
            if found[1] in known:
                return f"{found[1]} is in the same line: allowed is one setting per line"
    if name not in known:
        return None
    if "\n" in value:
        return f"the value goes on over several lines: {ALLOWED}"
    if _COMMENT_FOR_VALUE.match(original):
        return "Docker Compose takes the comment for the value: allowed is a comment on a line of its own"
    if not _LITERAL.match(original) and _DOLLAR.search(value):
        return "Docker Compose takes a $ for the beginning of a variable: allowed is one within '…'"
    return None


def _interpolated(
    name: str, value: str, environment: Mapping[str, str | None], ours: bool, line: int, where: _Where
) -> str:
    parts = list(parse_variables(value))
    for part in parts:
        if ours and isinstance(part, Variable) and part.default is None and environment.get(part.name) is None:
            raise where.refuse(line, f"{name}: ${{{part.name}}} isn't set: allowed is a variable that is, or '…'")
    return "".join(part.resolve(environment) for part in parts)


def _misnamed(name: str, known: Collection[str]) -> str | None:
    if name in known:
        return None
    if right := meant(name, known):
        return f"{name} is no setting: allowed is {right}"
    return f"{name} is no setting: see .env.example" if name.startswith("SLUICE_") else None
