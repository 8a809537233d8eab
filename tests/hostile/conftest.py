"""The service as hostile callers meet it: nginx, Gunicorn with the worker's own protocol, a real replica set."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from edge import gunicorn, nginx, url
from served import KEY, Service
from whole_stack import until

from stack.replica_set import ReplicaSet


@pytest.fixture(scope="session")
def replica_set() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet()
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


@pytest.fixture(scope="session", params=["pymongo", "motor"])
def service(
    request: pytest.FixtureRequest, replica_set: ReplicaSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """With every request in the log, and a key that writing needs; on each driver in turn."""
    driver = str(request.param)
    home = tmp_path_factory.mktemp(driver)
    settings = {
        "api_key": KEY,
        "mongodb_url": replica_set.url,
        "mongodb_driver": driver,
        "database_name": driver,
        "min_pool_size": 0,
        "workers": 2,
        "max_requests": 0,  # a worker that is to be replaced ends connections by right
        "access_log": "all",
    }
    with nginx(home, **settings) as layout, gunicorn(layout, **settings) as api:
        until(lambda: httpx.get(f"{api}/health/ready").status_code == 200)
        yield Service(driver, url(layout), api, home / "api.log")
