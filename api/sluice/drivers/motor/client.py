"""The synchronous client inside Motor's, with what Sluice changes in it."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient
from pymongo.synchronous.server import Server

from sluice.drivers.connected import Document
from sluice.drivers.selection import allow_for_round_trip, within_deadline


class SyncClient(MongoClient[Document]):
    """Its server selection draws on the request's deadline."""

    def _select_server(self, *arguments: Any, **options: Any) -> Server:
        with within_deadline(self.options.server_selection_timeout):
            server = super()._select_server(*arguments, **options)
        allow_for_round_trip(server.description)
        return server
