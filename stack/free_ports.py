"""Ports for stacks that come and go beside others: those of tests and of the benchmark. Standard library only."""

from __future__ import annotations

import random
import socket

BELOW = 32_000
"""From 32768 on, the kernel gives them to outgoing connections."""
_random = random.SystemRandom()  # whatever somebody seeds: others choose at the same time


def free_ports(count: int) -> list[int]:
    """So many free ports in a row."""
    while True:
        first = _random.randrange(20_000, BELOW - count)
        ports = list(range(first, first + count))
        if all(map(_is_free, ports)):
            return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
