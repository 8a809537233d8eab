"""PyMongo and Motor, made fair and exact.

What is PyMongo's asynchronous API is in `pymongo/`, what is Motor's and its synchronous driver's in `motor/`, and what
both share beside them. A driver is imported when it is chosen; without its folder and its line here it is gone.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from sluice.drivers.connected import Connect
from sluice.extras import missing

DRIVERS = {
    "pymongo": "sluice.drivers.pymongo.connecting",
    "motor": "sluice.drivers.motor.connecting",
}


def driver(name: str) -> Connect:
    """What connects by this driver (`Options.driver`).

    Raises `ValueError` for one that there isn't, and `ModuleNotFoundError` where its package isn't installed.
    """
    if name not in DRIVERS:
        raise ValueError(f"driver {name}: allowed is {' or '.join(DRIVERS)}")
    try:
        module = import_module(DRIVERS[name])
    except ModuleNotFoundError as error:
        raise missing(f"driver {name}", error) from None
    return cast("Connect", module.connect)
