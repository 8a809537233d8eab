"""The driver's own options are honoured, or refused by name, on both drivers; none is overridden in silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from bson.codec_options import TypeEncoder, TypeRegistry
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
    ConnectionPoolListener,
)
from pymongo.server_api import ServerApi

from sluice import Options
from sluice.options import GOVERNED
from tests.conftest import OpenSluice

ID = 1


class Commands(CommandListener):
    def __init__(self) -> None:
        self.started_: list[CommandStartedEvent] = []
        self.succeeded_: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.started_.append(event)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self.succeeded_.append(event.command_name)

    def failed(self, event: CommandFailedEvent) -> None:
        raise AssertionError(event.failure)


class Pools(ConnectionPoolListener):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("connection_", "pool_")):
            return lambda _: self.seen.append(name)
        return super().__getattribute__(name)


async def test_listeners_hear_of_every_command_and_connection(open_sluice: OpenSluice) -> None:
    commands, pools = Commands(), Pools()
    sluice = await open_sluice(client={"event_listeners": [commands, pools]})
    await sluice.collection("things").insert_one({"_id": ID})
    assert await sluice.reader("things").get(ID) == {"_id": ID}
    names = [event.command_name for event in commands.started_]
    assert names[-2:] == commands.succeeded_[-2:] == ["insert", "find"]
    assert pools.seen.count("connection_checked_out") == pools.seen.count("connection_checked_in") == len(names)
    assert pools.seen.count("connection_created") >= 1


async def test_the_servers_api_is_declared(open_sluice: OpenSluice) -> None:
    commands = Commands()
    api = ServerApi("1", strict=True, deprecation_errors=True)
    sluice = await open_sluice(client={"server_api": api, "event_listeners": [commands]})
    await sluice.writer("things").insert({"_id": ID})
    assert await sluice.reader("things").get(ID) == {"_id": ID}
    assert {(event.command["apiVersion"], event.command["apiStrict"]) for event in commands.started_} == {("1", True)}


async def test_codec_options(open_sluice: OpenSluice) -> None:
    moment, number = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), uuid4()

    class AsHex(TypeEncoder):
        python_type = complex

        def transform_python(self, value: complex) -> str:
            return str(value)

    given = {"type_registry": TypeRegistry([AsHex()]), "tz_aware": False, "uuidRepresentation": "standard"}
    sluice = await open_sluice(client=given)
    await sluice.collection("things").insert_one({"_id": ID, "at": moment, "uuid": number, "complex": 1j})
    found = await sluice.collection("things").find_one()
    assert found == {"_id": ID, "at": moment.replace(tzinfo=None), "uuid": number, "complex": "1j"}
    again = await open_sluice(
        client={"document_class": RawBSONDocument, "tz_aware": True}, database=sluice.options.database
    )
    raw = await again.collection("things").find_one()
    assert isinstance(raw, RawBSONDocument)
    assert raw["at"] == moment


async def test_codec_options_in_the_url(open_sluice: OpenSluice, options: Options) -> None:
    url = f"{options.url}&tz_aware=true&uuidRepresentation=standard&appName=shop"
    sluice = await open_sluice(url=url, app_name="")
    assert sluice.app_name.startswith("shop-")
    codec = sluice.database.codec_options
    assert (codec.tz_aware, codec.uuid_representation) == (True, 4)


async def test_without_any_the_drivers_defaults_hold(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    assert sluice.database.codec_options == AsyncMongoClient("mongodb://h").codec_options


@pytest.mark.parametrize("name", GOVERNED)
def test_what_a_field_decides_is_refused_by_name(name: str) -> None:
    options = Options(url="mongodb://h/", database="d")
    in_url = f"^option {name} in the URL: set {GOVERNED[name]} instead$"
    with pytest.raises(ValueError, match=in_url):
        replace(options, url=f"mongodb://h/?{name}=9")
    with pytest.raises(ValueError, match=in_url):
        replace(options, monitoring_url=f"mongodb://h/?w=1&{name}=9")
    with pytest.raises(ValueError, match=f"^option {name.upper()} in client: set {GOVERNED[name]} instead$"):
        replace(options, client={name.upper(): 9})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_pool_size": 0}, "option max_pool_size=0: allowed is a whole number, 1 or more$"),
        ({"max_pool_size": 4, "min_pool_size": 5}, "option min_pool_size=5: allowed is up to max_pool_size, 4$"),
        ({"batch": -1}, "option batch=-1: allowed is a whole number, 1 or more$"),
        ({"socket_timeout": 0}, "option socket_timeout=0: allowed is more than 0, in seconds$"),
        ({"max_idle_time": float("nan")}, "option max_idle_time=nan: allowed is more than 0, in seconds$"),
        ({"wait_queue_timeout": float("inf")}, "option wait_queue_timeout=inf: allowed is more than 0, in seconds$"),
        ({"max_pool_size": "20"}, "option max_pool_size='20': allowed is a whole number, 1 or more$"),
        ({"lanes": True}, "option lanes=True: allowed is a whole number, 1 or more$"),
        ({"connect_timeout": "5"}, "option connect_timeout='5': allowed is more than 0, in seconds$"),
        ({"socket_timeout": None}, "option socket_timeout=None: allowed is more than 0, in seconds$"),
        ({"wait_queue_timeout": True}, "option wait_queue_timeout=True: allowed is more than 0, in seconds$"),
        ({"heartbeat_frequency": 0.1}, "option heartbeat_frequency=0.1: allowed is 0.5 to 10000000, in seconds$"),
        ({"wait_queue_timeout": 1e-9}, "option wait_queue_timeout=1e-09: allowed is 0.001 to 10000000, in seconds$"),
        ({"socket_timeout": 1e300}, r"option socket_timeout=1e\+300: allowed is 0.001 to 10000000, in seconds$"),
        ({"url": None}, "option url=None: allowed is a text$"),
        ({"url": b"mongodb://u:geheim@h"}, r"option url=\*\*\*: allowed is a text$"),
        ({"monitoring_url": 5}, r"option monitoring_url=\*\*\*: allowed is a text$"),
        ({"database": 5}, "option database=5: allowed is a text$"),
        ({"database": ""}, "option database='': allowed is a name$"),
        ({"app_name": 5}, "option app_name=5: allowed is a text$"),
        ({"driver": "foo"}, "option driver='foo': allowed are pymongo and motor$"),
        ({"client": None}, "option client: allowed is a mapping"),
        ({"client": {5: 5}}, "option client: allowed is a mapping"),
        ({"client": {"host": "mongodb://other/"}}, "option host in client: set url instead"),
        ({"client": {"appname": "x"}}, "option appname in client: set app_name instead"),
        ({"client": {"_pool_class": object}}, "option _pool_class in client: set driver instead"),
        ({"url": "mongodb://h/?w=0"}, "option w=0: allowed is 1 or more"),
        ({"url": "mongodb://h/?w=%30"}, "option w=0: allowed is 1 or more"),
        ({"url": "mongodb://h/?w=+0"}, "option w=0: allowed is 1 or more"),
        ({"client": {"w": " 0"}}, "option w=0: allowed is 1 or more"),
        ({"url": "mongodb://h/?W=00"}, "option w=0: allowed is 1 or more"),
        ({"client": {"w": 0}}, "option w=0: allowed is 1 or more"),
        ({"url": "mongodb://h/?tls=true", "client": {"tls": False}}, "option tls is given in the URL and in client"),
    ],
)
def test_what_would_not_be_kept_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        replace(Options(url="mongodb://h/", database="d"), **changes)


def test_no_representation_shows_what_may_be_secret() -> None:
    options = Options(url="mongodb://u:geheim@h/", database="d", client={"password": "geheim"})
    assert "geheim" not in repr(options) + str(options)
