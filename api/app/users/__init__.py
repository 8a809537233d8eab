"""The example resource. To add another, copy this folder and name it in `app/main.py`."""

from app.users.repository import prepare
from app.users.routes import router

__all__ = ["prepare", "router"]
