"""Texts in manifests that are more than text: durations, names, labels, URLs, paths."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from triggerhub.fields import IPV6, PORT, VALIDATIONS, WHAT, Text, expected

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9,
    "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
"""Nanoseconds."""
_PART = re.compile(r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(ns|us|µs|μs|ms|s|m|h)")
_DURATION = r"^(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"
_LONGEST_TEXT = 64
_LONGEST = 2_540_400 * 3600.0  # as good as all that Go's time.Duration, hence Kubernetes, holds

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_HOST_LABEL = "[A-Za-z0-9_~-]{1,63}"
_HOST = rf"({_HOST_LABEL}(\.{_HOST_LABEL})*\.?|\[{IPV6}\])"
_FILE = r"([^./\\\x00][^/\\\x00]*|\.[^./\\\x00][^/\\\x00]*|\.\.[^/\\\x00]+)"
"""A name that is neither . nor .."""
_LINE_ENDS = "\u2028\u2029"
_PORT_NAME = "([0-9]+-)*[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*"
_LONGEST_PORT_NAME = 15


@lru_cache(maxsize=1024)
def seconds(text: str) -> float:
    """A Go duration (``time.ParseDuration``, without a sign) in seconds. Raises ValueError."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"found {text!r}, expected a duration such as 250ms, 30s, 5m")
    # Whole nanoseconds, cut off where Go cuts off: 100ms + 200ms is what it looks like.
    return sum(map(_nanoseconds, parts)) / 10**9


def _nanoseconds(part: re.Match[str]) -> int:
    unit = _UNITS[part[4]]
    fraction = (part[2] or part[3] or "")[:18]  # all that Go looks at
    beyond = int(float(fraction or 0) * (unit / 10.0 ** len(fraction)))
    return int(part[1] or 0) * unit + beyond


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
            value = seconds(value) if len(value) <= _LONGEST_TEXT else None
        except ValueError:
            value = None
        if value is None:
            raise expected("a duration such as 250ms, 30s, 5m")
    elif info.mode == "json" or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise expected("a duration such as 250ms, 30s, 5m")
    if value <= 0:
        raise expected("a duration longer than 0s")
    if not value <= _LONGEST:
        raise expected("a duration of 290 years at most")
    return float(value)


class _URL(Text):
    def wanted(self, value: str) -> str:
        """What it is that a URL must not have, where that is all."""
        host = value.partition("://")[2].partition("/")[0]
        if "@" in host:
            return "a URL without user and password"
        return "a URL without a fragment" if "#" in value else super().wanted(value)


def _service_port(value: int | str) -> int | str:
    if isinstance(value, str):
        if len(value) > _LONGEST_PORT_NAME or not re.fullmatch(_PORT_NAME, value):
            raise expected("a port's number, or its name: at most 15 of a-z 0-9 -, one a letter")
    elif not 0 < value < 65536:
        raise expected("a port from 1 to 65535")
    return value


_LENGTHS = {
    "rule": f"duration(self) > duration('0s') && duration(self) <= duration('{_LONGEST:.0f}s')",
    "message": "expected a duration longer than 0s, of 290 years at most",
}

Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(go_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": _DURATION, "maxLength": _LONGEST_TEXT,
         WHAT: "a duration such as 250ms, 30s, 5m", VALIDATIONS: [_LENGTHS]},
        mode="validation",
    ),
]  # fmt: skip
"""Seconds; on the wire a Go-style text such as ``250ms``, ``1m30s``, ``24h``, longer than 0."""

Name = Annotated[
    str,
    Text(
        "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
        "at most 63 of a-z 0-9 -, first and last a letter or digit",
        63,
    ),
]
"""A DNS label (RFC 1123): no dots, so that ``namespace.trigger.function`` is unambiguous."""

ObjectName = Annotated[
    str, Text(_SUBDOMAIN, "at most 253 of a-z 0-9 - ., each part within letters or digits", 253)
]
"""A DNS subdomain (RFC 1123), as Secrets and ConfigMaps have for a name."""

LabelKey = Annotated[
    str,
    Text(
        rf"({_SUBDOMAIN}/)?{_LABEL_NAME}",
        "a label name: at most 63 of A-Z a-z 0-9 - _ ., with an optional prefix/",
        317,
        never="^[^/]{254,}/",
    ),
]
LabelValue = Annotated[
    str,
    Text(
        f"({_LABEL_NAME})?",
        "a label value: at most 63 of A-Z a-z 0-9 - _ . within letters or digits",
        63,
    ),
]
AnnotationKey = Annotated[
    str,
    Text(
        rf"({_SUBDOMAIN.replace('a-z', 'A-Za-z')}/)?{_LABEL_NAME}",
        "an annotation name: at most 63 of A-Z a-z 0-9 - _ ., with an optional prefix/",
        317,
        never="^[^/]{254,}/",
    ),
]
HTTPURL = Annotated[
    str,
    _URL(
        rf"[Hh][Tt][Tt][Pp][Ss]?://{_HOST}(:{PORT})?([/?][!\"$-\[\]-~]*)?",
        "a URL such as http://orders.example:8080/in, other characters percent-encoded",
        2048,
        readable=False,
    ),
]
"""Absolute, with a host and without user, password or fragment."""
URLPath = Annotated[
    str,
    Text(
        "/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*",
        "a path that begins with /, other characters percent-encoded",
        1024,
    ),
]
ServicePort = Annotated[
    int | str,
    AfterValidator(_service_port),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535},
                   {"type": "string", "pattern": f"^{_PORT_NAME}$",
                    "maxLength": _LONGEST_PORT_NAME}]}
    ),
]  # fmt: skip
"""A port's number, or its name (IANA service name, RFC 6335)."""
FilePath = Annotated[
    str, Text(f"{_FILE}(/{_FILE})*", "a relative path such as main.py or lib/orders.py", 512)
]
Handler = Annotated[
    str,
    Text(rf"{_IDENTIFIER}(\.{_IDENTIFIER})+", "a module and a function such as main.handle", 253),
]
# What begins with a dash would be an option to the installer, what is on a line of its own another
# requirement.
PackageRequirement = Annotated[
    str,
    Text(
        rf" *[^\x00-\x20\x7f-\xa0{_LINE_ENDS}-][^\x00-\x1f\x7f-\x9f{_LINE_ENDS}]*",
        "a requirement such as requests==2.32.3",
        1024,
    ),
]
VariableName = Annotated[str, Text(_IDENTIFIER, "the name of an environment variable", 253)]
VariableValue = Annotated[
    str, Text(r"[^\x00]*", "a text without NUL characters, at most 65536 characters", 65536)
]
