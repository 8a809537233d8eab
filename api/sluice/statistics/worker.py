"""What this worker knows of itself, continued from its slot's last owner, and published to the others."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from sluice.drivers.connected import Connected, usable
from sluice.options import Options, milliseconds
from sluice.statistics import process
from sluice.statistics.figures import past
from sluice.statistics.operations import Operations
from sluice.statistics.slots import Slot
from sluice.statistics.snapshot import (
    ANY_MEMBER,
    Coalesced,
    CoalescerStats,
    MemberStatus,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
)

log = logging.getLogger(__name__)


class WorkerStatistics:
    """The figures of one worker. `loop_lag` is in seconds; `members` is what the members said last."""

    def __init__(
        self, options: Options, slot: Slot, app_name: str, on_refusal: Callable[[BaseException], None]
    ) -> None:
        previous = slot.previous()
        self._options = options
        self._slot = slot
        self._app_name = app_name
        self._pools = {pool.member: past(pool.stats) for pool in previous.pools} if previous else {}
        coalescers = previous.coalescers if previous else []
        self._coalescers = {(stats.kind, stats.collection): past(stats) for stats in coalescers}
        self._starts = previous.starts + 1 if previous else 1
        self._started_at = time.time()
        self._cpu_before = previous.cpu_seconds if previous else 0.0
        self.operations = Operations(options.slow_operation, previous.operations if previous else [], on_refusal)
        self.loop_lag = 0.0
        self.members: list[MemberStatus] = previous.members if previous else []
        self.published = True
        """Whether the other workers know what this one knows."""

    def of_pool(self, member: str) -> PoolStats:
        """Where the pool of this member (`host:port`) counts."""
        if member not in self._pools:  # a new one, since Motor's threads call this while the loop looks through them
            self._pools = {**self._pools, member: PoolStats()}
        return self._pools[member]

    def of_coalescer(self, kind: Coalesced, collection: str) -> CoalescerStats:
        """Where the reads or writes of a collection count."""
        return self._coalescers.setdefault((kind, collection), CoalescerStats(kind=kind, collection=collection))

    def snapshot(self, connected: Connected | None, ready: bool) -> WorkerSnapshot:
        """Everything about this worker, in one step: nothing else runs meanwhile."""
        options = self._options
        max_idle_time = options.max_idle_time
        return WorkerSnapshot(
            worker=self._slot.number,
            pid=os.getpid(),
            app_name=self._app_name,
            driver=options.driver,
            started_at=self._started_at,
            taken_at=time.time(),
            starts=self._starts,
            ready=ready,
            loop_lag_seconds=self.loop_lag,
            cpu_seconds=self._cpu_before + process.cpu_seconds(),
            memory_bytes=process.memory_bytes(),
            pool_config=PoolConfig(
                max_pool_size=options.max_pool_size,
                min_pool_size=options.min_pool_size,
                max_idle_time_ms=None if max_idle_time is None else milliseconds(max_idle_time),
                wait_queue_timeout_ms=milliseconds(options.wait_queue_timeout),
            ),
            pools=self._pool_snapshots(connected),
            operations=self.operations.stats(),
            coalescers=list(self._coalescers.values()),
            members=self.members,
        )

    def publish(self, snapshot: WorkerSnapshot) -> None:
        """Let every worker of the container know it. Where that fails, it's logged once."""
        try:
            self._slot.hold()
            self._slot.publish(snapshot)
        except OSError as error:
            if self.published:
                log.error("statistics can't be published, only this worker knows them: %s", error)
            self.published = False
            return
        if not self.published:
            log.warning("statistics are published again")
        self.published = True

    def _pool_snapshots(self, connected: Connected | None) -> list[PoolSnapshot]:
        """What was counted for each member, and how its pool is now, if there is one."""
        if connected is None:
            return [PoolSnapshot(member=member, exists=False, stats=stats) for member, stats in self._pools.items()]
        pools, gate, can_be_used = connected.pools, connected.gate, usable(connected)
        snapshots = []
        for member, stats in self._pools.items():
            pool = pools.get(member)
            exists = True
            if member == ANY_MEMBER and gate is not None:
                stats = replace(
                    stats,
                    available_connections=gate.free if can_be_used else 0,
                    waiting=gate.waiting,
                    oldest_waiter_seconds=gate.oldest_wait,
                    wait_queue_limit=gate.queue_limit,
                    permits=gate.permits,
                    permits_given=gate.admitting,
                    permits_held=gate.held,
                    eligible=bool(can_be_used),
                )
            elif pool is not None and not pool.closed:
                stats = pool.stats(eligible=member in can_be_used)
            else:
                exists = False
            snapshots.append(PoolSnapshot(member=member, exists=exists, stats=stats))
        return snapshots
