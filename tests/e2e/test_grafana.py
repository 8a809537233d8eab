"""How a Grafana on PATH is run beside the native stack. No package repository has one: here a stand-in that
shows what it was given tells whether the wiring is right."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whole_stack import Stack

STAND_IN = """#!{python}
import http.server, json, os, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {{"path": self.path, "arguments": sys.argv[1:], "environment": dict(os.environ)}}
        body = json.dumps({{**told, "upgrade": self.headers["Upgrade"]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

address = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
http.server.ThreadingHTTPServer(address, Answer).serve_forever()
"""


@pytest.fixture
def grafana(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What Grafana, asked through nginx, was started with."""
    name = getattr(request, "param", "grafana")
    server = tmp_path / "bin" / name
    for folder in (server.parent, tmp_path / "conf"):
        folder.mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    server.write_text(STAND_IN.format(python=sys.executable))
    server.chmod(0o755)
    told = stack.script("up.sh", "-d", PATH=f"{server.parent}:{os.environ['PATH']}")
    assert told.returncode == 0, told.stderr
    try:
        yield {**stack.http.get("/grafana/api/health").json(), "told": told.stdout, "home": tmp_path}
    finally:
        stack.up()


@pytest.mark.parametrize(
    ("grafana", "subcommand"), [("grafana", ["server"]), ("grafana-server", [])], indirect=["grafana"]
)
def test_a_grafana_on_path_shows_the_same_dashboards_behind_nginx(
    stack: Stack, grafana: dict[str, Any], subcommand: list[str]
) -> None:
    assert grafana["path"] == "/grafana/api/health"
    assert grafana["arguments"] == [*subcommand, "--homepath", str(grafana["home"])]
    given = grafana["environment"]
    provisioning = Path(given["GF_PATHS_PROVISIONING"])
    assert "${PROMETHEUS_URL}" in (provisioning / "datasources" / "prometheus.yml").read_text()
    assert given["PROMETHEUS_URL"] == stack.prometheus_url
    assert "${SLUICE_DASHBOARDS}" in (provisioning / "dashboards" / "sluice.yml").read_text()
    assert len(list(Path(given["SLUICE_DASHBOARDS"]).glob("*.json"))) >= 4
    assert Path(given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
    assert Path(given["GF_PATHS_DATA"]).is_relative_to(stack.home)
    assert given["GF_SERVER_ROOT_URL"] == "%(protocol)s://%(domain)s/grafana/"
    password = Path(given["GF_SECURITY_ADMIN_PASSWORD__FILE"])
    assert str(password.relative_to(stack.home)) in grafana["told"]
    assert password.parent.stat().st_mode & 0o077 == 0
    seen = [*grafana["arguments"], *given.values(), grafana["told"]]
    seen += [word for process in stack.processes() for word in process.cmdline()]
    assert not any(password.read_text() in text for text in seen)


def test_only_its_websocket_may_be_upgraded(stack: Stack, grafana: dict[str, Any]) -> None:
    def upgrade(path: str) -> str | None:
        answer = stack.http.get(path, headers={"Connection": "upgrade", "Upgrade": "websocket"})
        passed_on: str | None = answer.json()["upgrade"]
        return passed_on

    assert upgrade("/grafana/api/live/ws") == "websocket"
    assert upgrade("/grafana/api/health") is None


def test_without_one_there_is_none(stack: Stack) -> None:
    assert stack.http.get("/grafana/").status_code == 404
    assert "grafana" not in stack.control("status")
    assert not any("grafana" in " ".join(process.cmdline()) for process in stack.processes())


def fake_server(folder: Path) -> str:
    """A PATH with a Grafana that can't run."""
    server = folder / "bin" / "grafana"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    return f"{server.parent}:{os.environ['PATH']}"


def test_one_without_its_home_is_left_out(stack: Stack, tmp_path: Path) -> None:
    told = stack.script("up.sh", "-d", PATH=fake_server(tmp_path))
    assert told.returncode == 0, told.stderr
    (line,) = (line for line in told.stdout.splitlines() if "without Grafana" in line)
    assert line.endswith("has the conf/defaults.ini that Grafana needs; mend it or PATH")
    assert stack.http.get("/health/ready").status_code == 200


def test_one_whose_port_is_taken_is_left_out(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    assert stack.layout.grafana is not None
    with socket.create_server(("127.0.0.1", stack.layout.grafana.number)) as taken:
        told = stack.script("up.sh", "-d", PATH=fake_server(tmp_path))
        port = taken.getsockname()[1]
    assert told.returncode == 0, told.stderr
    assert f"==> without Grafana: port {port} for grafana is taken by " in told.stdout
    assert "SLUICE_GRAFANA_PORT" in told.stdout
    assert "/grafana/" not in told.stdout
    assert stack.http.get("/health/ready").status_code == 200


def test_one_that_does_not_run_is_no_reason_to_have_no_api(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    told = stack.script("up.sh", "-d", PATH=fake_server(tmp_path))
    try:
        assert told.returncode == 0, told.stderr
        assert "==> without Grafana: grafana does not start" in told.stdout
        assert stack.http.get("/health/ready").status_code == 200
    finally:
        stack.up()
