"""Finds each request's route once, in a table of all of them, those of included routers too.

FastAPI's own router asks an included router twice for each request, and sets up the same each time. It still answers
whatever the table doesn't hold ready: mounts, WebSockets, forms, methods that a path hasn't, paths that lead nowhere.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel
from starlette.convertors import Convertor, StringConvertor
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http import idempotency_key
from app.http.direct import direct
from app.http.media_type import require_json
from app.http.routing import MOUNT, TEMPLATE

log = logging.getLogger(__name__)

Check = Callable[[Request], Coroutine[Any, Any, None]]
Checks = Mapping[Callable[..., Any], Check]
"""For a dependency, what is asked in its place before the body is read; FastAPI asks dependencies after that."""


class Handle(Protocol):
    """An application that answers in a coroutine, as a router does."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]: ...


def install(app: FastAPI, checks: Checks) -> None:
    """Give the app's requests to its routes by a table, whenever the routes were added."""
    app.router.middleware_stack = Dispatch(app.router, app.router.middleware_stack, checks)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A route; `app` is None where FastAPI's router is to answer."""

    context: RouteContext
    template: str
    match: Callable[[str], Any] | None
    """Of a path; true of one that fits, and a match object where there are parameters. None: ask the route itself."""
    converters: Mapping[str, Convertor[Any]]
    app: ASGIApp | None
    checks: tuple[tuple[Callable[..., Any], Check], ...]
    reads_json: bool
    takes_key: bool
    """An Idempotency-Key."""


class Dispatch:
    """Calls the first route that fits, as FastAPI's router would."""

    def __init__(self, router: APIRouter, otherwise: Handle, checks: Checks) -> None:
        self._router = router
        self._otherwise = otherwise
        self._checks = checks
        self._known: list[BaseRoute] = []
        self._entries: list[_Entry] = []
        self._by_method: dict[str, list[_Entry]] = {}
        self._of_any_method: list[_Entry] = []

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """No coroutine of its own, since every request comes by."""
        if self._router.routes != self._known:
            self._read_routes()
        if scope["type"] == "lifespan":
            self._warn_of_hidden_routes()
            self._warn_of_shared_names()
        if scope["type"] != "http" or "fastapi.telemetry" in scope:
            return self._otherwise(scope, receive, send)
        path = _path(scope)
        for entry in self._by_method.get(scope["method"], self._of_any_method):
            found = entry.match(path) if entry.match else entry.context.matches(scope)[0] is Match.FULL
            if found:
                if not entry.takes_key:
                    idempotency_key.refuse(scope)
                return self._call(entry, found, scope, receive, send)
        for entry in self._entries:  # of another method
            if entry.match and entry.match(path):
                scope[TEMPLATE] = entry.template
                break
        if path.endswith("\n"):  # which the `$` at the end of the router's expressions overlooks
            raise HTTPException(404)
        return self._otherwise(scope, receive, send)

    def _call(self, entry: _Entry, found: Any, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if entry.app is None:
            scope[TEMPLATE if entry.match else MOUNT] = entry.template
            return self._otherwise(scope, receive, send)
        params = {} if found is True else found.groupdict()
        for name, converter in entry.converters.items():
            params[name] = converter.convert(params[name])
        scope[TEMPLATE] = entry.template
        scope["route"] = entry.context.original_route
        scope["endpoint"] = entry.context.endpoint
        scope["path_params"] = {**scope.get("path_params", {}), **params}
        scope.setdefault("router", self._router)
        if entry.checks or entry.reads_json:
            return _checked(entry, entry.app, scope, receive, send)
        return entry.app(scope, receive, send)  # type: ignore[return-value]

    def _read_routes(self) -> None:
        self._known = list(self._router.routes)
        self._entries = [_entry(context, self._checks) for context in iter_route_contexts(self._known)]
        self._of_any_method = [entry for entry in self._entries if not entry.context.methods]
        by_method: dict[str, list[_Entry]] = defaultdict(list)
        for method in {method for entry in self._entries for method in entry.context.methods or ()}:
            by_method[method] = [
                entry for entry in self._entries if not entry.context.methods or method in entry.context.methods
            ]
        self._by_method = dict(by_method)

    def _warn_of_hidden_routes(self) -> None:
        before: dict[str, list[_Entry]] = defaultdict(list)
        for entry in self._entries:
            if entry.match is None:
                continue
            context = entry.context
            for method in sorted(context.methods or ()):
                first = next((other.context for other in before[method] if _hides(other, entry)), None)
                if first is not None:
                    log.warning(
                        "%s %s of %s is never called: %s of %s comes before it",
                        *(method, context.path, _where(context), first.path, _where(first)),
                    )
                before[method].append(entry)

    def _warn_of_shared_names(self) -> None:
        """Of operations with the same name a generated client has one function, if any."""
        named: dict[str, list[str]] = defaultdict(list)
        for context in (entry.context for entry in self._entries):
            if isinstance(context.original_route, APIRoute) and context.include_in_schema:
                operations = [f"{method} {context.path_format}" for method in sorted(context.methods or ())]
                named[context.operation_id or context.unique_id] += operations
        for name, operations in named.items():
            if len(operations) > 1:
                log.warning(
                    "generated clients can't tell %s apart, since each is named %s: they need different tags, names of"
                    " functions or operation_ids",
                    *(" and ".join(operations), name),
                )


def _hides(first: _Entry, second: _Entry) -> bool:
    """Whether every path of the second is one of the first's: of the same shape, or without parameters and fitting."""
    if not second.context.param_convertors:
        return bool(first.match and first.match(second.template))
    return _shape(first) == _shape(second)


def _shape(entry: _Entry) -> str:
    return re.sub(r"\?P<[^>]*>", "", entry.context.path_regex.pattern)


def _entry(context: RouteContext, checks: Checks) -> _Entry:
    route = context.original_route
    if not _is_asked_as_usual(route):
        return _Entry(context, context.path or "", None, {}, None, (), False, False)
    template = context.path_format or ""
    match = context.path_regex.fullmatch if context.param_convertors else template.__eq__
    converters = {
        name: converter
        for name, converter in context.param_convertors.items()
        if not isinstance(converter, StringConvertor)
    }
    if not isinstance(route, APIRoute):
        return _Entry(context, template, match, converters, None, (), False, False)
    body = context.body_field
    is_form = body is not None and isinstance(body.field_info, Form)
    needed = [dependency.call for dependency in context.dependant.dependencies] if body is not None else []
    asked = tuple(item for item in checks.items() if item[0] in needed)
    app = None if is_form else direct(context) or context.app
    takes_key = _takes_key(context.dependant)
    return _Entry(context, template, match, converters, app, asked, _takes_nothing_but_json(context), takes_key)


def _takes_key(dependant: Dependant) -> bool:
    """Whether the route, or what it depends on, has the header among its parameters."""
    own = any(field.alias.lower() == idempotency_key.HEADER.lower() for field in dependant.header_params)
    return own or any(map(_takes_key, dependant.dependencies))


def _is_asked_as_usual(route: BaseRoute) -> bool:
    """Whether it's for the path and the method to say if a route fits, and nothing else happens on the way to it."""
    if isinstance(route, APIRoute):
        kind = type(route)
        return kind.matches is APIRoute.matches and kind.handle is APIRoute.handle
    return type(route) is Route


def _takes_nothing_but_json(context: RouteContext) -> bool:
    """Whether FastAPI would read another body as bytes, only to say (422) that these are no object."""
    body, strict = context.body_field, context.strict_content_type
    if body is None or not getattr(strict, "value", strict) or isinstance(body.field_info, Form):
        return False
    annotation = body.field_info.annotation
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_model and body.field_info.media_type == "application/json"


async def _checked(entry: _Entry, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope)
    for dependency, check in entry.checks:
        if dependency not in scope["app"].dependency_overrides:
            await check(request)
    if entry.reads_json:
        require_json(request)
    await app(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path below the application's root."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        return str(path[len(root) :])
    return str(path)


def _where(context: RouteContext) -> str:
    return str(getattr(context.endpoint, "__module__", "somewhere"))
