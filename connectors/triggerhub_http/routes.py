"""Which claim serves a request: by host, path and method.

Among the claims that accept a request the most specific one serves it: an exact host before a
wildcard before none, then an exact path before the longest prefix, then a literal element before a
parameter, from the left. Prefixes are compared by path elements and a wildcard stands for one
label, both as in Kubernetes Ingress (networking/v1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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


class _Paths(Generic[T]):
    """Slots by their paths' keys: canonical, with a mark for each parameter."""

    __slots__ = ("_shapes", "_varied", "depth", "slots")

    def __init__(self) -> None:
        self.slots: dict[str, _Slot[T]] = {}
        self.depth = 0
        """Slashes of the key that has most."""
        self._shapes: Counter[_Shape] = Counter()
        self._varied: list[_Shape] = []
        """Those with parameters; a literal element is before a parameter, from the left."""

    def at(self, key: str) -> _Slot[T]:
        """A new one, unless it is there."""
        if key not in self.slots:
            self.slots[key] = _Slot()
            self._count(key, 1)
        return self.slots[key]

    def drop(self, key: str) -> None:
        del self.slots[key]
        self._count(key, -1)

    def _count(self, key: str, more: int) -> None:
        shape = tuple(element == _PARAMETER for element in key.split("/"))
        self._shapes[shape] += more
        if self._shapes[shape] == max(0, more):  # it is new, or gone
            self._shapes += Counter()
            self.depth = max(map(len, self._shapes), default=1) - 1
            self._varied = sorted(filter(any, self._shapes))

    def fitting(self, path: str) -> Iterator[_Slot[T]]:
        """The most specific first."""
        slot = self.slots.get(path)
        if slot is not None:
            yield slot
        if not self._varied:
            return
        elements = path.split("/")
        for shape in self._varied:
            if len(shape) != len(elements):
                continue
            places = list(zip(shape, elements, strict=True))
            slot = self.slots.get("/".join(_PARAMETER if one else each for one, each in places))
            if slot is not None and all(each or not one for one, each in places):
                yield slot


class _Table(Generic[T]):
    """The paths of one host."""

    __slots__ = ("exact", "prefixes")

    def __init__(self) -> None:
        self.exact: _Paths[T] = _Paths()
        self.prefixes: _Paths[T] = _Paths()
        """Without the slash at the end; the root is the empty text."""

    def matching(self, path: str) -> Iterator[tuple[_Slot[T], int]]:
        """The most specific first, each with the number of elements it matched (-1: exact)."""
        for slot in self.exact.fitting(path):
            yield slot, -1
        if not self.prefixes.slots:
            return
        depth = self.prefixes.depth
        if path.count("/") > depth:
            path = "/".join(path.split("/", depth + 1)[: depth + 1])
        while True:
            for slot in self.prefixes.fitting(path):
                yield slot, path.count("/")
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
        paths, key = self._place(table, claim)
        slot = paths.at(key)
        slot.claims.append(claim)
        return slot.settle()

    def leave(self, claim: Claim[T]) -> list[Claim[T]]:
        """Let it serve only until another claims the same. Returns the claims whose holder
        changed."""
        claim.leaving = True
        self._found.clear()
        paths, key = self._place(self._tables[claim.host], claim)
        return paths.slots[key].settle()

    def remove(self, claim: Claim[T]) -> list[Claim[T]]:
        """Returns the claims whose holder changed. Raises KeyError or ValueError unless it was
        added."""
        self._found.clear()
        table = self._tables[claim.host]
        paths, key = self._place(table, claim)
        slot = paths.slots[key]
        slot.claims.remove(claim)
        if not slot.claims:
            paths.drop(key)
        if not table.exact.slots and not table.prefixes.slots:
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

    def _place(self, table: _Table[T], claim: Claim[T]) -> tuple[_Paths[T], str]:
        elements = zip(claim.path.split("/"), canonical(claim.path).split("/"), strict=True)
        path = "/".join(_PARAMETER if raw[:1] == "{" else element for raw, element in elements)
        return (table.exact, path) if claim.exact else (table.prefixes, path.rstrip("/"))


def parameters(path: str) -> list[tuple[int, str]]:
    """The places of a claim's parameters among what lies between the slashes of its path, and their
    names."""
    elements = enumerate(path.split("/"))
    return [(at, element[1:-1]) for at, element in elements if element[:1] == "{"]


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
