"""Calls a route's function directly, where what it takes is simple; FastAPI's general way costs about twice as much.

Simple are coroutine functions, the route's own and its dependencies', that take parameters of the path, the query, the
headers and the cookies, the `Request` and the `Response`. A route with anything else (a body, `yield`, background
tasks, functions for threads, a stream, another class of answer) is FastAPI's, and so is a request with parameters that
aren't right, or any while something is overridden: so answers are the same to the byte.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import EndpointContext
from fastapi.params import Header, Path
from fastapi.routing import APIRoute, RouteContext, serialize_response
from fastapi.utils import is_body_allowed_for_status_code
from pydantic.fields import FieldInfo
from starlette.types import ASGIApp, Receive, Scope, Send

SOURCES = {
    "path_params": "path_params",
    "query_params": "query_params",
    "header_params": "headers",
    "cookie_params": "cookies",
}
"""A dependant's parameters, by where in a request they are."""


class _Field(Protocol):
    """FastAPI's `ModelField`."""

    name: str
    field_info: FieldInfo

    def validate(self, value: Any, values: dict[str, Any], *, loc: tuple[str, ...]) -> tuple[Any, list[Any]]: ...


@dataclass(frozen=True, slots=True)
class _Text:
    """A parameter that is a text: read in a few steps, since most are."""

    field: _Field
    key: str | bytes
    """Of the path, or of a header, in lower case."""
    required: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """A dependency, or the route's own function, which comes last."""

    function: Callable[..., Any]
    in_path: tuple[_Text, ...]
    in_headers: tuple[_Text, ...]
    others: tuple[tuple[list[Any], str], ...]
    """Fields, and the request's attribute that has them."""
    requests: tuple[str, ...]
    responses: tuple[str, ...]
    results: tuple[tuple[str, int], ...]
    """What earlier calls gave: its name here, and their place."""


class _Answer(Response):
    """What a function may say of the answer before there is one."""

    def __init__(self) -> None:
        self.status_code = None  # type: ignore[assignment]
        self.background = None
        self.body = b""
        self.raw_headers = []


class NotSimple(Exception):
    """The route is FastAPI's."""


def direct(context: RouteContext) -> ASGIApp | None:
    """The route's application, called directly; None where it isn't simple."""
    route = context.original_route
    if (
        not isinstance(route, APIRoute)
        or type(route).get_route_handler is not APIRoute.get_route_handler
        or context.body_field is not None
        or context.max_body_size is not None
        or not isinstance(context.response_class, DefaultPlaceholder)
        or context.is_json_stream
        or context.is_sse_stream
    ):
        return None
    try:
        return _Direct(context, _calls(context.dependant))
    except NotSimple:
        return None


def _calls(dependant: Dependant) -> list[_Call]:
    """In the order in which FastAPI makes them. Raises `NotSimple`."""
    calls: list[_Call] = []
    places: dict[Callable[..., Any], int] = {}

    def add(needed: Dependant) -> int:
        function = needed.call
        if function is None or not isinstance(function, Hashable):
            raise NotSimple
        if function in places:
            return places[function]
        results = [(dependency.name, add(dependency)) for dependency in needed.dependencies]
        calls.append(_call(needed, function, tuple((name, place) for name, place in results if name is not None)))
        places[function] = len(calls) - 1
        return len(calls) - 1

    add(dependant)
    return calls


def _call(needed: Dependant, function: Callable[..., Any], results: tuple[tuple[str, int], ...]) -> _Call:
    if (
        not _is_coroutine_function(function)
        or not needed.use_cache
        or needed.concurrency is not None
        or needed.body_params
        or needed.background_tasks_param_name
        or needed.websocket_param_name
        or needed.security_scopes_param_name
        or needed.own_oauth_scopes
        or needed.parent_oauth_scopes
    ):
        raise NotSimple
    fields = {source: list(getattr(needed, source)) for source in SOURCES}
    texts: dict[str, list[_Text]] = {"path_params": [], "header_params": []}
    for source, found in texts.items():
        for field in list(fields[source]):
            if (text := _text(field)) is not None:
                found.append(text)
                fields[source].remove(field)
    return _Call(
        function,
        tuple(texts["path_params"]),
        tuple(texts["header_params"]),
        tuple((fields[source], attribute) for source, attribute in SOURCES.items() if fields[source]),
        tuple(filter(None, (needed.request_param_name, needed.http_connection_param_name))),
        tuple(filter(None, (needed.response_param_name,))),
        results,
    )


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether it, or the object's method that is called in its place, is one as it stands, without a wrapper."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _text(field: _Field) -> _Text | None:
    """None where FastAPI has to read the parameter."""
    info = field.field_info
    alias = info.validation_alias or info.alias or field.name
    required = info.is_required()
    plain = info.annotation is str or info.annotation == str | None
    if not plain or not isinstance(alias, str) or not (required or isinstance(info.default, str | NoneType)):
        return None
    if not required and (info.default_factory is not None or info.validate_default):
        return None
    if isinstance(info, Path):
        return _Text(field, alias, required)
    if isinstance(info, Header):
        return _Text(field, alias.lower().encode("latin-1"), required)
    return None


class _Direct:
    def __init__(self, context: RouteContext, calls: Sequence[_Call]) -> None:
        self._calls = calls
        self._usual: ASGIApp = context.app
        self._overridable = context.dependency_overrides_provider
        self._status: int | None = context.status_code
        self._field = context.response_field
        self._options = {
            name: getattr(context, f"response_model_{name}")
            for name in ("include", "exclude", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none")
        }
        self._class: type[Response] = context.response_class.value
        self._where = _where(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = self._overridable
        request = Request(scope, receive, send)
        response = _Answer()
        arguments = None
        if provider is None or not provider.dependency_overrides:
            arguments = self._arguments(request, response)
        if arguments is None:
            await self._usual(scope, receive, send)
            return
        results: list[Any] = []
        for call, values in zip(self._calls, arguments, strict=True):
            for name, place in call.results:
                values[name] = results[place]
            results.append(await call.function(**values))
        answer = results[-1]
        if not isinstance(answer, Response):
            answer = await self._answer(answer, response)
        await answer(scope, receive, send)

    def _arguments(self, request: Request, response: Response) -> list[dict[str, Any]] | None:
        """For each call, all that doesn't come from another; None where something isn't right.

        Read before anything is called: so that FastAPI can still start over.
        """
        arguments: list[dict[str, Any]] = []
        scope = request.scope
        for call in self._calls:
            values: dict[str, Any] = {}
            for text in call.in_path:
                given = scope["path_params"].get(text.key)
                if not _read(text, given, values):
                    return None
            for text in call.in_headers:
                given = next((value.decode("latin-1") for key, value in scope["headers"] if key == text.key), None)
                if not _read(text, given, values):
                    return None
            for fields, attribute in call.others:
                found, errors = request_params_to_args(fields, getattr(request, attribute))
                if errors:
                    return None
                values.update(found)
            for name in call.requests:
                values[name] = request
            for name in call.responses:
                values[name] = response
            arguments.append(values)
        return arguments

    async def _answer(self, content: Any, given: Response) -> Response:
        body = await serialize_response(
            field=self._field,
            response_content=content,
            **self._options,
            endpoint_ctx=self._where,
            dump_json=self._field is not None,
        )
        status = given.status_code or self._status or 200
        if self._field is not None:
            answer = Response(body, status, media_type="application/json")
        else:
            answer = self._class(body, status)
        if not is_body_allowed_for_status_code(status):
            answer.body = b""
        answer.raw_headers.extend(given.raw_headers)
        return answer


def _read(text: _Text, given: str | None, values: dict[str, Any]) -> bool:
    """Whether it's right; then it is put into `values`."""
    field = text.field
    if given is None:
        values[field.name] = field.field_info.default
        return not text.required
    values[field.name], errors = field.validate(given, {}, loc=())
    return not errors


def _where(context: RouteContext) -> EndpointContext:
    function = context.endpoint
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    where: EndpointContext = {"path": f"{'/'.join(sorted(context.methods or ()))} {context.path_format}"}
    if code is not None:
        where |= {"file": code.co_filename, "line": code.co_firstlineno, "function": code.co_name}
    return where
