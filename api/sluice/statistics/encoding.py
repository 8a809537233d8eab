"""How a snapshot is written to its slot, and read with a check of every type, as its dataclasses have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from sluice.statistics.histogram import Histogram
from sluice.statistics.snapshot import WorkerSnapshot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Read = Callable[[Any], Any]


def encode(snapshot: WorkerSnapshot) -> bytes:
    return json.dumps(snapshot, default=_stored, separators=(",", ":")).encode()


def decode(data: bytes) -> WorkerSnapshot:
    """Raises `ValueError` for what another version wrote, or something else altogether.

    A figure that this version has added begins at its default.
    """
    try:
        found: WorkerSnapshot = _reader(WorkerSnapshot)(json.loads(data))
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deeply, or a number beyond all bounds") from error
    return found


def _stored(part: DataclassInstance) -> dict[str, object]:
    """A dataclass without what is worked out from the rest."""
    names, values = _stored_fields(type(part))
    return dict(zip(names, values(part), strict=True))


@cache
def _stored_fields(kind: type[Any]) -> tuple[tuple[str, ...], Callable[[object], tuple[object, ...]]]:
    """Their names, and what gets their values (of two at least). A histogram's bounds are declared, not stored."""
    names = tuple(each.name for each in fields(kind) if each.init and each.name != "bounds")
    return names, attrgetter(*names)


@cache
def _reader(kind: Any) -> Read:
    """A function that gives a value of this type for what JSON has, or raises `ValueError`."""
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        [wanted] = (argument for argument in arguments if argument is not NoneType)
        read = _reader(wanted)
        return lambda value: None if value is None else read(value)
    if kind == list[int]:
        return lambda value: _all_int(_checked(value, list), value)
    if kind == dict[str, int]:
        return lambda value: _all_int(_checked(value, dict).values(), value)
    if get_origin(kind) is list:
        read = _reader(arguments[0])
        return lambda value: [read(item) for item in _checked(value, list)]
    if get_origin(kind) is Literal:
        return lambda value: _one_of(arguments, value)
    if kind is float:
        return lambda value: float(value) if type(value) is int else _checked(value, float)
    return lambda value: _checked(value, kind)


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} where {kind.__name__} is stored")
    return value


def _one_of(allowed: tuple[object, ...], value: Any) -> Any:
    if value not in allowed:
        raise ValueError(f"{type(value).__name__} where one of {allowed} is stored")
    return value


def _all_int(items: Iterable[object], value: Any) -> Any:
    if not set(map(type, items)) <= {int}:
        raise ValueError("something else where numbers are stored")
    return value


def _dataclass_reader(kind: Any) -> Read:
    types = get_type_hints(kind)
    stored = [each for each in fields(kind) if each.name in _stored_fields(kind)[0]]
    required = {each.name for each in stored if each.default is MISSING and each.default_factory is MISSING}
    readers = {
        each.name: _histogram_reader(each.default_factory)
        if types[each.name] is Histogram
        else _reader(types[each.name])
        for each in stored
    }

    def read(value: Any) -> Any:
        found = _checked(value, dict)
        if not required <= found.keys():
            raise ValueError(f"{kind.__name__} without {', '.join(sorted(required - found.keys()))}")
        return kind(**{name: readers[name](item) for name, item in found.items() if name in readers})

    return read


def _histogram_reader(empty: Any) -> Read:
    """The bounds are those that the field is declared with."""
    counts, total = _reader(list[int]), _reader(float)

    def read(value: Any) -> Histogram:
        found = _checked(value, dict)
        try:
            return Histogram(empty().bounds, counts(found["counts"]), total(found["total"]))
        except KeyError as error:
            raise ValueError(f"a histogram without {error}") from error

    return read
