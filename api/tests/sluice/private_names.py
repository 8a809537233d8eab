"""Which private names of PyMongo and Motor Sluice touches, read from its source."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import sluice

DRIVERS = ("pymongo", "motor")


class _AnyProtocol(Protocol):
    """Some of the drivers' classes are protocols, too; what makes them so is no name of theirs."""


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(sluice.__path__, "sluice."):
        yield import_module(found.name)


def syntax(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


def is_drivers(module_name: str | None) -> bool:
    return (module_name or "").partition(".")[0] in DRIVERS


def touched() -> dict[str, set[str]]:
    """Each private name, and the modules of Sluice where it is used."""
    uses: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in _imported(syntax(module)) | _of_other_objects(syntax(module)) | _in_subclasses(module):
            uses[name].add(module.__name__)
    return dict(uses)


def overridden() -> dict[tuple[type, str], set[str]]:
    """The drivers' classes and methods that classes of Sluice override, and the modules where they do."""
    uses: defaultdict[tuple[type, str], set[str]] = defaultdict(set)
    for module in modules():
        for ours in _subclasses(module):
            for name, value in vars(ours).items():
                owner = next((base for base in _bases(ours) if name in vars(base)), None)
                if owner is not None and inspect.isfunction(value) and name != "__subclasshook__":
                    uses[owner, name].add(module.__name__)
    return dict(uses)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_id"


def _imported(tree: ast.Module) -> set[str]:
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and is_drivers(node.module)]
    return {name.name for node in froms for name in node.names if _is_private(name.name)}


def _of_other_objects(tree: ast.Module) -> set[str]:
    """Attributes that this module doesn't define, and keyword arguments, also in a dictionary of them."""
    nodes = list(ast.walk(tree))
    defined = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {
        node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - defined
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    keys = {
        key.value for node in nodes if isinstance(node, ast.Dict) for key in node.keys if isinstance(key, ast.Constant)
    }
    return {name for name in attributes | keywords | keys if isinstance(name, str) and _is_private(name)}


def _in_subclasses(module: ModuleType) -> set[str]:
    """What a driver's class has, and a subclass of it here overrides, reads or sets."""
    return {
        name
        for ours in _subclasses(module)
        for name in _names(ours)
        if _is_private(name) and any(name in _names(base) for base in _bases(ours))
    }


def _subclasses(module: ModuleType) -> list[type[Any]]:
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [value for value in classes if value.__module__ == module.__name__ and _bases(value)]


def _bases(ours: type[Any]) -> list[type[Any]]:
    return [base for base in ours.__mro__ if is_drivers(base.__module__)]


def _names(owner: type[Any]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    return set(vars(owner)) - set(vars(_AnyProtocol)) | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
