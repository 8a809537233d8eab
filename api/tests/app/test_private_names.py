"""What the service touches of other libraries that their documentation promises nobody: each with a test of its own.

When one fails after an upgrade, read the module that its row names against the library's new version. The core's own
are in `tests/sluice/test_driver_contract.py`.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NamedTuple

import httptools
import pytest
from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute, iter_route_contexts, serialize_response
from fastapi.utils import is_body_allowed_for_status_code
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import BaseModel
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP
from pymongo.errors import InvalidURI
from pymongo.uri_parser_shared import _validate_uri
from starlette.datastructures import QueryParams
from starlette.routing import Match
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

import app
from app.observe.metric_values import SlotValue
from tests.app.test_rooms import ROOMS

APP = Path(app.__file__).parent


class Name(NamedTuple):
    """A name that isn't public, and the only module of ours that touches it."""

    name: str
    module: str


def the_values_of_metrics(tmp_path: Path) -> None:
    """Each metric makes one of `values.ValueClass` per number, and only calls what `SlotValue` has."""
    made: list[tuple[Any, ...]] = []

    class Value:
        def __init__(self, *arguments: Any, **more: Any) -> None:
            made.append((*arguments, more))

        def inc(self, amount: float) -> None: ...

        def set(self, value: float, timestamp: float | None = None) -> None: ...

    before, values.ValueClass = values.ValueClass, Value
    try:
        none = CollectorRegistry()
        Counter("a", "A.", registry=none).inc()
        Counter("b", "B.", ("x",), registry=none).labels("1").inc()
        gauge = Gauge("c", "C.", registry=none, multiprocess_mode="mostrecent")
        gauge.set(3)
        Histogram("d", "D.", buckets=(1,), registry=none).observe(0.5)
        Summary("e", "E.", registry=none).observe(1)
    finally:
        values.ValueClass = before
    assert made == [
        ("counter", "a", "a_total", (), (), "A.", {}),
        ("counter", "b", "b_total", ("x",), ("1",), "B.", {}),
        ("gauge", "c", "c", (), (), "C.", {"multiprocess_mode": "mostrecent"}),
        ("histogram", "d", "d_sum", (), (), "D.", {}),
        ("histogram", "d", "d_bucket", ("le",), ("1.0",), "D.", {}),
        ("histogram", "d", "d_bucket", ("le",), ("+Inf",), "D.", {}),
        ("summary", "e", "e_count", (), (), "E.", {}),
        ("summary", "e", "e_sum", (), (), "E.", {}),
    ]
    theirs = {name for name in vars(values.MutexValue) if not name.startswith("_")}
    assert theirs <= set(dir(SlotValue)), "a value has to have more methods"


def the_files_of_metrics(tmp_path: Path) -> None:
    """How a file is laid out, which `make_room` reads, and that the collector merges such files by their names."""
    path = tmp_path / "counter_0.db"
    path.write_bytes(bytes(65_536))  # a file without values is zeros
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    used = 8
    for key in (mmap_key("a", "a_total", [], [], "A."), "ä" * 200):
        assert file.read_value(key) == (0, 0)  # type: ignore[no-untyped-call]
        before, used = used, int.from_bytes(path.read_bytes()[:4], sys.byteorder)
        assert before < used <= before + len(key.encode()) + 32, "an entry is longer than `make_room` provides"
    file.close()  # type: ignore[no-untyped-call]
    assert path.stat().st_size == 65_536, "the file isn't kept as large as it was found"
    path.unlink()
    for slot in (0, 1):
        for kind, suffix in (("counter", "_total"), ("gauge_livesum", "")):
            file = MmapedDict(str(tmp_path / f"{kind}_{slot}.db"))  # type: ignore[no-untyped-call]
            file.write_value(mmap_key(kind, kind + suffix, ["x"], ["1"], "A."), 2.0, 0.0)  # type: ignore[no-untyped-call]
            file.close()  # type: ignore[no-untyped-call]
    merged = MultiProcessCollector.merge(map(str, tmp_path.glob("*.db")))  # type: ignore[no-untyped-call]
    samples = [(sample.name, sample.labels, sample.value) for metric in merged for sample in metric.samples]
    assert sorted(samples) == [("counter_total", {"x": "1"}, 4), ("gauge_livesum", {"x": "1"}, 4)]


def the_parser_of_env_files(tmp_path: Path) -> None:
    """It yields every line as it was, and marks what it doesn't understand."""
    good, bad, comment = parse_stream(io.StringIO("export A='b c' # d\nE=\"f\n# g\n"))
    assert (good.key, good.value, good.error, good.original.line) == ("A", "b c", False, 1)
    assert (bad.error, bad.original.line) == (True, 2)
    assert (comment.key, comment.value, comment.error) == (None, None, False)
    literal, variable = parse_variables("a${B:-c}")
    assert isinstance(variable, Variable)
    assert (variable.name, variable.default) == ("B", "c")
    assert [part.resolve({}) for part in (literal, variable)] == ["a", "c"]


def the_parser_of_urls(tmp_path: Path) -> None:
    """It needs no DNS for mongodb+srv, warns of nothing, and raises what `mongodb_url` catches."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = _validate_uri("mongodb+srv://u:p@nowhere.invalid/d?w=2", validate=True, warn=False)
    assert (parts["database"], parts["collection"], parts["username"], parts["password"]) == ("d", None, "u", "p")
    assert dict(parts["options"])["w"] == 2
    with pytest.raises(InvalidURI):
        _validate_uri("http://h", validate=False, warn=False)
    assert URI_OPTIONS_VALIDATOR_MAP["w"]("w", "2") == 2
    assert all(name == name.lower() for name in URI_OPTIONS_VALIDATOR_MAP)


def the_protocol_of_uvicorn(tmp_path: Path) -> None:
    """`HttpProtocol` overrides these, and answers in their place."""
    assert (version("uvicorn"), version("httptools")) == ("0.54.0", "0.9.0")
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)
    assert list(inspect.signature(HttpToolsProtocol._start_asgi_task).parameters) == ["self", "cycle", "app"]
    read = inspect.getsource(HttpToolsProtocol)
    for name in ("_should_upgrade", "_unset_keepalive_if_required", "app = service_unavailable", "lenient_data_after"):
        assert name in read
    for name in ("scope", "headers", "url", "parser", "cycle", "pipeline", "transport", "server_state", "logger"):
        assert f"self.{name}" in read
    for name in ("disconnected", "keep_alive", "more_body", "response_started", "response_complete", "message_event"):
        assert f"self.{name} = " in inspect.getsource(RequestResponseCycle.__init__)


def the_worker_of_uvicorn(tmp_path: Path) -> None:
    """`SluiceWorker` serves as the base class does, with a server that takes leave before it shuts down."""
    served = inspect.getsource(UvicornWorker._serve)
    for line in (
        "self.config.app = self.wsgi",
        "server = Server(config=self.config)",
        "self._install_sigquit_handler()",
        "await server.serve(sockets=self.sockets)",
        "sys.exit(Arbiter.WORKER_BOOT_ERROR)",
    ):
        assert line in served
    assert "self.server_state = ServerState()" in inspect.getsource(Server.__init__)
    shut_down = inspect.getsource(Server.shutdown)
    for text in ("connection.shutdown()", "timeout=self.config.timeout_graceful_shutdown"):
        assert text in shut_down
    assert "self.shutdown(sockets=sockets)" in inspect.getsource(Server)
    assert "config_kwargs.update(self.CONFIG_KWARGS)" in inspect.getsource(UvicornWorker.__init__)


class Item(BaseModel):
    """A body."""

    name: str


def the_routes_of_included_routers(tmp_path: Path) -> None:
    """A route's context has what `dispatch` reads of it, and the router asks what stands before its routes."""

    def asked() -> None: ...

    router = APIRouter(prefix="/b", dependencies=[Depends(asked)])

    @router.post("/{number:int}")
    async def create(number: int, item: Item) -> None: ...

    service = FastAPI()
    service.include_router(router, prefix="/a")
    (context,) = (found for found in iter_route_contexts(service.routes) if found.path == "/a/b/{number:int}")
    assert context.methods == {"POST"}
    assert context.endpoint is create
    assert context.original_route is router.routes[0]
    assert list(context.param_convertors) == ["number"]
    assert context.path_regex.match("/a/b/7").groupdict() == {"number": "7"}
    assert context.body_field.field_info.annotation is Item
    assert [dependency.call for dependency in context.dependant.dependencies] == [asked]
    assert bool(getattr(context.strict_content_type, "value", context.strict_content_type))
    assert context.include_in_schema
    assert context.operation_id is None
    assert context.unique_id == "create_a_b__number__post"
    assert callable(context.app)
    scope = {"type": "http", "method": "POST", "path": "/a/b/7", "root_path": "", "headers": []}
    assert context.matches(scope)[0] is Match.FULL
    assert callable(service.router.middleware_stack)
    assert callable(service.router.default)


async def the_calls_of_a_route(tmp_path: Path) -> None:
    """What `direct` reads of a route's dependencies, parameters and answer, and FastAPI's own functions for each."""

    async def asked(tag: str = Header()) -> str:
        return tag

    service = FastAPI()

    @service.get("/{key}", status_code=202)
    async def read(key: str, request: Request, response: Response, page: int = 1, tag: str = Depends(asked)) -> Item:
        return Item(name=key)

    (context,) = (found for found in iter_route_contexts(service.routes) if found.path == "/{key}")
    assert isinstance(context.original_route, APIRoute)
    assert isinstance(context.response_class, DefaultPlaceholder)
    assert issubclass(context.response_class.value, Response)
    assert (context.body_field, context.max_body_size, context.status_code) == (None, None, 202)
    assert not context.is_json_stream
    assert not context.is_sse_stream
    assert context.dependency_overrides_provider is service
    given = {name: getattr(context, f"response_model_{name}") for name in ("include", "exclude", "by_alias")}
    given |= {f"exclude_{name}": getattr(context, f"response_model_exclude_{name}") for name in ("unset", "none")}
    needed = context.dependant
    (dependency,) = needed.dependencies
    assert (needed.call, dependency.call, dependency.name, dependency.use_cache) == (read, asked, "tag", True)
    assert (needed.request_param_name, needed.response_param_name) == ("request", "response")
    assert needed.http_connection_param_name is needed.websocket_param_name is needed.security_scopes_param_name is None
    assert needed.background_tasks_param_name is needed.concurrency is None
    for none in (needed.body_params, needed.cookie_params, needed.own_oauth_scopes, needed.parent_oauth_scopes):
        assert not none
    (key,), (page,), (tag,) = needed.path_params, needed.query_params, dependency.header_params
    assert (key.name, page.name, tag.name) == ("key", "page", "tag")
    assert key.validate("a", {}, loc=()) == ("a", [])
    assert request_params_to_args([page], QueryParams("page=2")) == ({"page": 2}, [])
    assert request_params_to_args([page], QueryParams("page=x"))[1]
    made = await serialize_response(
        field=context.response_field, response_content=Item(name="a"), **given, endpoint_ctx={}, dump_json=True
    )
    assert made == b'{"name":"a"}'
    assert [is_body_allowed_for_status_code(status) for status in (200, 204, 304)] == [True, False, False]


CONTRACTS: dict[Callable[[Path], Awaitable[None] | None], set[Name]] = {
    the_values_of_metrics: {Name("prometheus_client.values", "observe.metric_values")},
    the_files_of_metrics: {
        Name("prometheus_client.mmap_dict.MmapedDict", "observe.metric_files"),
        Name("prometheus_client.mmap_dict.MmapedDict", "observe.metric_values"),
        Name("prometheus_client.mmap_dict.mmap_key", "observe.metric_values"),
    },
    the_parser_of_env_files: {
        Name("dotenv.parser.Binding", "settings.env_file"),
        Name("dotenv.parser.parse_stream", "settings.env_file"),
        Name("dotenv.variables.Variable", "settings.env_file"),
        Name("dotenv.variables.parse_variables", "settings.env_file"),
    },
    the_parser_of_urls: {
        Name("pymongo.common.URI_OPTIONS_VALIDATOR_MAP", "settings.mongodb_url"),
        Name("pymongo.uri_parser_shared._validate_uri", "settings.mongodb_url"),
    },
    the_protocol_of_uvicorn: {
        Name("uvicorn._types.ASGI3Application", "serving.http_protocol"),
        Name("uvicorn.protocols.http.flow_control.service_unavailable", "serving.http_protocol"),
        Name("uvicorn.protocols.http.httptools_impl.HttpToolsProtocol", "serving.one_write"),
        Name("uvicorn.protocols.http.httptools_impl.RequestResponseCycle", "serving.http_protocol"),
        Name("HttpProtocol._should_upgrade", "serving.http_protocol"),
        Name("HttpProtocol._start_asgi_task", "serving.http_protocol"),
        Name("self._unset_keepalive_if_required", "serving.http_protocol"),
    },
    the_worker_of_uvicorn: {
        Name("SluiceWorker._serve", "serving.worker"),
        Name("self._install_sigquit_handler", "serving.worker"),
        Name("uvicorn.server.ServerState", "serving.leaving"),
    },
    the_routes_of_included_routers: {
        Name("fastapi.routing.RouteContext", "http.dispatch"),
        Name("fastapi.routing.iter_route_contexts", "http.dispatch"),
        Name("fastapi.routing.iter_route_contexts", "http.methods"),
    },
    the_calls_of_a_route: {
        Name("fastapi.datastructures.DefaultPlaceholder", "http.direct"),
        Name("fastapi.dependencies.models.Dependant", "http.direct"),
        Name("fastapi.dependencies.models.Dependant", "http.dispatch"),
        Name("fastapi.dependencies.utils.request_params_to_args", "http.direct"),
        Name("fastapi.routing.RouteContext", "http.direct"),
        Name("fastapi.routing.serialize_response", "http.direct"),
        Name("fastapi.utils.is_body_allowed_for_status_code", "http.direct"),
    },
}
PUBLIC = {
    "_typeshed",  # for type checkers only
    "annotated_types",
    *("bson", "bson.codec_options", "bson.errors"),
    "cachetools",
    *("fastapi", "fastapi.exceptions", "fastapi.params", "fastapi.responses", "fastapi.security"),
    *("gunicorn.arbiter", "gunicorn.config", "gunicorn.glogging", "gunicorn.workers.base"),
    "httptools",
    "loguru",
    *("prometheus_client", "prometheus_client.multiprocess", "prometheus_client.registry"),
    *(f"prometheus_fastapi_instrumentator{module}" for module in ("", ".metrics", ".routing")),
    *("pydantic", "pydantic.fields", "pydantic_core", "pydantic_settings"),
    *("pymongo", "pymongo.asynchronous.collection", "pymongo.asynchronous.database"),
    "pymongo.asynchronous.client_session",
    *("pymongo.client_options", "pymongo.errors", "pymongo.read_concern"),
    *("starlette.convertors", "starlette.datastructures", "starlette.exceptions", "starlette.middleware"),
    *("starlette.middleware.cors", "starlette.requests", "starlette.responses", "starlette.routing"),
    *("starlette.types", "starlette.websockets"),
    *("uvicorn", "uvicorn_worker"),
}
"""Modules that their libraries document, or that are there to be imported from."""
PUBLIC_NAMES = {"fastapi.routing.APIRoute", "fastapi.routing.APIRouter"}
OURS = ("app", "sluice")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_what_is_built_on_is_as_it_was_read(
    contract: Callable[[Path], Awaitable[None] | None], tmp_path: Path
) -> None:
    checking = contract(tmp_path)
    if checking is not None:
        await checking


def test_every_name_that_is_not_public_has_its_contract() -> None:
    touched = {Name(name, module) for module, tree in modules() for name in private_names(module, tree)}
    listed = set[Name]().union(*CONTRACTS.values())
    assert touched - listed == set(), "nothing promises that these stay: write a contract above, or do without"
    assert listed - touched == set(), "nobody touches these any more"


def test_the_page_of_the_architecture_has_them_all() -> None:
    page = (APP.parents[1] / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (`app\..*`) \| (\w+(?:, \w+)*) \|$", page, re.MULTILINE)
    found = {
        (name, module, contract)
        for name, modules, contracts in rows
        for module in re.findall(r"`app\.([\w.]+)`", modules)
        for contract in contracts.split(", ")
    }
    listed = {(name, module, contract.__name__) for contract, names in CONTRACTS.items() for name, module in names}
    assert listed <= found
    assert {row[:2] for row in found} == {row[:2] for row in listed}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from pymongo.pool_shared import _PoolClosedError", {"pymongo.pool_shared._PoolClosedError"}),
        ("from pymongo import errors, _csot", {"pymongo._csot"}),
        ("import pymongo.pool", {"pymongo.pool"}),
        ("from prometheus_client import values", {"prometheus_client.values"}),
        ("request._form", {"request._form"}),
        ("model.__pydantic_serializer__", {"model.__pydantic_serializer__"}),
        ("class A:\n    def f(self): return self._x", {"self._x"}),
        ("class A:\n    def f(self): self._x = 1; return self._x, type(self).__name__", set()),
        ("import os\nfrom starlette.routing import Match\nfrom app.http import cors", set()),
    ],
)
def test_a_private_name_is_found(code: str, found: set[str]) -> None:
    assert set(private_names("", ast.parse(code))) == found


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Of what is there to begin with: of a resource that was added, its owner decides."""
    ours = {"app", "users", *ROOMS}
    for path in sorted(path for path in APP.rglob("*.py") if path.parent.name in ours):
        module = ".".join(path.relative_to(APP).with_suffix("").parts)
        yield module, ast.parse(path.read_text())


def private_names(module: str, tree: ast.Module) -> Iterator[str]:
    """What a module of ours imports from where nothing is public, reads of objects that aren't ours, or overrides."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                own.add(name)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if is_foreign(each.name) and each.name not in PUBLIC)
            case ast.ImportFrom(module=str(source), names=names) if is_foreign(source):
                for name in (each.name for each in names):
                    where = f"{source}.{name}"
                    hidden = name.startswith("_") or name == "values"
                    if (source not in PUBLIC or hidden) and where not in {*PUBLIC, *PUBLIC_NAMES}:
                        yield where
            case ast.Attribute(attr=name) if name not in own and is_private(name):
                yield ast.unparse(node)
    if module:
        yield from overridden(module, tree)


def is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in OURS


def is_private(name: str) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return not hasattr(type, name) and name not in ("__metadata__", "__call__")
    return name.startswith("_")


def overridden(module: str, tree: ast.Module) -> Iterator[str]:
    """Private names of foreign classes that classes of ours give another meaning to."""
    module = f"app.{module}".removesuffix(".__init__")
    for kind in vars(import_module(module)).values():
        if isinstance(kind, type) and kind.__module__ == module:
            foreign = [base for base in kind.__mro__[1:] if is_foreign(base.__module__)]
            written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            for name in written & set(vars(kind)):
                if name.startswith("_") and not name.endswith("__") and any(name in vars(base) for base in foreign):
                    yield f"{kind.__name__}.{name}"


def test_every_module_is_looked_at() -> None:
    assert len(list(modules())) >= len(list(walk_packages(app.__path__)))
