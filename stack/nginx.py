"""nginx's derived files: what follows from the settings, for local processes and for containers alike.

nginx/nginx.conf includes them. For a local nginx `stack.configure` writes them. nginx's image has no Python: there a
one-shot, `python -m stack.nginx FOLDER`, writes them to a volume, and nginx's entrypoint takes them over, now and
whenever they change.

On purpose different:

- Where nginx tries again. A local process has one API behind one address. Containers come and go: most of the listed
  addresses may not listen yet, or no longer, so that as many are tried as are listed, for 10 s.
- The API's addresses. A local stack has one, listed 16 times. Containers are found by Docker's name server while nginx
  runs, or named by a rollout, and listed 8 times each; so nginx's entrypoint writes that list. As many requests may be
  in progress as there are containers for: `requests_per_container` times their number.
- What belongs to the place alone isn't derived, and stands in nginx/docker or in `stack.configure`: processes, logs,
  open files, addresses to listen on, TLS, Grafana.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
from pathlib import Path
from textwrap import dedent

from pydantic import ValidationError

from app.settings.errors import SettingsError, describe
from app.settings.model import Settings, load
from app.settings.stack import StackSettings
from stack.files import replace

ADDRESSES = 16
"""How often a local stack's one address is listed: a stopping worker closes many idle connections at once, and nginx
tries each entry at most once per request."""
VERSION = "version"
"""The file that says which files these are; written last."""
_IDLE = re.compile(r"keepalive_timeout (\d+)ms;")


def for_processes(settings: Settings, api: str, idle: int | None = None) -> dict[str, str]:
    """By name, for a local nginx before the API at this address (`host:port`).

    `idle`: for how many milliseconds it may use an idle connection, where that is less than `idle_ms`.
    """
    servers = f"  server {api} max_fails=0;\n" * ADDRESSES  # the only one must not be taken out of service
    return {
        **_alike(settings, idle),
        "limits.conf": _limits(settings)
        + "proxy_next_upstream_tries 3;  # an idle connection that the API has just closed doesn't count\n",
        "upstream.conf": f"upstream api {{\n{servers}  include upstream_connections.conf;\n}}\n",
        "in_progress.conf": f"limit_conn in_progress {_requests(settings)};\n",
    }


def for_containers(settings: Settings, https_port: int, idle: int | None = None) -> dict[str, str]:
    """By name, for nginx's container, whose entrypoint adds the API's addresses. `idle` as for processes."""
    port = "" if https_port == 443 else f":{https_port}"
    return {
        **_alike(settings, idle),
        "limits.conf": _limits(settings)
        + "proxy_next_upstream_tries 0;  # as many as there are entries: most may be of containers that are none yet\n"
        "proxy_next_upstream_timeout 10s;\n",
        "requests_per_container": f"{_requests(settings)}\n",
        "to_https.conf": f"return 308 https://$host{port}$request_uri;  # SLUICE_HTTPS_PORT\n",
    }


def _alike(settings: Settings, idle: int | None) -> dict[str, str]:
    idle = idle_ms(settings) if idle is None else idle
    return {
        "proxies.conf": _proxies(settings),
        "cors_origins.conf": "".join(map(_origin, settings.cors_origins)),
        "upstream_connections.conf": "keepalive 512;\n"
        f"keepalive_timeout {idle}ms;  # below KEEP_ALIVE, and half of GRACEFUL_TIMEOUT\n"
        "keepalive_requests 1000000;\n",
    }


def idle_ms(settings: Settings) -> int:
    """For how long nginx may use an idle connection: less than even a worker that is told to stop keeps it open, see
    `app.serving.leaving`."""
    kept = min(settings.keep_alive, max(1, settings.graceful_timeout - 2) / 2)
    return int(kept * 800)


def idle_now(folder: Path) -> int | None:
    """For how long that is by the files in this folder; None where they don't say."""
    found = _IDLE.search(_read(folder / "upstream_connections.conf") or "")
    return int(found[1]) if found else None


def _limits(settings: Settings) -> str:
    # What the API allows itself, and then some: its own answer is the better one.
    longest = max(settings.request_timeout_ms / 1000, settings.timeout)
    return (
        f"client_max_body_size {settings.max_body_bytes};  # MAX_BODY_BYTES\n"
        f"client_body_buffer_size {settings.max_body_bytes};  # so that no body touches a disk\n"
        f"proxy_read_timeout {math.ceil(longest) + 5}s;  # above REQUEST_TIMEOUT_MS and TIMEOUT\n"
    )


def _requests(settings: Settings) -> int:
    """How many may be in progress at one API."""
    return settings.max_requests_in_progress * settings.workers


def _proxies(settings: Settings) -> str:
    if not settings.trusted_proxies:
        return dedent("""\
            # Without TRUSTED_PROXIES: who connects is who asks.
            map "" $proxy_is_trusted {
              default 0;
            }
            """)
    networks = list(map(str, settings.trusted_proxies))
    return "\n".join(
        [
            "# With TRUSTED_PROXIES: who asks is the last address of X-Forwarded-For that isn't one of theirs.",
            *(f"set_real_ip_from {network};" for network in networks),
            "real_ip_header X-Forwarded-For;",
            "real_ip_recursive on;",
            "geo $realip_remote_addr $proxy_is_trusted {",
            "  default 0;",
            *(f"  {network} 1;" for network in networks),
            "}\n",
        ]
    )


def _origin(origin: str) -> str:
    """A line of the map from `$nginx_answers $http_origin` to whom the answer is for."""
    return '"~^1 ." "*";\n' if origin == "*" else f'"1 {origin}" "{origin}";\n'


def write(folder: Path, files: dict[str, str]) -> bool:
    """Replace what differs, each file in one step and `VERSION` last; whether anything did. Raises `OSError`."""
    version = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    if _read(folder / VERSION) == version and all(_read(folder / name) == text for name, text in files.items()):
        return False
    for name, text in {**files, VERSION: version}.items():
        replace(folder / name, text, 0o644)  # nginx is another user
    return True


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main() -> None:
    """Write the files for nginx's container to a folder. Wrong settings end it in one line."""
    parser = argparse.ArgumentParser(prog="python -m stack.nginx", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before-the-api", action="store_true", help="keep idle connections for no longer than by now")
    given = parser.parse_args()
    folder = given.folder
    try:
        settings = load(_env_file=None)
        known = idle_now(folder) if given.before_the_api else None
        idle = idle_ms(settings) if known is None else min(known, idle_ms(settings))
        files = for_containers(settings, StackSettings().sluice_https_port, idle)
    except ValidationError as error:
        sys.exit(f"nginx: {describe(error, StackSettings)}")
    except SettingsError as error:
        sys.exit(f"nginx: {error}")
    if write(folder, files):
        print(f"nginx: {folder} has changed, which nginx takes over")


if __name__ == "__main__":
    main()
