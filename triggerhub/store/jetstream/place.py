"""What `--store nats://…` and the environment say: where the streams are, and who asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from triggerhub.nats.access import Access, Login, credentials_login, nkey_login
from triggerhub.store.records import StoreError
from triggerhub.tls import Contexts, Unfit

ENVIRONMENT = "TRIGGERHUB_STORE"
LOGINS = ("USER", "TOKEN", "NKEY", "CREDENTIALS")

_SERVER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIZE = re.compile(r"([1-9][0-9]{0,12})(Ki|Mi|Gi|Ti)?")
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_REPLICAS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a store lies in NATS."""

    servers: tuple[str, ...]
    """``nats://host[:port]`` or ``tls://…``, each."""
    prefix: str = "triggerhub"
    """Begins the names of its streams: hubs with the same one share a store."""
    replicas: int = 1
    dead_letters: int = 2**30
    """Bytes that dead letters may take."""
    inbox: int = 2**30
    """Bytes that what was accepted and is not delivered yet may take."""

    def __str__(self) -> str:
        hosts = ",".join(server.partition("://")[2] for server in self.servers)
        scheme = self.servers[0].partition("://")[0]
        return f"{scheme}://{hosts} ({self.prefix})"


def place_of(url: str) -> Place:
    """``nats://host[:port][,host[:port]…][?prefix=…&replicas=…&deadLetters=…&inbox=…]``, or with
    ``tls://``. Raises ``StoreError``, with a sentence that does not show a login."""
    scheme, colon, rest = url.partition("://")
    hosts, _, query = rest.partition("?")
    if not colon or scheme not in ("nats", "tls"):
        raise StoreError(f"--store: found {_shown(url)}, expected nats://host:port or tls://…")
    if "@" in hosts:
        raise StoreError(
            "--store: found a login, which anybody on this machine can read there; expected it in "
            f"{ENVIRONMENT}_USER and {ENVIRONMENT}_PASSWORD, or in {ENVIRONMENT}_TOKEN"
        )
    servers = hosts.rstrip("/").split(",")
    for server in servers:
        if not _SERVER.fullmatch(server):
            raise StoreError(
                f"--store: found {server!r}, expected host:port, or several with commas"
            )
    return Place(servers=tuple(f"{scheme}://{server}" for server in servers), **_options(query))


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        wanted = ""
        if name == "prefix":
            found["prefix"] = value
            wanted = "" if _PREFIX.fullmatch(value) else "letters, digits, - and _, at most 64"
        elif name == "replicas":
            wanted = "" if value in _REPLICAS else "1 to 5"
            found["replicas"] = 0 if wanted else int(value)
        elif name in ("deadLetters", "inbox"):
            size = _SIZE.fullmatch(value)
            wanted = "" if size else "bytes, or a quantity such as 512Mi or 10Gi"
            size_name = "dead_letters" if name == "deadLetters" else name
            found[size_name] = int(size[1]) * _UNITS[size[2] or ""] if size else 0
        else:
            wanted = "prefix, replicas, deadLetters or inbox"
            raise StoreError(f"--store: found the option {name!r}, expected {wanted}")
        if wanted:
            raise StoreError(f"--store: {name}: found {value!r}, expected {wanted}")
    return found


def _shown(url: str) -> str:
    return repr(re.sub(r"//[^/@]*@", "//…@", url)[:80])


class Accesses:
    """How the store's servers are reached, as the environment says. Files are read each time: a
    login that was renewed there holds from the next connection."""

    def __init__(self, place: Place, environ: Mapping[str, str]) -> None:
        self._place = place
        self._environ = environ
        self._contexts = Contexts()

    def now(self) -> Access:
        """Raises ``StoreError``, with a sentence that shows no secret."""
        parts = {name: self._value(name) for name in ("CA", "CERTIFICATE", "KEY")}
        if (parts["CERTIFICATE"] is None) != (parts["KEY"] is None):
            raise StoreError(
                f"found one of {ENVIRONMENT}_CERTIFICATE and {ENVIRONMENT}_KEY, expected both, "
                "or neither"
            )
        context = None
        if self._place.servers[0].startswith("tls://") or any(parts.values()):
            try:
                context = self._contexts.of(parts["CA"], parts["CERTIFICATE"], parts["KEY"])
            except Unfit as error:
                raise self._unfit(error.part.upper(), error.wanted) from None
        return Access(self._place.servers, context, self._login())

    def _login(self) -> Login:
        given = {name: value for name in LOGINS if (value := self._value(name)) is not None}
        if len(given) > 1:
            names = " and ".join(f"{ENVIRONMENT}_{name}" for name in given)
            raise StoreError(f"found {names}, expected one of them")
        password = self._value("PASSWORD")
        if (password is not None) != ("USER" in given):
            raise StoreError(
                f"found one of {ENVIRONMENT}_USER and {ENVIRONMENT}_PASSWORD, expected both, or "
                "neither"
            )
        if password is not None:
            return "user", self._text("USER", given["USER"]), self._text("PASSWORD", password)
        if "TOKEN" in given:
            return "token", self._text("TOKEN", given["TOKEN"])
        try:
            if "NKEY" in given:
                return nkey_login(self._text("NKEY", given["NKEY"]))
            if "CREDENTIALS" in given:
                return credentials_login(given["CREDENTIALS"])
        except ValueError as error:
            (name,) = given
            raise self._unfit(name, f"what NATS takes ({error})") from None
        return ()

    def _value(self, name: str) -> bytes | None:
        """Of the variable, or of the file that ``…_FILE`` names; None: neither is set."""
        value = self._environ.get(f"{ENVIRONMENT}_{name}")
        file = self._environ.get(f"{ENVIRONMENT}_{name}_FILE")
        if value and file:
            raise StoreError(
                f"found {ENVIRONMENT}_{name} and {ENVIRONMENT}_{name}_FILE, expected one of them"
            )
        if not file:
            return value.encode("utf-8", "surrogateescape") if value else None
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise StoreError(f"{ENVIRONMENT}_{name}_FILE: {file}: {error.strerror}") from None

    def _text(self, name: str, value: bytes) -> str:
        try:
            text = value.decode().strip()
        except UnicodeDecodeError:
            text = ""
        if not text or "\0" in text:
            raise self._unfit(name, "text")
        return text

    def _unfit(self, name: str, wanted: str) -> StoreError:
        return StoreError(f"{ENVIRONMENT}_{name}: expected {wanted}, found something else")
