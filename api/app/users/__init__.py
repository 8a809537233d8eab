"""The example resource. docs/add-a-resource.md makes another."""

from app.users.repository import prepare
from app.users.routes import router

__all__ = ["prepare", "router"]
