"""Texts in manifests that are more than text: names, labels, URLs, paths."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    WithJsonSchema,
)

from triggerhub.fields import IPV6, PORT, Text, expected

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
