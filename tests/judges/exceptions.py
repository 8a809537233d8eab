"""What the judges find and we leave as it is: every exception, each with its reason.

One that excuses nothing any more, in any of its places, fails the tests, as a finding does that nothing excuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, order=True)
class Finding:
    """`place` is what a judge was shown: a file, or a stack and a service in it (`production:nginx`); of a secret, the
    file and the beginning of its hash."""

    rule: str
    place: str
    text: str = ""


@dataclass(frozen=True)
class Excused:
    """`places` are patterns, as of file names, and so is `text`."""

    rule: str
    places: tuple[str, ...]
    reason: str
    text: str = "*"


_MEMBERS = ("*:mongo1", "*:mongo2", "*:mongo3")
_ONE_SHOTS = ("*:secrets", "*:settings", "*:mongo-init", "*:configure-nginx", "*:ready", "*:seed")
_SERVERS = ("api", "mongo1", "mongo2", "mongo3", "nginx", "nginx-exporter", "prometheus", "grafana")
_STAND_INS = ("tests/compose/standins/*",)

EXCUSED: dict[str, tuple[Excused, ...]] = {
    "compose-lint": (
        Excused(
            "CL-0004",  # an image without a tag
            ("*:settings", "*:mongo-init", "*:configure-nginx"),
            "it is the image that the service `api` builds from this checkout; nothing pulls it (pull_policy: never)",
        ),
        Excused(
            "CL-0005",  # a port on all interfaces
            ("production:nginx",),
            "production serves the world; it needs TLS and an API key for that, or doesn't start",
        ),
        Excused(
            "CL-0007",  # a writable root file system
            _MEMBERS,
            "the image's own entrypoint and mongod write beside their volumes, into places that differ by version",
        ),
        Excused(
            "CL-0009",  # without SELinux's label
            ("*:settings",),
            "it reads .env in the repository's folder, which would else be relabelled as a whole; it has no network,"
            " writes nothing, and ends within a second",
        ),
        Excused(
            "CL-0018",  # root
            ("*:settings",),
            "a .env may be its owner's alone; it is root without capabilities, but for the next one, and as above",
        ),
        Excused("CL-0027", ("*:settings",), "DAC_READ_SEARCH is what reads such a .env, mounted read-only"),
        Excused(
            "CL-0019",  # an image by tag, not by digest
            ("*",),
            "a tag of a minor version brings its security fixes with the next pull; who wants digests has to watch"
            " for those by himself (docs/compatibility.md says what is pinned how)",
        ),
        Excused(
            "CL-0026",  # no limits of processor and memory
            (*_ONE_SHOTS, *(f"development:{service}" for service in _SERVERS)),
            "one-shots end by themselves, and on a developer's machine a stack may have what there is; in production"
            " everything that stays has limits",
        ),
    ),
    "checkov": (
        Excused("CKV_DOCKER_2", _STAND_INS, "Compose has the health checks of these; they're for tests alone"),
        Excused("CKV_DOCKER_3", _STAND_INS, "as the official images that they stand for: the entrypoint changes user"),
        Excused("CKV_DOCKER_7", _STAND_INS, "their base is built locally just before, and has no tag"),
        Excused(
            "CKV_K8S_15",  # imagePullPolicy: Always
            ("k8s/*:Deployment.*",),
            "a tag names one build here: asking the registry each time makes every restart depend on it, and an image"
            " that was loaded into a local cluster is in none",
        ),
        Excused(
            "CKV_K8S_43",  # an image by digest
            ("k8s/*:Deployment.*",),
            "the overlay's tag is of one's own image, in one's own registry; kustomize takes a digest there, too",
        ),
    ),
    # By file and hash (its first eight digits: more would look like a secret); `detect-secrets scan FILE` tells others.
    "detect-secrets": (
        Excused(
            "Basic Auth Credentials",
            (
                "api/tests/app/test_check_settings.py:90607200",
                "api/tests/app/test_gunicorn.py:90607200",
                "api/tests/app/test_logs.py:7924e444",
                "api/tests/app/test_masks.py:90607200",
                "api/tests/app/test_settings.py:52d49149",
                "api/tests/app/test_settings.py:90607200",
                "api/tests/app/test_settings.py:a9060bd5",
                "api/tests/app/test_settings.py:c6d594de",
                "api/tests/app/test_settings.py:f5592f2e",
                "api/tests/sluice/test_options.py:90607200",
                "docs/kubernetes.md:112bb791",
                "tests/compose/test_settings.py:fef341f8",
                "tests/e2e/test_planted_secrets.py:bc8a624e",
                "tests/e2e/test_up_and_down.py:90607200",
                "tests/kubernetes/conftest.py:e5e9fa1b",
                "tests/scripts/test_seed.py:90607200",
            ),
            "connection strings of tests, with made-up passwords, and a placeholder",
        ),
        Excused(
            "Hex High Entropy String",
            (
                "api/tests/app/test_app.py:63a5d964",
                "api/tests/app/test_fastapi_ways.py:63a5d964",
                "api/tests/app/test_middleware.py:11d33efc",
                "api/tests/app/test_refusals.py:63a5d964",
                "api/tests/app/test_users.py:63a5d964",
                "tests/e2e/test_users.py:11d33efc",
            ),
            "ids of documents and traces, made up",
        ),
        Excused(
            "Hex High Entropy String",
            (
                "api/app/users/model.py:63a5d964",
                "bench/peers/ceiling.py:63a5d964",
            ),
            "the ids of examples in documentation",
        ),
        Excused(
            "Secret Keyword",
            (
                "api/tests/app/test_app.py:49609d8e",
                "api/tests/app/test_app.py:a4b48a81",
                "api/tests/app/test_env_file.py:879d01f2",
                "api/tests/app/test_env_file.py:90607200",
                "api/tests/app/test_env_file.py:d76afc4f",
                "api/tests/app/test_env_file.py:deab4caa",
                "api/tests/app/test_env_file.py:e54ba071",
                "api/tests/app/test_fastapi_ways.py:49609d8e",
                "stack/replica_set.py:dc76e9f0",
                "stack/replica_set.py:fa103725",
                "tests/compose/test_secrets_are_files.py:163fb29e",
                "tests/e2e/test_changed_settings.py:a62f2225",
                "tests/e2e/test_planted_secrets.py:5a21eb78",
                "tests/judges/test_judges.py:7f048ea2",
            ),
            "passwords of tests, and of the replica set that lives as long as they do",
        ),
        Excused(
            "Secret Keyword",
            (
                "api/app/settings/mongodb_url.py:70f30841",
                "api/app/settings/names.py:15950028",
                "api/app/settings/names.py:2b7432b7",
            ),
            "names of settings and of a URL's options, not values",
        ),
    ),
    "hadolint": (
        Excused("DL3006", _STAND_INS, "their base is built locally just before, and has no tag"),
        Excused("DL3013", _STAND_INS, "the tests' alone: any release of PyMongo can make the first user"),
    ),
    "gixy": (
        Excused(
            "host_spoofing",
            ("*",),
            "for all locations at once: $host hasn't got the port, which Grafana compares with Origin's, and url_for of"
            " one's own routes needs; it would be as the caller likes, too, since the server has no name. Nothing is"
            " chosen by a host, and the API's redirects and Location are paths",
            "*: proxy_set_header Host $http_host;",
        ),
        Excused(
            "missing_resolver",
            ("processes:*",),
            "the variable is a path; the host is the upstream `api`, whose addresses nginx knows",
        ),
        Excused(
            "status_page_exposed",
            ("*",),
            "it listens on loopback, and in containers on a port that is never published, for the exporter beside it",
        ),
    ),
    "pip-audit": (),
}


def verdict(judge: str, found: Iterable[Finding]) -> list[str]:
    """What is to be mended: findings without an exception, and exceptions without a finding."""
    findings = sorted(set(found))
    excused = EXCUSED[judge]
    wrong = [
        f"{finding.place}: {finding.rule} {finding.text}"
        for finding in findings
        if not any(_covers(each, finding) for each in excused)
    ]
    idle = [
        f"{each.rule}: {place} excuses nothing"
        for each in excused
        for place in each.places
        if not any(_covers(each, one, place) for one in findings)
    ]
    return wrong + idle


def _covers(excused: Excused, finding: Finding, *places: str) -> bool:
    return (
        excused.rule == finding.rule
        and any(fnmatchcase(finding.place, place) for place in places or excused.places)
        and fnmatchcase(finding.text, excused.text)
    )
