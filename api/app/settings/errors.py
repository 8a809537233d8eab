"""A wrong setting, in one line that names the variable, its value and what is allowed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from app.settings.mongodb_url import masked


class SettingsError(ValueError):
    """Some settings are wrong; the text is one line, free of secrets, and `mistakes` has a line for each."""

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = tuple(mistake.replace("\n", " ") for mistake in mistakes)
        super().__init__("; ".join(self.mistakes))


def describe(error: ValidationError, model: type[BaseSettings]) -> SettingsError:
    """Everything that is wrong."""
    return SettingsError(*(_describe(details, model) for details in error.errors(include_url=False)))


def _describe(details: Any, model: type[BaseSettings]) -> str:
    if not details["loc"]:  # a validator of ours, which says it all
        return str(details["msg"]).removeprefix("Value error, ")
    name = str(details["loc"][0])
    field = model.model_fields.get(name)
    value = "'***'" if field is None or _holds_secret(field) else repr(shown(details["input"]))
    return f"{name.upper()}={value}: allowed is {allowed(field) if field else 'another value'}"


def shown(value: object) -> object:
    """A value as it may be shown: a connection string in the wrong place still holds a password."""
    return masked(value) if isinstance(value, str) and value.lstrip("\"'").startswith("mongodb") else value


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words."""
    if field.description:
        return field.description
    kinds = [kind for kind in _kinds(field.annotation) if kind is not types.NoneType]
    if get_origin(kinds[0]) is Literal:
        choices = [str(choice) for choice in get_args(kinds[0])]
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    if kinds[0] is bool:
        return "true or false"
    if kinds[0] is int:
        limits = [*field.metadata, *_nested_metadata(field.annotation)]
        lowest = max((limit.ge for limit in limits if isinstance(limit, Ge)), default=None)  # type: ignore[type-var]
        highest = max((limit.le for limit in limits if isinstance(limit, Le)), default=None)  # type: ignore[type-var]
        return f"a whole number from {lowest} to {highest}"
    return "a path" if kinds[0] is Path else "a non-empty text"


def _holds_secret(field: FieldInfo) -> bool:
    return SecretStr in _kinds(field.annotation)


def _kinds(annotation: Any) -> list[Any]:
    """The plain types that an annotation allows."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [get_args(annotation)[0]] if hasattr(annotation, "__metadata__") else [annotation]


def _nested_metadata(annotation: Any) -> list[Any]:
    """Limits written inside a union, as in `Count | None`."""
    found: list[Any] = []
    for part in get_args(annotation):
        for extra in getattr(part, "__metadata__", ()):
            found += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return found
