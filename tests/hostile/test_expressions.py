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
from stack.nginx import for_containers

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (app, sluice, scripts.log_report)
HOW: dict[str, How] = {
    "fullmatch": "fullmatch",
    "match": "match",
    **dict.fromkeys(("search", "sub", "subn", "split", "findall", "finditer"), "search"),
}
NGINXS_WORD = re.compile(r"""#.*|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|((?:\$\{|[^\s;{])+)""")
OPERATORS = {
    "app.http.dispatch": "routes' own paths",
    "app.settings.env_file": "lines of .env",
    "sluice.drivers.arguments": "what the driver says of MONGODB_URL",
}
"""Modules whose expressions see nothing of a caller's."""
BUILT = {"app.observe.masks"}
"""Modules that make some while they run: `of_masks`."""


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


def of_line(line: str) -> Iterator[tuple[str, int]]:
    """The expressions in a line for nginx, and their flags: locations', maps', conditions', rewrites', servers'."""
    words = [next(filter(None, found.groups()), "") for found in NGINXS_WORD.finditer(line)]
    if words and words[0] == "rewrite":
        yield words[1], 0
    for place, word in enumerate(words):
        if not (operator := re.match(r"!?~\*?", word)):
            continue
        expression = word[operator.end() :] or words[place + 1]
        if words[0] == "if":
            expression = expression.removesuffix(")")
        yield expression, re.IGNORECASE if operator[0].endswith("*") else 0


def lines_for_nginx() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "nginx").rglob("*.conf")):
        for line in file.read_text().splitlines():
            yield str(file.relative_to(ROOT)), line
    for name, text in for_containers(load(_env_file=None, cors_origins="*"), 443).items():
        for line in text.splitlines():
            yield f"stack/nginx.py: {name}", line


def of_nginx() -> Iterator[Expression]:
    for file, line in lines_for_nginx():
        for expression, flags in of_line(line):
            yield f"{file}: {expression}", expression, flags, "search"


ALL = list(dict.fromkeys([*of_modules(), *of_masks(), *of_routes(), *of_nginx()]))


@pytest.mark.parametrize(("where", "pattern", "flags", "how"), ALL, ids=lambda value: str(value)[:60])
def test_it_is_linear(where: str, pattern: str | bytes, flags: int, how: How) -> None:
    assert where.startswith(tuple(OPERATORS)) or ambiguity(pattern, how, flags) is None


def compiled(module: ModuleType) -> Iterator[ast.Call]:
    for name, method, call in calls(tree_of(module)):
        if (name, method) == ("re", "compile"):
            yield call


def named(module: ModuleType) -> dict[ast.expr | None, str]:
    """What is given a name in the module itself, annotated or not."""
    return {
        node.value: target.id
        for node in tree_of(module).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def test_all_of_them_are_found() -> None:
    """As many as are compiled somewhere, but for those that are built from settings."""
    judged = {(pattern, flags) for _, pattern, flags, _ in ALL}
    found = 0
    for module in modules():
        names = {(value.lineno, value.col_offset): name for value, name in named(module).items() if value}
        for call in compiled(module):
            where = f"{module.__name__}:{call.lineno}"
            if (call.lineno, call.col_offset) in names:
                value = getattr(module, names[call.lineno, call.col_offset])
                assert (value.pattern, value.flags & ~re.UNICODE) in judged, where
                found += 1
            else:
                assert module.__name__ in BUILT, where
    assert found > 30
    assert "route /users/{id}" in {where for where, *_ in ALL}


def test_all_of_nginxs_are_found() -> None:
    for file, line in lines_for_nginx():
        if not line.lstrip().startswith("#") and re.search(r'[ "\'(!]~|\brewrite ', line):
            assert list(of_line(line)), f"{file}: {line}"
    assert {
        "nginx/nginx.conf: ^[A-Za-z0-9._-]{1,128}$",
        "nginx/nginx.conf: ^/(metrics|pool/control)(/|$)",
        "stack/nginx.py: cors_origins.conf: ^1 .",
    } <= {where for where, *_ in of_nginx()}


@pytest.mark.parametrize(
    ("line", "expressions"),
    [
        ("location ~ ^/(a|b)(/|$) {", [("^/(a|b)(/|$)", 0)]),
        ('location ~* "^/a{2}" {', [("^/a{2}", re.IGNORECASE)]),
        ("location = /a {", []),
        ("~^a$ 1;", [("^a$", 0)]),
        ('"~*^a b$" "c";', [("^a b$", re.IGNORECASE)]),
        ("if ($x !~ ^a(b)$) {", [("^a(b)$", 0)]),
        ('if ($x !~* "a b") {', [("a b", re.IGNORECASE)]),
        ("rewrite ^/a/(.*)$ /b/$1 last;", [("^/a/(.*)$", 0)]),
        ("server_name a ~^b ~^c;", [("^b", 0), ("^c", 0)]),
        ("return 404;  # not ~ this", []),
    ],
)
def test_nginxs_are_read_as_it_does(line: str, expressions: list[tuple[str, int]]) -> None:
    assert list(of_line(line)) == expressions


def test_no_model_lets_a_matcher_that_backtracks_see_a_field() -> None:
    """Pydantic's own takes linear time, whatever a `pattern` is."""
    assert [module.__name__ for module in modules() if "regex_engine" in ast.unparse(tree_of(module))] == []


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("(a+)+$", "match"), ("(a*)*b", "match"), ("(a|a)*$", "match"), ("(?:a|aa)+$", "match"),
        ("a*b*a*$", "match"), (".*.*=", "match"), (r"(\w+\s?)+$", "match"), (r"\s*,\s*x", "search"), ("x*y", "search"),
        (r"(?:\w+\.)*\w+@", "search"), (r"\s+$", "search"), ("[^@]+@x", "search"), ("(?=.*x)y", "match"),
        (r"(?<![\w.])[a-z][\w-]*:", "search"), (r"a+\b", "search"), ("a+(?=x)", "search"), ("a+(?!y)", "search"),
        (r"(a+)+\b", "match"), ("(a+)+(?=x)", "match"),
    ],
)  # fmt: skip
def test_what_is_slow_is_named(pattern: str, how: How) -> None:
    assert ambiguity(pattern, how) is not None


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (r"\d+", "search"), ("[a-z]+", "fullmatch"), ("x[0-9]+y", "search"), ("(?:[a-z]+,)*[a-z]+$", "match"),
        ('[ ,]*(?:"a"[ ,]*)*$', "match"), ("(?<=://)[^/@]*@", "search"), (r"(?<!\w)[a-z]\w*:", "search"),
        (r"\ba+", "search"), (r"(\ba+)+", "match"), (r"a+(?:\b|)", "search"),
    ],
)  # fmt: skip
def test_what_is_linear_is_not(pattern: str, how: How) -> None:
    assert ambiguity(pattern, how) is None
