"""MONGODB_URL: checked without any look-up, and shown without its secrets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from pymongo.common import URI_OPTIONS_VALIDATOR_MAP
from pymongo.errors import ConfigurationError
from pymongo.uri_parser_shared import _validate_uri

# Options that have a variable of their own; said twice they could only contradict each other.
VARIABLES = {
    "maxpoolsize": "MAX_POOL_SIZE",
    "minpoolsize": "MIN_POOL_SIZE",
    "maxidletimems": "MAX_IDLE_TIME_MS",
    "connecttimeoutms": "CONNECT_TIMEOUT_MS",
    "sockettimeoutms": "SOCKET_TIMEOUT_MS",
    "serverselectiontimeoutms": "SERVER_SELECTION_TIMEOUT_MS",
    "heartbeatfrequencyms": "HEARTBEAT_FREQUENCY_MS",
    "waitqueuetimeoutms": "WAIT_QUEUE_TIMEOUT_MS",
    "waitqueuemultiple": "WAIT_QUEUE_MULTIPLE",
    "timeoutms": "REQUEST_TIMEOUT_MS",
}
ALLOWED = (
    "mongodb://[user:password@]host[:port][,host…][/database][?option=value&…] or mongodb+srv://…, "
    "with user and password percent-encoded"
)
_USER_INFO = re.compile(r"^([a-z+]*:?/{0,2}).*@", re.DOTALL | re.IGNORECASE)
_NO_PORT = re.compile(r":(?!\d{1,5}(?:[,/?]|$))")
_TOKEN = re.compile(r"\bAWS_SESSION_TOKEN:([^,]*)", re.IGNORECASE)
"""The only one of these properties that is secret; others are `true`, or the name of a service."""
_SECRET_OPTION = re.compile(r"([?&;][^=&;]*(?:password|properties)[^=&;]*=)[^&;]*", re.IGNORECASE)


def masked(url: str) -> str:
    """The URL with `***` for everything that may be secret, also where the URL is malformed."""
    scheme, separator, rest = url.partition("://")
    if "@" not in url and _NO_PORT.search(re.sub(r"\[.*?\]", "", rest.partition("?")[0])):
        return f"{scheme}{separator}***"  # user:password without a host
    return _SECRET_OPTION.sub(r"\1***", _USER_INFO.sub(r"\1***@", url))


def secrets_of(url: str) -> set[str]:
    """The passwords and tokens in the URL, as they are written and decoded."""
    rest, _, query = url.partition("://")[2].partition("?")
    user_info, at, _ = rest.rpartition("@")
    found = [user_info.partition(":")[2]] if at else []
    for name, _, value in (pair.partition("=") for pair in re.split("[&;]", query)):
        if "password" in name.lower():
            found.append(value)
        elif name.lower() == "authmechanismproperties" and (tokens := _TOKEN.findall(unquote_plus(value))):
            found += [value, *tokens]
    return {text for secret in found for text in (secret, unquote_plus(secret)) if text}


def options_of(url: str) -> Mapping[str, Any]:
    """The URL's options, checked; keys as the driver names them, in any case.

    Raises `ValueError` with one sentence, free of secrets, for a URL that the driver refuses or would partly ignore.
    `mongodb+srv` needs no DNS here.
    """
    _check_options(url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the driver would ignore with a warning
        try:
            options: Mapping[str, Any] = _validate_uri(url, validate=True, warn=False)["options"]
        except (ConfigurationError, ValueError, TypeError, OSError, Warning):  # its text may quote a password
            raise ValueError(f"MONGODB_URL={masked(url)!r}: allowed is {ALLOWED}") from None
    return options


def _check_options(url: str) -> None:
    query = url.partition("://")[2].partition("?")[2]
    seen: set[str] = set()
    for pair in filter(None, re.split("[&;]", query)):
        name, _, value = pair.partition("=")
        key = name.lower()
        where = f"MONGODB_URL={masked(url)!r}: option {name}"
        if variable := VARIABLES.get(key):
            raise ValueError(f"{where} is not allowed there: set {variable} instead")
        if key not in URI_OPTIONS_VALIDATOR_MAP:
            known = ", ".join(sorted(URI_OPTIONS_VALIDATOR_MAP.keys() - VARIABLES.keys()))
            raise ValueError(f"{where} is unknown: allowed are {known}")
        if key in seen and key != "readpreferencetags":
            raise ValueError(f"{where} is given twice: allowed is once")
        seen.add(key)
        try:
            URI_OPTIONS_VALIDATOR_MAP[key](name, unquote_plus(value))
        except (ConfigurationError, ValueError, TypeError, OSError) as error:
            reason = "" if _SECRET_OPTION.match(f"?{pair}") else f": {error}"
            raise ValueError(f"{where} has a value that is not allowed{reason}") from None
