"""No expression that sees what a caller has sent, or a line of a log, can be made to take more than linear time."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from ambiguity import How, ambiguity
from fastapi.routing import iter_route_contexts

import app
import scripts.log_report
import sluice
from app.main import create_app
from app.observe.masks import Masks
from app.settings.model import load

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (app, sluice, scripts.log_report)
HOW: dict[str, How] = {
    "fullmatch": "fullmatch",
    "match": "match",
    **dict.fromkeys(("search", "sub", "subn", "split", "findall", "finditer"), "search"),
}
NGINXS = re.compile(r'\s*(?:location |if \(\$\w+ )?("?)~\*? ?(.+?)(?(1)"|\)?) ')
OPERATORS = {
    "app.http.dispatch": "routes' own paths",
    "app.settings.env_file": "lines of .env",
    "sluice.drivers.arguments": "what the driver says of MONGODB_URL",
}
"""Modules whose expressions see nothing of a caller's."""


def modules() -> Iterator[ModuleType]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield import_module(found.name)


def tree_of(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text())


def calls(tree: ast.Module) -> Iterator[tuple[str, str, ast.Call]]:
    """Each `name.method(…)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                yield name, method, node


Expression = tuple[str, str | bytes, int, How]


def of_modules() -> Iterator[Expression]:
    """Those that have a name, wherever it is asked, and those that are written where they are asked."""
    everything = [(module, list(calls(tree_of(module)))) for module in modules()]
    for module, found in everything:
        for name, method, _ in found:
            value = getattr(module, name, None)
            if isinstance(value, re.Pattern) and method in HOW:
                yield f"{module.__name__}.{name}", value.pattern, value.flags & ~re.UNICODE, HOW[method]
        for name, method, call in found:
            if name == "re" and method in HOW:
                pattern = ast.literal_eval(call.args[0])
                yield f"{module.__name__}:{call.lineno}", pattern, 0, HOW[method]


def of_masks() -> Iterator[Expression]:
    for pattern, _ in Masks({"o", "a-key-12", "a-long-key-of-somebody", "aaaaaaaaaaaaaaaaaaaaaa"})._known:
        yield f"app.observe.masks: {pattern.pattern[:30]}", pattern.pattern, pattern.flags & ~re.UNICODE, "search"


def of_routes() -> Iterator[Expression]:
    for context in iter_route_contexts(create_app(load(_env_file=None)).routes):
        yield f"route {context.path}", context.path_regex.pattern, 0, "match"


def of_nginx() -> Iterator[Expression]:
    """Of maps and locations."""
    for file in sorted((ROOT / "nginx").rglob("*.conf")):
        for line in file.read_text().splitlines():
            if found := NGINXS.match(line):
                yield f"{file.relative_to(ROOT)}: {found[2]}", found[2], 0, "search"


ALL = list(dict.fromkeys([*of_modules(), *of_masks(), *of_routes(), *of_nginx()]))


@pytest.mark.parametrize(("where", "pattern", "flags", "how"), ALL, ids=lambda value: str(value)[:60])
def test_it_is_linear(where: str, pattern: str | bytes, flags: int, how: How) -> None:
    assert where.startswith(tuple(OPERATORS)) or ambiguity(pattern, how, flags) is None


def test_all_of_them_are_found() -> None:
    """As many as are compiled somewhere, but for those that are built from settings."""
    compiled = {
        target.id
        for module in modules()
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "compile"
        for target in node.targets
        if isinstance(target, ast.Name)
    }  # fmt: skip
    assert len(compiled) > 30
    assert compiled <= {where.rpartition(".")[2] for where, *_ in ALL}
    assert {"nginx/nginx.conf: ^[A-Za-z0-9._-]{1,128}$", "route /users/{id}"} <= {where for where, *_ in ALL}


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("(a+)+$", "match"), ("(a*)*b", "match"), ("(a|a)*$", "match"), ("(?:a|aa)+$", "match"),
        ("a*b*a*$", "match"), (".*.*=", "match"), (r"(\w+\s?)+$", "match"), (r"\s*,\s*x", "search"), ("x*y", "search"),
        (r"(?:\w+\.)*\w+@", "search"), (r"\s+$", "search"), ("[^@]+@x", "search"), ("(?=.*x)y", "match"),
        (r"(?<![\w.])[a-z][\w-]*:", "search"),
    ],
)  # fmt: skip
def test_what_is_slow_is_named(pattern: str, how: How) -> None:
    assert ambiguity(pattern, how) is not None


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (r"\d+", "search"), ("[a-z]+", "fullmatch"), ("x[0-9]+y", "search"), ("(?:[a-z]+,)*[a-z]+$", "match"),
        ('[ ,]*(?:"a"[ ,]*)*$', "match"), ("(?<=://)[^/@]*@", "search"), (r"(?<!\w)[a-z]\w*:", "search"),
    ],
)  # fmt: skip
def test_what_is_linear_is_not(pattern: str, how: How) -> None:
    assert ambiguity(pattern, how) is None
