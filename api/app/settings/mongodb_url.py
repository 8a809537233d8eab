"""MONGODB_URL: checked without any look-up, and shown without its secrets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from bson.codec_options import DatetimeConversion
from pydantic import SecretStr
from pymongo.client_options import ClientOptions
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP
from pymongo.errors import ConfigurationError
from pymongo.uri_parser_shared import _validate_uri

from sluice import url_options

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
_BEGINNING = re.compile(r"([a-z+]*:?/{0,2})", re.IGNORECASE)
_NO_PORT = re.compile(r":(?!\d{1,5}(?:[,/?]|$))")
_PLAIN = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)+):\d{1,5}/?", re.ASCII)
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_TOKEN = re.compile(r"\bAWS_SESSION_TOKEN:([^,]*)", re.IGNORECASE)
"""The only one of these properties that is secret; others are `true`, or the name of a service."""
_SECRET = ("password", "properties")
"""Words in the names of options that hold secrets."""
_SHOWN = URI_OPTIONS_VALIDATOR_MAP.keys() | VARIABLES.keys()
"""Options whose values are shown, unless they hold secrets: `pwd` or `token`, which the driver doesn't know, may."""

_REFUSALS = (ConfigurationError, ValueError, TypeError, LookupError, OSError, Warning)
_READ_CONCERNS = ("local", "available", "majority", "snapshot")


def masked(url: str) -> str:
    """The URL with `***` for everything that may be secret, also where the URL is malformed."""
    head, at, hosts = url.rpartition("@")
    scheme, separator, rest = url.partition("://")
    if at:
        beginning = _BEGINNING.match(head)
        url = f"{beginning[0] if beginning and ':' in beginning[0] else ''}***@{hosts}"
    elif _NO_PORT.search(_BRACKETS.sub("", rest.partition("?")[0])) or not separator:
        # user:password without a host, or whatever it is
        return f"{scheme}{separator}***" if separator else url if _PLAIN.fullmatch(url) else "***"
    pairs = re.split(r"([?&;])", url)
    return "".join(_without_secret(pair) if number else pair for number, pair in enumerate(pairs))


def _without_secret(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=***" if equals and (_is_secret(name) or name.lower() not in _SHOWN) else pair


def _is_secret(option: str) -> bool:
    return any(word in option.lower() for word in _SECRET)


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


def database_of(url: object) -> str | None:
    """The database that the URL names; none where it names nothing, or `admin`, which is where users are kept.

    None also of what `options_of` refuses: what looks like a database there may be the end of a password.
    """
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    if not isinstance(text, str) or "@" in text.partition("?")[2]:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parts = _validate_uri(text, validate=False, warn=False)
        except _REFUSALS:
            return None
    name = ".".join(filter(None, (parts["database"], parts["collection"])))
    return name if name not in ("", "admin") else None


def options_of(url: str) -> Mapping[str, Any]:
    """The URL's options, checked; keys as the driver names them, in any case.

    Raises `ValueError` with one sentence, free of secrets, for a URL that the driver refuses or would partly ignore,
    and for an option that has a variable of its own or would make the service's answers untrue. `mongodb+srv` needs
    no DNS here.
    """
    shown = f"MONGODB_URL={masked(url)!r}"
    query = url.partition("?")[2]
    # What stands before an @ may be a password that isn't encoded, and so may what looks like options there.
    mixed_up = "@" in query or re.search(r"\s", url) is not None or masked(url).endswith("://***")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the driver would ignore with a warning
        if not mixed_up:
            _check_options(url, shown)
        try:
            parts = _validate_uri(url, validate=True, warn=False)
        except _REFUSALS:  # its text may quote a password
            raise ValueError(f"{shown}: allowed is {ALLOWED}") from None
        if mixed_up:
            if re.search(r"\s", url):
                raise ValueError(f"{shown}: allowed is {ALLOWED}")
            _check_options(url, shown)
        options: Mapping[str, Any] = parts["options"]
        try:
            ClientOptions(parts["username"], parts["password"], parts["database"], options)
        except _REFUSALS as error:
            reason = str(error) if not any(secret in str(error) for secret in secrets_of(url)) else "refused"
            raise ValueError(f"{shown}: options that don't go together: {reason}") from None
    return options


def _check_options(url: str, shown: str) -> None:
    seen: set[str] = set()
    for name, value in url_options(url):
        key = name.lower()
        where = f"{shown}: option {name}"
        if variable := VARIABLES.get(key):
            raise ValueError(f"{where} is not allowed there: set {variable} instead")
        if key not in URI_OPTIONS_VALIDATOR_MAP:
            known = ", ".join(sorted(URI_OPTIONS_VALIDATOR_MAP.keys() - VARIABLES.keys()))
            raise ValueError(f"{where} is unknown: allowed are {known}")
        if key in seen and key != "readpreferencetags":
            raise ValueError(f"{where} is given twice: allowed is once")
        seen.add(key)
        try:
            understood = URI_OPTIONS_VALIDATOR_MAP[key](name, unquote_plus(value))
        except _REFUSALS as error:
            reason = "" if _is_secret(name) or isinstance(error, KeyError) else f": {error}"
            raise ValueError(f"{where} has a value that is not allowed{reason}") from None
        if untrue := _untrue(key, understood):
            raise ValueError(f"{where}={value} {untrue}")


def _untrue(option: str, value: Any) -> str | None:
    """What is allowed in place of a value with which the service couldn't keep what its answers say."""
    match option:
        case "w" if value in (0, ""):
            return "would answer before a write is done, or failed: allowed is 1 or more, a tag or majority"
        case "readconcernlevel" if value == "linearizable":
            return "holds for reads of one document, and reads travel together here: allowed is majority"
        case "readconcernlevel" if value not in _READ_CONCERNS:
            return f"is no read concern: allowed is {', '.join(_READ_CONCERNS[:-1])} or {_READ_CONCERNS[-1]}"
        case "tz_aware" if value is False:
            return "would take its zone from each time: allowed is true"
        case "datetime_conversion" if value != DatetimeConversion.DATETIME:
            return "would make numbers of times: allowed is DATETIME"
        case "unicode_decode_error_handler" if value != "strict":
            return "would change texts that are read: allowed is strict"
        case "loadbalanced" if value is True:
            return "hides the members, whose pools are what this is about: allowed is false"
    return None
