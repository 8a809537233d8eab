"""The members' own view: what each one reports of its connections, role, lag, operations and cache.

One worker per container asks, through a client of its own with one connection per member, so that the answers come
even when the pools are full.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast, get_args

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_preferences import Nearest
from pymongo.server_description import ServerDescription

from sluice.drivers.connected import Document
from sluice.drivers.members import name_of
from sluice.errors import brief
from sluice.options import Options, milliseconds
from sluice.statistics.slots import Slot, read_all
from sluice.statistics.snapshot import MemberState, MemberStatus

log = logging.getLogger(__name__)

_target: ContextVar[str | None] = ContextVar("sluice_observed_member", default=None)
_NEVER = datetime(1970, 1, 1)  # noqa: DTZ001 as the client decodes times
_CREDENTIALS = ("tls", "ssl", "auth", "username", "password", "replicaset", "directconnection", "srv")
_KINDS = frozenset({"insert", "query", "update", "delete", "getmore", "command"})


@dataclass(frozen=True, slots=True)
class Answer:
    server: Document
    replication: Document
    disk: Document


def _select(servers: Sequence[ServerDescription]) -> Sequence[ServerDescription]:
    """The member that the running task asks for; every member for the driver's own needs."""
    target = _target.get()
    return servers if target is None else [server for server in servers if name_of(server.address) == target]


class MembersView:
    """What the members said last, in the container's lowest live worker; the others leave it to that one."""

    def __init__(self, options: Options, slot: Slot) -> None:
        self.statuses: list[MemberStatus] = []
        self._options = options
        self._slot = slot
        self._observer: _Observer | None = None
        self._too_small: set[str] = set()

    async def refresh(self, members: Sequence[str]) -> bool:
        """Ask these members (`host:port`), if this is the worker to do it; whether it is.

        Says why when they can't be asked.
        """
        lowest = min((worker.worker for worker in read_all(self._slot.directory) if worker.alive), default=None)
        if lowest != self._slot.number:
            await self.close()
            return False
        if members:
            try:
                if self._observer is None:
                    self._observer = _Observer(self._options)
                self.statuses = await self._observer.look(members)
            except Exception as error:
                log.warning("the members' own view is not available: %s: %s", type(error).__name__, error)
            else:
                self._compare_with_plan()
        return bool(members)

    async def close(self) -> None:
        if self._observer is not None:
            observer, self._observer = self._observer, None
            await observer.close()

    def _compare_with_plan(self) -> None:
        """Warn once for each member that accepts fewer connections than the configuration may open."""
        planned = self._options.planned_connections
        for status in self.statuses:
            limit = status.connection_limit
            if limit is not None and planned > limit and status.member not in self._too_small:
                self._too_small.add(status.member)
                log.warning(
                    "connection pool: %d connections may be opened to %s, which accepts %d",
                    planned,
                    status.member,
                    limit,
                )


def _credentials(options: Options) -> dict[str, Any]:
    """How the service's client proves who it is, for an observer that uses the same URL; no listeners, no codecs."""
    if options.monitoring_url:
        return {}
    return {name: value for name, value in options.client.items() if name.lower().startswith(_CREDENTIALS)}


class _Observer:
    """Asks every known member. Opens its client at the first call."""

    def __init__(self, options: Options) -> None:
        timeout = milliseconds(min(options.connect_timeout, 2.0))
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(
            options.monitoring_url or options.url,
            appname=f"{options.app_name}-{socket.gethostname()}-observer"[:128],
            maxPoolSize=1,
            connectTimeoutMS=timeout,
            socketTimeoutMS=timeout,
            serverSelectionTimeoutMS=timeout,
            heartbeatFrequencyMS=milliseconds(options.heartbeat_frequency),
            server_selector=_select,
            **_credentials(options),
        )
        self._refused: set[str] = set()

    async def look(self, members: Sequence[str]) -> list[MemberStatus]:
        """The status of each member (`host:port`), down ones included; takes no longer than its timeouts."""
        answers = await asyncio.gather(*(self._ask(member) for member in members))
        behind = lags(answers)
        return [_status(member, answer, behind.get(member)) for member, answer in zip(members, answers, strict=True)]

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, member: str) -> Answer | None:
        """None when the member doesn't answer."""
        _target.set(member)  # the task's own context: gather made one for each member
        try:
            return Answer(
                await self._command("serverStatus"),
                await self._command("replSetGetStatus"),
                await self._command("dbStats"),  # of any database: the disk is that of all of them
            )
        except PyMongoError as error:
            log.debug("member %s did not answer: %s", member, error)
            return None

    async def _command(self, name: str) -> Document:
        """The answer; empty where the user may not ask or the server has no such thing (said once)."""
        try:
            return await self._client.admin.command(name, read_preference=Nearest())
        except OperationFailure as error:
            if name not in self._refused:
                self._refused.add(name)
                log.warning("the members' own view lacks %s: %s", name, brief(error))
            return {}


def lags(answers: Sequence[Answer | None]) -> dict[str, float]:
    """Seconds that each member is behind, as the primary sees it; empty without a primary.

    The primary gives members that it doesn't reach, and those that have not copied anything yet, the time 0 of 1970.
    """
    for answer in answers:
        rows = answer.replication.get("members", []) if answer else []
        primary = next((row for row in rows if row.get("self") and row["stateStr"] == "PRIMARY"), None)
        if primary is not None:
            newest = primary["optimeDate"]
            return {
                row["name"]: max(0.0, (newest - row["optimeDate"]).total_seconds())
                for row in rows
                if row.get("health") == 1 and row.get("optimeDate", _NEVER) > _NEVER
            }
    return {}


def _status(member: str, answer: Answer | None, lag: float | None) -> MemberStatus:
    status = MemberStatus(member, up=answer is not None, taken_at=time.time(), lag=lag)
    if answer is None:
        return status
    own = next((row for row in answer.replication.get("members", []) if row.get("self")), None)
    if own is not None:
        state = str(own["stateStr"]).lower()
        status.role = cast("MemberState", state) if state in get_args(MemberState) else "unknown"
    connections = answer.server.get("connections", {})
    status.connections_current = connections.get("current")
    status.connections_available = connections.get("available")
    status.connections_total_created = connections.get("totalCreated")
    status.operations = {
        kind: int(count) for kind, count in answer.server.get("opcounters", {}).items() if kind in _KINDS
    }
    cache = answer.server.get("wiredTiger", {}).get("cache", {})
    status.cache_used_bytes = cache.get("bytes currently in the cache")
    status.cache_max_bytes = cache.get("maximum bytes configured")
    status.cache_dirty_bytes = cache.get("tracked dirty bytes in the cache")
    status.disk_used_bytes, status.disk_size_bytes = (
        int(answer.disk[name]) if name in answer.disk else None for name in ("fsUsedSize", "fsTotalSize")
    )
    return status
