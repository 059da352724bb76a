"""Texts in manifests that are more than text: durations, names, labels, URLs, paths."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from triggerhub.control.faults import EXPECTED

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = rf"^({_PART.pattern})+$"
_LONGEST = 2_540_400 * 3600.0  # what Go's time.Duration holds, hence what Kubernetes takes

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"(?=.{1,253}/)[a-z0-9]([-a-z0-9.]*[a-z0-9])?/")
_HANDLER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_TEXT = re.compile(r"[!-~]+")
_URL_PATH = re.compile(r"/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")


def expected(what: str) -> PydanticCustomError:
    """An error that says only what was expected; what was found is told beside it."""
    return PydanticCustomError(EXPECTED, "{what}", {"what": what})


def seconds(text: str) -> float:
    """A Go duration (``time.ParseDuration``, without a sign) in seconds. Raises ValueError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"found {text!r}, expected a duration such as 250ms, 30s, 5m")
    # Rounded to Go's nanoseconds, so that 100ms + 200ms is what it looks like.
    return round(math.fsum(float(number) * _SECONDS[unit] for number, unit in parts), 9)


def go_duration(value: float) -> str:
    """Seconds as a Go duration: ``1m30s``."""
    nanoseconds = round(value * 1e9)
    text = ""
    for unit, size in (("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000),
                       ("ms", 1_000_000), ("us", 1_000), ("ns", 1)):  # fmt: skip
        count, nanoseconds = divmod(nanoseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _duration(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, str):
        try:
            value = seconds(value)
        except ValueError:
            raise expected("a duration such as 250ms, 30s, 5m") from None
    elif info.mode == "json" or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise expected("a duration such as 250ms, 30s, 5m")
    if value <= 0:
        raise expected("a duration longer than 0s")
    if not value <= _LONGEST:
        raise expected("a duration of 292 years at most")
    return float(value)


def _checked(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise expected(what)
        return value

    return AfterValidator(check)


def _label_key(value: str) -> str:
    prefix = _LABEL_PREFIX.match(value)
    if not _LABEL_NAME.fullmatch(value[prefix.end() :] if prefix else value):
        raise expected("a label name: at most 63 of A-Z a-z 0-9 - _ ., with an optional prefix/")
    return value


def _label_value(value: str) -> str:
    if value and not _LABEL_NAME.fullmatch(value):
        raise expected("a label value: at most 63 of A-Z a-z 0-9 - _ . within letters or digits")
    return value


def http_url(value: str) -> str:
    """An absolute http(s) URL with a host and without user, password or fragment."""
    what = "a URL such as http://orders.example:8080/in"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise expected(what) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise expected(what)
    if not _URL_TEXT.fullmatch(value) or "\\" in value:
        raise expected(f"{what}, other characters percent-encoded")
    if "@" in parts.netloc:
        raise expected("a URL without user and password")
    if "#" in value:
        raise expected("a URL without a fragment")
    return value


def _url_path(value: str) -> str:
    if not _URL_PATH.fullmatch(value):
        raise expected("a path that begins with /, other characters percent-encoded")
    return value


def _service_port(value: int | str) -> int | str:
    if isinstance(value, str):
        if not _PORT_NAME.fullmatch(value):
            raise expected("a port's number, or its name: at most 15 of a-z 0-9 -, one a letter")
    elif not 0 < value < 65536:
        raise expected("a port from 1 to 65535")
    return value


def _file_path(value: str) -> str:
    parts = value.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in value or "\0" in value:
        raise expected("a relative path such as main.py or lib/orders.py")
    return value


def _requirement(value: str) -> str:
    # What begins with a dash would be an option to the installer.
    if not value.strip() or value.lstrip().startswith("-") or not value.isprintable():
        raise expected("a requirement such as requests==2.32.3")
    return value


def _variable_value(value: str) -> str:
    if "\0" in value:
        raise expected("a text without NUL characters")
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(go_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION}, mode="validation"),
]
"""Seconds; on the wire a Go-style text such as ``250ms``, ``1m30s``, ``24h``, longer than 0."""

Name = Annotated[str, _checked(_NAME, "at most 63 of a-z 0-9 -, first and last a letter or digit")]
"""A DNS label (RFC 1123): no dots, so that ``namespace.trigger.function`` is unambiguous."""

ObjectName = Annotated[
    str, _checked(_OBJECT_NAME, "at most 253 of a-z 0-9 - ., each part within letters or digits")
]
"""A DNS subdomain (RFC 1123), as Secrets and ConfigMaps have for a name."""

LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
HTTPURL = Annotated[str, AfterValidator(http_url)]
URLPath = Annotated[str, AfterValidator(_url_path)]
ServicePort = Annotated[int | str, AfterValidator(_service_port)]
"""A port's number, or its name (IANA service name, RFC 6335)."""
FilePath = Annotated[str, AfterValidator(_file_path)]
Handler = Annotated[str, _checked(_HANDLER, "a module and a function such as main.handle")]
PackageRequirement = Annotated[str, AfterValidator(_requirement)]
VariableName = Annotated[str, _checked(_VARIABLE, "the name of an environment variable")]
VariableValue = Annotated[str, AfterValidator(_variable_value)]
