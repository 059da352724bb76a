"""Which claim serves a request: by host, path and method.

Among the claims that accept a request the most specific one serves it: an exact host before a
wildcard before none, then an exact path before the longest prefix, then a literal element before a
parameter, from the left. Prefixes are compared by path elements and a wildcard stands for one
label, both as in Kubernetes Ingress (networking/v1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

_ANY = "*"
_PARAMETER = "%"
"""A parameter's place in a key: no element of a canonical path."""
_DOTS = frozenset({".", ".."})
_MOST_KEPT = 1024
_LONGEST_KEPT = 256
"""Characters; what clients make up shall not fill the memory."""


class PathError(ValueError):
    """A path that means another one: says what was found."""


@dataclass(eq=False, kw_only=True)
class Claim(Generic[T]):
    """What one listener wants to serve."""

    host: str
    """In lower case, exact or ``*.`` and a domain; empty: any."""
    path: str
    """An element ``{name}`` stands for any one that is not empty."""
    exact: bool
    methods: frozenset[str] | None
    """None: all."""
    created: datetime
    name: str
    owner: T
    holder: Claim[T] | None = field(default=None, init=False)
    """The claim that serves instead of this one; None while this one serves."""

    leaving: bool = field(default=False, init=False)
    """True: it serves only until another claims the same."""

    @property
    def age(self) -> tuple[bool, datetime, str]:
        """Where two claims overlap, the lesser serves."""
        return self.leaving, self.created, self.name

    def overlaps(self, other: Claim[T]) -> bool:
        """Whether a method is claimed by both; host and path are the same already."""
        if self.methods is None or other.methods is None:
            return True
        return not self.methods.isdisjoint(other.methods)


@dataclass(slots=True)
class _Slot(Generic[T]):
    """The claims to one host, path and kind of path."""

    claims: list[Claim[T]] = field(default_factory=list)
    serving: dict[str, Claim[T]] = field(default_factory=dict)
    """By method; ``*`` serves the methods not named."""

    def settle(self) -> list[Claim[T]]:
        """Decide anew who serves. Returns the claims whose holder changed."""
        self.claims.sort(key=lambda claim: claim.age)
        self.serving = {}
        winners: list[Claim[T]] = []
        changed = []
        for claim in self.claims:
            holder = next((winner for winner in winners if winner.overlaps(claim)), None)
            if holder is not claim.holder:
                claim.holder = holder
                changed.append(claim)
            if holder is None:
                winners.append(claim)
                self.serving.update(dict.fromkeys(claim.methods or (_ANY,), claim))
        if "GET" in self.serving:
            self.serving.setdefault("HEAD", self.serving["GET"])
        return changed


_Shape = tuple[bool, ...]
"""Of a key's elements, which are parameters."""


class _Table(Generic[T]):
    """The paths of one host."""

    __slots__ = ("depth", "exact", "exact_shapes", "prefix_shapes", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, _Slot[T]] = {}
        self.prefixes: dict[str, _Slot[T]] = {}
        """By path without the slash at its end; the root is the empty text."""
        self.depth = 0
        """Elements of the longest prefix."""
        self.exact_shapes: list[_Shape] = []
        self.prefix_shapes: list[_Shape] = []
        """Of keys with parameters; a literal element is before a parameter, from the left."""

    def changed(self) -> None:
        """Other keys are in it."""
        self.depth = max((prefix.count("/") for prefix in self.prefixes), default=0)
        self.exact_shapes = _shapes(self.exact)
        self.prefix_shapes = _shapes(self.prefixes)

    def matching(self, path: str) -> Iterator[tuple[_Slot[T], int]]:
        """The most specific first, each with the number of elements it matched (-1: exact)."""
        slot = self.exact.get(path)
        if slot is not None:
            yield slot, -1
        for key in _fitting(self.exact_shapes, path):
            if key in self.exact:
                yield self.exact[key], -1
        if not self.prefixes:
            return
        depth = self.depth
        if path.count("/") > depth:
            path = "/".join(path.split("/", depth + 1)[: depth + 1])
        while True:
            slot = self.prefixes.get(path)
            if slot is not None:
                yield slot, path.count("/")
            for key in _fitting(self.prefix_shapes, path):
                if key in self.prefixes:
                    yield self.prefixes[key], path.count("/")
            if not path:
                return
            path = path[: path.rfind("/")]


class Routes(Generic[T]):
    """All claims of a process."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table[T]] = {}
        self._found: dict[tuple[str, str, str], tuple[Claim[T], str]] = {}
        """What ``find`` found lately."""

    def add(self, claim: Claim[T]) -> list[Claim[T]]:
        """Returns the claims whose holder changed; that of ``claim`` is set in any case."""
        self._found.clear()
        table = self._tables.setdefault(claim.host, _Table())
        slots, key = self._place(table, claim)
        slot = slots.setdefault(key, _Slot())
        slot.claims.append(claim)
        table.changed()
        return slot.settle()

    def leave(self, claim: Claim[T]) -> list[Claim[T]]:
        """Let it serve only until another claims the same. Returns the claims whose holder
        changed."""
        claim.leaving = True
        self._found.clear()
        slots, key = self._place(self._tables[claim.host], claim)
        return slots[key].settle()

    def remove(self, claim: Claim[T]) -> list[Claim[T]]:
        """Returns the claims whose holder changed. Raises KeyError or ValueError unless it was
        added."""
        self._found.clear()
        table = self._tables[claim.host]
        slots, key = self._place(table, claim)
        slot = slots[key]
        slot.claims.remove(claim)
        if not slot.claims:
            del slots[key]
            table.changed()
        if not table.exact and not table.prefixes:
            del self._tables[claim.host]
        return slot.settle()

    def find(self, host: str, raw_path: str, method: str) -> tuple[Claim[T] | None, str, set[str]]:
        """Who serves a request.

        ``host``: of the Host field; ``raw_path``: still percent-encoded. Returns the claim, what
        follows the prefix in the raw path (empty for an exact path), and, where no claim accepts
        the method, the methods that are accepted (empty: the path is unknown). Raises
        ``PathError``.
        """
        asked = (host, raw_path, method)
        if asked in self._found:
            return *self._found[asked], set()
        path = canonical(raw_path)
        allowed: set[str] = set()
        for table in self._by_host(host):
            for slot, elements in table.matching(path):
                claim = slot.serving.get(method) or slot.serving.get(_ANY)
                if claim is not None:
                    rest = _rest(raw_path, elements)
                    self._keep(asked, claim, rest)
                    return claim, rest, allowed
                allowed.update(slot.serving)
        return None, "", allowed

    def _keep(self, asked: tuple[str, str, str], claim: Claim[T], rest: str) -> None:
        if len(self._found) >= _MOST_KEPT:
            self._found.clear()
        if len(asked[0]) + len(asked[1]) < _LONGEST_KEPT:
            self._found[asked] = claim, rest

    def _by_host(self, host: str) -> Iterator[_Table[T]]:
        tables = self._tables
        if len(tables) > 1 or "" not in tables:
            name = host_name(host)
            if name in tables and name:
                yield tables[name]
            wildcard = "*." + name.partition(".")[2]
            if wildcard in tables:
                yield tables[wildcard]
        if "" in tables:
            yield tables[""]

    def _place(self, table: _Table[T], claim: Claim[T]) -> tuple[dict[str, _Slot[T]], str]:
        elements = zip(claim.path.split("/"), canonical(claim.path).split("/"), strict=True)
        path = "/".join(_PARAMETER if raw[:1] == "{" else element for raw, element in elements)
        return (table.exact, path) if claim.exact else (table.prefixes, path.rstrip("/"))


def parameters(path: str) -> list[tuple[int, str]]:
    """The places of a claim's parameters among what lies between the slashes of its path, and their
    names."""
    elements = enumerate(path.split("/"))
    return [(at, element[1:-1]) for at, element in elements if element[:1] == "{"]


def _shapes(keys: Iterable[str]) -> list[_Shape]:
    found = {tuple(e == _PARAMETER for e in key.split("/")) for key in keys if _PARAMETER in key}
    return sorted(shape for shape in found if any(shape))


def _fitting(shapes: list[_Shape], path: str) -> Iterator[str]:
    """The keys that this path may have."""
    if not shapes:
        return
    elements = path.split("/")
    for shape in shapes:
        if len(shape) != len(elements):
            continue
        key = [_PARAMETER if one else e for one, e in zip(shape, elements, strict=True)]
        if not any(one and not e for one, e in zip(shape, elements, strict=True)):
            yield "/".join(key)


def host_name(host: str) -> str:
    """A Host field without its port, in lower case, without the root's dot."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".").lower()


def canonical(path: str) -> str:
    """A path whose elements can be compared: decoded, but for what would part them anew.

    Raises ``PathError`` for ``.`` and ``..``: a function would be reached by another path than
    the one that was matched (RFC 3986, section 5.2.4; clients resolve them).
    """
    if "%" in path:
        elements = (unquote(element, errors="surrogateescape") for element in path.split("/"))
        path = "/".join(element.replace("%", "%25").replace("/", "%2F") for element in elements)
    if "/." in path and not _DOTS.isdisjoint(path.split("/")):
        raise PathError(f"the path {path!r} contains '.' or '..', expected a resolved one")
    return path


def _rest(path: str, elements: int) -> str:
    if elements < 0:
        return ""
    if elements == 0:
        return "" if path == "/" else path
    parts = path.split("/", elements + 1)
    return "/" + parts[-1] if len(parts) > elements + 1 else ""
