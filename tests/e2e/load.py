"""Callers that repeat a request until told to stop, and note every outcome."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import httpx
from whole_stack import until


class Served(Protocol):
    """Anything that answers at an address."""

    @property
    def url(self) -> str: ...


Send = Callable[[httpx.Client], httpx.Response]


class Callers:
    """Runs while the block does. An outcome is a status, or the name of what went wrong below HTTP."""

    def __init__(self, stack: Served, send: Send, *, callers: int = 8) -> None:
        self._url = stack.url
        self._send = send
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: Counter[int | str] = Counter()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self.wait_for(200, 201)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def outcomes(self) -> Counter[int | str]:
        with self._lock:
            return Counter(self._outcomes)

    def wait_for(self, *statuses: int, times: int = 20, seconds: float = 30) -> None:
        """Wait for so many more of these answers."""
        before = self.outcomes
        until(lambda: sum(self.outcomes[status] - before[status] for status in statuses) >= times, seconds)

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=40) as client:
            while not self._done.is_set():
                outcome: int | str
                try:
                    outcome = self._send(client).status_code
                except httpx.HTTPError as error:
                    outcome = type(error).__name__
                with self._lock:
                    self._outcomes[outcome] += 1
