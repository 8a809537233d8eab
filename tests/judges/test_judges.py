"""Judged by others: what their linters say of the containers, manifests, proxy and packages, but for `EXCUSED`.

Each judge is also shown something that is bad on purpose, and has to say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from app.settings.model import Settings, load
from stack.configure import configure
from stack.layout import Layout
from stack.nginx import for_containers, write
from tests.judges.conftest import ROOT
from tests.judges.exceptions import EXCUSED, Excused, Finding, verdict
from tests.kubernetes.conftest import OVERLAYS, Manifests

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("judges")]  # the first test installs them

Json = dict[str, Any]


def ask(command: Sequence[str | Path], *, cwd: Path = ROOT, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=seconds)


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """Its report; 1 says that there is something in it."""
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


# Compose

PRODUCTION = """\
COMPOSE_FILE=docker-compose.yml:docker-compose.prod.yml
TLS_DIRECTORY=./tls
API_KEY_FILE=./key
"""


def of_compose(judges: Path, folder: Path, stack: str, environment: str = "") -> Iterator[Finding]:
    """By service; `environment` is what a .env beside the files would have."""
    here = folder / stack
    here.mkdir()
    for name in ("docker-compose.yml", "docker-compose.prod.yml"):
        shutil.copyfile(ROOT / name, here / name)
    (here / "tls").mkdir()
    (here / "key").touch()
    (here / ".env").write_text(f"COMPOSE_PROJECT_NAME=sluice\n{environment}")
    report = said(ask([judges / "compose-lint", "check", "--format", "json"], cwd=here))
    assert report["errors"] == []
    for found in report["findings"]:
        yield Finding(found["rule_id"], f"{stack}:{found['service']}", found["message"])


def test_compose(judges: Path, tmp_path: Path) -> None:
    development = list(of_compose(judges, tmp_path, "development"))
    production = list(of_compose(judges, tmp_path, "production", PRODUCTION))
    assert verdict("compose-lint", development + production) == []


def test_a_bad_compose_file_is_found(judges: Path, tmp_path: Path) -> None:
    bad = {"image": "x", "privileged": True, "volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}
    (tmp_path / "docker-compose.yml").write_text(yaml.safe_dump({"services": {"bad": bad}}))
    report = said(ask([judges / "compose-lint", "check", "--format", "json"], cwd=tmp_path))
    assert {"CL-0001", "CL-0002"} <= {found["rule_id"] for found in report["findings"]}


# Dockerfiles and manifests

BAD = {
    "Dockerfile": "FROM debian:latest\nUSER root\n",
    "pod.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: [{name: bad, image: bad,"
    " securityContext: {privileged: true}}]}}\n",
}
BAD_RULES = {"CKV_DOCKER_7", "CKV_K8S_16"}


@pytest.fixture(scope="session")
def checkov(judges: Path, tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """What it says of all Dockerfiles, of the manifests as they're rendered, and of `BAD`, in the folder `bad`."""
    folder = tmp_path_factory.mktemp("checkov")
    for path in tracked:
        if path.name == "Dockerfile":
            (folder / path).parent.mkdir(parents=True)
            shutil.copyfile(ROOT / path, folder / path)
    (folder / "k8s").mkdir()
    for overlay in OVERLAYS:
        (folder / "k8s" / f"{overlay}.yaml").write_text(yaml.safe_dump_all(Manifests(overlay).objects))
    (folder / "bad").mkdir()
    for name, text in BAD.items():
        (folder / "bad" / name).write_text(text)
    command: list[str | Path] = [judges / "checkov", "-d", folder, "--framework", "dockerfile", "kubernetes"]
    reports: list[Json] = said(ask([*command, "--skip-download", "--quiet", "--compact", "-o", "json"]))
    assert {report["check_type"] for report in reports} == {"dockerfile", "kubernetes"}
    assert sum(report["summary"]["parsing_errors"] for report in reports) == 0
    return [
        Finding(
            found["check_id"],
            # Of a manifest, with the object: KIND.NAMESPACE.NAME
            found["file_path"].lstrip("/") + (f":{found['resource']}" if report["check_type"] == "kubernetes" else ""),
            found["check_name"],
        )
        for report in reports
        for found in report["results"]["failed_checks"]
    ]


def test_dockerfiles_and_manifests(checkov: list[Finding]) -> None:
    assert verdict("checkov", (found for found in checkov if not found.place.startswith("bad/"))) == []


def test_a_bad_dockerfile_and_a_bad_manifest_are_found(checkov: list[Finding]) -> None:
    assert {found.rule for found in checkov if found.place.startswith("bad/")} >= BAD_RULES


def of_dockerfile(judges: Path, path: Path, root: Path) -> list[Finding]:
    report: list[Json] = said(ask([judges / "hadolint", "--no-color", "--format", "json", path], cwd=root))
    return [Finding(found["code"], found["file"], found["message"]) for found in report]


def test_dockerfiles(judges: Path, tracked: list[Path]) -> None:
    dockerfiles = [path for path in tracked if path.name == "Dockerfile"]
    assert Path("api/Dockerfile") in dockerfiles
    assert verdict("hadolint", (found for path in dockerfiles for found in of_dockerfile(judges, path, ROOT))) == []


def test_a_bad_dockerfile_is_found(judges: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /srv && sudo ls $1\n")
    found = of_dockerfile(judges, Path("Dockerfile"), tmp_path)
    assert {"DL3007", "DL3004", "SC2086"} <= {each.rule for each in found}


# Secrets in files


def of_files(judges: Path, folder: Path, *options: str) -> list[Finding]:
    """Of tracked files, unless the options say otherwise; locks are all hashes."""
    report = said(ask([judges / "detect-secrets", "scan", "--exclude-files", r".*\.lock$", *options], cwd=folder))
    return [
        Finding(each["type"], f"{name}:{each['hashed_secret'][:8]}", f"line {each['line_number']}")
        for name, found in report["results"].items()
        for each in found
    ]


def test_no_file_has_a_secret(judges: Path) -> None:
    assert verdict("detect-secrets", of_files(judges, ROOT)) == []


def test_secrets_in_files_are_found(judges: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f'key = "AK{"IA"}{"4XQ7GZ2LPN5WTRVB"}"\nurl = "mongodb://app:{"x8Zk3"}@h/"\n')
    assert {each.rule for each in of_files(judges, tmp_path, "--all-files", ".")} >= {
        "AWS Access Key",
        "Basic Auth Credentials",
    }


# nginx, with the configuration that it really gets

SETTINGS: dict[str, Json] = {
    "default": {},
    "all": {
        "cors_origins": "https://a.example.org,https://b.example.org",
        "trusted_proxies": "10.0.0.0/8,2001:db8::/32",
        "api_key": "for-tests-only-0123456789",
    },
}


def for_processes(folder: Path, settings: Settings) -> Path:
    """As `up.sh` lays it out; nginx's main file."""
    layout = Layout.on_free_ports(folder / "home")
    try:
        configure(layout, settings)
    finally:
        shutil.rmtree(layout.shared, ignore_errors=True)
    return layout.home / "nginx" / "conf" / "nginx.conf"


def for_container(folder: Path, settings: Settings, listen: str) -> Path:
    """As the image's entrypoint lays it out, up to where it would start nginx; nginx's main file."""
    (folder / "derived").mkdir(parents=True)
    write(folder / "derived", for_containers(settings, 443))
    shutil.copytree(ROOT / "nginx", folder / "sluice")
    program = folder / "sluice" / "docker" / "entrypoint.sh"
    text = program.read_text()
    for name, place in (("/run/nginx", "run"), ("/derived", "derived"), ("/run/tls", "tls")):
        assert name in text
        text = text.replace(name, str(folder / place))
    program.write_text(text)
    (folder / "tls").mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (folder / "tls" / name).touch()
    (folder / "bin").mkdir()
    (folder / "bin" / "nginx").write_text("#!/bin/sh\necho not now >&2\nexit 3\n")
    (folder / "bin" / "nginx").chmod(0o755)
    done = ask(["env", f"PATH={folder / 'bin'}:/usr/bin:/bin", f"SLUICE_LISTEN={listen}", "sh", program])
    assert (done.returncode, done.stderr) == (3, "not now\n")
    return folder / "run" / "conf" / "nginx.conf"


def of_nginx(judges: Path, conf: Path, place: str) -> list[Finding]:
    report: list[Json] = said(ask([judges / "gixy", "-f", "json", conf]))
    return [
        Finding(found["plugin"], place, " ".join(f"{found['summary']} {found['reason']}: {found['config']}".split()))
        for found in report
    ]


def test_nginx(judges: Path, tmp_path: Path) -> None:
    found = []
    for name, given in SETTINGS.items():
        settings = load(_env_file=None, **given)
        found += of_nginx(judges, for_processes(tmp_path / f"{name}-processes", settings), f"processes:{name}")
        for listen in ("plain", "tls"):
            conf = for_container(tmp_path / f"{name}-{listen}", settings, listen)
            found += of_nginx(judges, conf, f"{listen}:{name}")
    assert verdict("gixy", found) == []


def test_a_bad_location_in_an_included_file_is_found(judges: Path, tmp_path: Path) -> None:
    conf = for_container(tmp_path / "bad", load(_env_file=None), "tls")
    (conf.parent / "locations" / "bad.conf").write_text("location /files { alias /data/; }\n")
    assert "alias_traversal" in {found.rule for found in of_nginx(judges, conf, "bad")}


def test_a_host_that_is_handed_on_elsewhere_is_found(judges: Path, tmp_path: Path) -> None:
    conf = for_container(tmp_path / "bad", load(_env_file=None), "plain")
    bad = "location /b { proxy_set_header Host $http_host; proxy_pass http://api; }\n"
    (conf.parent / "locations" / "bad.conf").write_text(bad)
    wrong = verdict("gixy", of_nginx(judges, conf, "plain:bad"))
    assert any("host_spoofing" in each and "location /b" in each for each in wrong)


# What is locked

SERVICES = ("pypi", "osv")


def of_packages(judges: Path, lock: Path, *service: str) -> list[Finding] | None:
    """Known vulnerabilities; None where this service can't be asked."""
    done = ask([
        judges / "pip-audit", "-s", *service, "--disable-pip", "--require-hashes", "--progress-spinner", "off",
        "--timeout", "15", "-f", "json", "-r", lock,
    ])  # fmt: skip
    if not done.stdout:
        assert any(words in done.stderr for words in ("ConnectionError", "ConnectTimeout", "ReadTimeout")), done.stderr
        return None
    packages: list[Json] = said(done)["dependencies"]
    unknown = [package for package in packages if "skip_reason" in package]
    if unknown and len(unknown) == len(packages):
        return None  # a mirror that has files alone
    return [Finding("unknown", package["name"]) for package in unknown] + [
        Finding(known["id"], package["name"], f"{package['version']}, mended in {known['fix_versions']}")
        for package in packages
        for known in package.get("vulns", ())
    ]


def of_locks(locks: Sequence[Path], ask_of: Callable[[Path, str], list[Finding] | None]) -> tuple[list[Finding], str]:
    """What the first service that answers says of all locks; and of its silence, if it falls silent."""
    for service in SERVICES:
        found: list[Finding] = []
        for lock in locks:
            of_this = ask_of(lock, service)
            if of_this is None:
                break
            found += of_this
        else:
            return found, ""
        if lock != locks[0]:
            return found, f"{service} answered at first, but not of {lock}, so that not all are looked up"
    return [], "neither PyPI's JSON API nor osv.dev answers, where pip-audit looks vulnerabilities up"


def test_packages(judges: Path, tracked: list[Path]) -> None:
    locks = [path for path in tracked if path.name.endswith(".lock")]
    found, silence = of_locks(locks, lambda lock, service: of_packages(judges, lock, service))
    assert verdict("pip-audit", found) == []
    if silence:
        pytest.skip(silence)


def test_a_lock_that_is_not_looked_up_is_not_clean() -> None:
    locks = [Path("a.lock"), Path("b.lock"), Path("c.lock")]
    bad = Finding("bad", "package")

    def answers(of: dict[str, str]) -> tuple[list[Finding], str]:
        return of_locks(locks, lambda lock, service: [bad] if lock.stem in of.get(service, "") else None)

    assert answers({"pypi": "abc"}) == ([bad] * 3, "")
    assert answers({"osv": "abc"}) == ([bad] * 3, "")
    assert answers({"pypi": "ac"}) == (
        [bad],
        "pypi answered at first, but not of b.lock, so that not all are looked up",
    )
    assert answers({"osv": "ab"})[1].startswith("osv answered at first, but not of c.lock")
    assert answers({})[1].startswith("neither")


class OneVulnerability(BaseHTTPRequestHandler):
    """As osv.dev would answer, whatever it is asked about."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {
            "id": "PYSEC-0000-1", "modified": "2026-01-01T00:00:00Z", "summary": "bad",
            "affected": [{"package": asked["package"], "versions": [asked["version"]]}],
        }  # fmt: skip
        answer = json.dumps({"vulns": [known]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_vulnerable_package_is_found(judges: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.lock").write_text(f"bad==1.0 --hash=sha256:{'0' * 64}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), OneVulnerability) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1/query"
            found = of_packages(judges, tmp_path / "bad.lock", "osv", "--osv-url", url)
        finally:
            server.shutdown()
            thread.join()
    assert found is not None
    assert {(each.rule, each.place) for each in found} == {("PYSEC-0000-1", "bad")}


# The exceptions


def test_every_exception_has_a_reason() -> None:
    for judge, excused in EXCUSED.items():
        for each in excused:
            assert len(each.reason) > 20, f"{judge} {each.rule}"


def test_a_secret_is_excused_by_itself() -> None:
    assert [place for each in EXCUSED["detect-secrets"] for place in each.places if "*" in place] == []
    another = Finding("Secret Keyword", "tests/e2e/test_planted_secrets.py:00000000", "line 1")
    assert f"{another.place}: Secret Keyword line 1" in verdict("detect-secrets", [another])


def test_what_nothing_excuses_is_wrong_and_so_is_what_excuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXCUSED, "hadolint", (Excused("A", ("here/*",), "because"),))
    assert verdict("hadolint", [Finding("A", "here/x")]) == []
    assert verdict("hadolint", [Finding("A", "here/x"), Finding("A", "there/x", "bad")]) == ["there/x: A bad"]
    assert verdict("hadolint", []) == ["A: here/* excuses nothing"]
    monkeypatch.setitem(EXCUSED, "hadolint", (Excused("A", ("here/*", "there/*"), "because", "*known"),))
    assert verdict("hadolint", [Finding("A", "here/x", "known")]) == ["A: there/* excuses nothing"]
    assert verdict("hadolint", [Finding("A", "here/x", "known"), Finding("A", "there/x", "new")]) == [
        "there/x: A new",
        "A: there/* excuses nothing",
    ]
