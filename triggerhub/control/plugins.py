"""Which connectors are installed: the entry points of the group ``triggerhub.connectors``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, PackageMetadata, distributions
from typing import Any, NamedTuple, cast

from pydantic import BaseModel

from triggerhub.connector import Connector, Installation, LetterPlaces

GROUP = "triggerhub.connectors"

Factory = Callable[[Installation], Connector[Any]]
"""What an entry point names. It bears the ``source`` model as an attribute, and that of
``dead_letter`` where it is a ``LetterBox``."""


class _Loaded(NamedTuple):
    factory: Factory | None = None
    source: type[BaseModel] | None = None
    missing: str = ""
    places: type[LetterPlaces] | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of trigger and the connector that serves it.

    The connector's module is imported when ``source``, ``factory`` or ``missing`` is first asked
    for, so a hub pays only for the kinds that its manifests use.
    """

    kind: str
    load: Callable[[], object]
    """Returns the factory. May raise anything that importing a module may raise."""
    module: str = ""
    distribution: str = ""
    version: str = ""
    extra: str = ""
    """What ``pip install distribution[extra]`` must name to get the connector's own needs."""
    shadowed: tuple[str, ...] = ()
    """Other distributions with the same kind (``name version``), which are not used."""

    @property
    def source(self) -> type[BaseModel] | None:
        """The model of ``spec.source``; None where the connector cannot be loaded."""
        return self._loaded.source

    @property
    def places(self) -> type[LetterPlaces] | None:
        """The model of where its system takes dead letters; None where it takes none."""
        return self._loaded.places

    @property
    def factory(self) -> Factory | None:
        """Makes the connector; None where it cannot be loaded."""
        return self._loaded.factory

    @property
    def missing(self) -> str:
        """Why the connector cannot be used and what to do, in a sentence; empty: it can."""
        return self._loaded.missing

    @cached_property
    def _loaded(self) -> _Loaded:
        try:
            factory = self.load()
        except ModuleNotFoundError as error:
            own = self.module.partition(".")[0]
            if self.extra and (error.name or "").partition(".")[0] != own:
                wanted = f"{self.distribution}[{self.extra}]"
                return _Loaded(missing=f"{self.kind} needs: pip install '{wanted}'")
            return self._broken(f"{error}")
        except Exception as error:  # noqa: BLE001 - a plugin's module may raise anything; it harms only its kind
            return self._broken(f"{type(error).__name__}: {error}")
        source = getattr(factory, "source", None)
        if not callable(factory):
            return self._broken(f"found {factory!r}, expected something to call")
        if not (isinstance(source, type) and issubclass(source, BaseModel)):
            return self._broken(f"its source is {source!r}, expected a pydantic model")
        kind = getattr(factory, "kind", self.kind)
        if kind != self.kind:
            return self._broken(f"its kind is {kind!r}, its entry point says {self.kind}")
        places = getattr(factory, "dead_letter", None)
        if not ((isinstance(places, type) and issubclass(places, LetterPlaces)) or places is None):
            return self._broken(f"its dead_letter is {places!r}, expected a kind of LetterPlaces")
        return _Loaded(cast("Factory", factory), source, places=places)

    def _broken(self, why: str) -> _Loaded:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return _Loaded(missing=f"{self.kind}{origin} cannot be loaded: {why}")


def installed_kinds(path: Sequence[str] | None = None) -> dict[str, Kind]:
    """All kinds by name, in alphabetical order. Imports no connector.

    Where two distributions have the same kind, the first by name is used and knows of the
    others. ``path``: folders to look in, instead of ``sys.path``.
    """
    found = distributions() if path is None else distributions(path=list(path))
    offers: dict[str, dict[str, Kind]] = {}
    for distribution in found:
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        if not entries:
            continue  # its metadata, a long text, need not be read
        about = distribution.metadata
        for entry in entries:
            kind = _kind(entry, about)
            # The same distribution can be met twice on a path: the first is imported.
            offers.setdefault(entry.name, {}).setdefault(kind.distribution, kind)
    return {kind: _chosen(offers[kind]) for kind in sorted(offers)}


def _kind(entry: EntryPoint, about: PackageMetadata) -> Kind:
    return Kind(
        kind=entry.name,
        load=entry.load,
        module=entry.module,
        distribution=about["Name"],
        version=about["Version"],
        extra=",".join(entry.extras),
    )


def _chosen(offers: dict[str, Kind]) -> Kind:
    first, *others = (offers[name] for name in sorted(offers, key=str.lower))
    return replace(
        first, shadowed=tuple(f"{other.distribution} {other.version}" for other in others)
    )
