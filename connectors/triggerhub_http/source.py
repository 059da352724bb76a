"""``spec.source`` of an HTTPTrigger."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from triggerhub.connector import SourceModel
from triggerhub_http.routes import canonical

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_PATH = re.compile(r"/[!$%&'()*+,./0-9:;=@A-Z_a-z~-]*")
_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
_QUANTITY = re.compile(r"([0-9]+)(k|M|G|Ki|Mi|Gi)?")
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Methods = Annotated[list[str], Field(min_length=1)]


class HTTPSource(SourceModel):
    """Which requests an HTTP trigger takes."""

    host: str | None = Field(
        default=None,
        description="Exact, or *.example.com for any one label in its place. Default: any host.",
    )
    path: str = Field(default="/", description="Begins with a slash; no query.")
    path_type: Literal["Prefix", "Exact"] = Field(
        default="Prefix",
        alias="pathType",
        description="Prefix compares whole path elements: /a takes /a, /a/ and /a/b, not /ab.",
    )
    methods: Methods | None = Field(
        default=None, description="Default: all. GET includes HEAD, unless another claims that."
    )
    max_body_size: int | str = Field(
        default="1Mi",
        alias="maxBodySize",
        description="Bytes, or a quantity such as 512Ki, 10Mi, 1G. A larger body is answered 413.",
    )

    @property
    def max_body(self) -> int:
        """Bytes."""
        return _bytes(self.max_body_size)

    @field_validator("host")
    @classmethod
    def _host_is_a_name(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if len(value) > 253 or not _HOST.fullmatch(value.lower()):
            raise ValueError(
                f"found {value!r}, expected a host name without port such as api.example.com, "
                "or *.example.com"
            )
        return value.lower()

    @field_validator("path")
    @classmethod
    def _path_is_absolute(cls, value: str) -> str:
        if not _PATH.fullmatch(value):
            raise ValueError(
                f"found {value!r}, expected a path that begins with '/' and has no query; other "
                "characters percent-encoded"
            )
        canonical(value)
        return value

    @field_validator("methods")
    @classmethod
    def _methods_are_names(cls, value: list[str] | None) -> list[str] | None:
        for method in value or ():
            if not _METHOD.fullmatch(method) or method == "CONNECT":
                raise ValueError(
                    f"found {method!r}, expected a method in upper case such as GET or POST"
                )
        return value

    @field_validator("max_body_size")
    @classmethod
    def _size_is_a_quantity(cls, value: int | str) -> int | str:
        if _bytes(value) < 0:
            raise ValueError(
                f"found {value!r}, expected bytes or a quantity such as 512Ki, 10Mi or 1G"
            )
        return value


def _bytes(value: int | str) -> int:
    """-1: no quantity."""
    if isinstance(value, int):
        return value
    parts = _QUANTITY.fullmatch(value)
    if parts is None:
        return -1
    return int(parts[1]) * _UNITS.get(parts[2] or "", 1)
