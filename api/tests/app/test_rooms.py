"""The rooms of the service, and which of them may know which."""

from __future__ import annotations

import ast
from pathlib import Path

import app

APP = Path(app.__file__).parent
ROOMS = {
    "settings": set[str](),
    "http": {"settings"},
    "data": {"settings", "http"},
    "observe": {"settings", "http"},
    "serving": {"settings", "http", "observe"},
}
"""Each room with those that it may import from."""


def rooms_of(path: Path) -> set[str]:
    """The parts of the service that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module="app", names=names):
                found |= {each.name for each in names}
            case ast.ImportFrom(module=str(module)) if module.startswith("app."):
                found.add(module.split(".")[1])
            case ast.Import(names=names):
                found |= {each.name.split(".")[1] for each in names if each.name.startswith("app.")}
    return found


def test_imports_between_rooms_go_one_way() -> None:
    for room, allowed in ROOMS.items():
        for path in (APP / room).rglob("*.py"):
            assert rooms_of(path) <= {room, *allowed}, path


def test_every_folder_is_a_room_or_a_resource() -> None:
    folders = {path.parent.name for path in APP.glob("*/__init__.py")}
    for folder in folders - ROOMS.keys():
        resource = (APP / folder / "__init__.py").read_text()
        assert "prepare" in resource, f"{folder} is neither a room nor a resource"
        assert "router" in resource, f"{folder} is neither a room nor a resource"


def test_whoever_serves_knows_no_resource_and_no_application() -> None:
    for room in ROOMS:
        for path in (APP / room).rglob("*.py"):
            assert rooms_of(path).isdisjoint({"main", "lifespan", "security", "users"}), path
