"""What the judges find and we leave as it is: every exception, each with its reason.

One that excuses nothing any more fails the tests, as a finding does that nothing excuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, order=True)
class Finding:
    """`place` is what a judge was shown: a file, or a stack and a service in it (`production:nginx`)."""

    rule: str
    place: str
    text: str = ""


@dataclass(frozen=True)
class Excused:
    """`places` are patterns, as of file names."""

    rule: str
    places: tuple[str, ...]
    reason: str


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
    "detect-secrets": (
        Excused(
            "Basic Auth Credentials",
            ("*/tests/*", "tests/*", "docs/kubernetes.md"),
            "connection strings of tests, with made-up passwords, and a placeholder",
        ),
        Excused("Hex High Entropy String", ("*/tests/*", "tests/*"), "ids of documents and traces, made up"),
        Excused(
            "Hex High Entropy String",
            ("api/app/users/model.py", "bench/peers/ceiling.py"),
            "the ids of examples in documentation",
        ),
        Excused(
            "Secret Keyword",
            ("api/tests/*", "tests/*", "stack/replica_set.py"),
            "passwords of tests, and of the replica set that lives as long as they do",
        ),
        Excused("Secret Keyword", ("api/app/settings/*",), "names of settings and of a URL's options, not values"),
    ),
    "hadolint": (
        Excused("DL3006", _STAND_INS, "their base is built locally just before, and has no tag"),
        Excused("DL3013", _STAND_INS, "the tests' alone: any release of PyMongo can make the first user"),
    ),
    "gixy": (
        Excused(
            "host_spoofing",
            ("*",),
            "no answer names a host (redirects and Location are paths), and nothing is chosen by one; Grafana compares"
            " Host with Origin, port and all, which $host hasn't got",
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
    idle = [f"{each.rule}: excuses nothing" for each in excused if not any(_covers(each, one) for one in findings)]
    return wrong + idle


def _covers(excused: Excused, finding: Finding) -> bool:
    return excused.rule == finding.rule and any(fnmatchcase(finding.place, place) for place in excused.places)
