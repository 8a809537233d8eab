"""A Docker engine for these tests alone, and the stack on it, started by up.sh and stopped by down.sh.

Both end with the last test of this folder: later ones, some of which measure times, get the machine for themselves.
"""

from __future__ import annotations

import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine, NoEngineError
from project import Project, mongod


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    engine = Engine(Path(tempfile.mkdtemp(prefix="sluice-")))
    try:
        try:
            engine.start(mongod())
        except NoEngineError as error:
            # Not pytest's own exception, of which the report would have a line for each test.
            raise unittest.SkipTest(f"no Docker engine for the compose tests: {error}") from None
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="package")
def project(engine: Engine) -> Iterator[Project]:
    """The running stack, one container of the API; from test_stack_in_production.py on with what production adds."""
    project = Project(engine, "sluice-test")
    try:
        started = time.monotonic()
        project.script("up.sh", "-d")
        print(f"up.sh took {time.monotonic() - started:.0f} s")
        yield project
        project.script("down.sh", "--purge")
        assert project.docker("ps", "-aq", "--filter", "name=sluice-test") == ""
        assert project.docker("volume", "ls", "-q", "--filter", "name=sluice-test") == ""
    finally:
        project.down()
