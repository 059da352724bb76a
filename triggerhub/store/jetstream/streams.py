"""The streams of a store: how they are created, and whether those that are there will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from triggerhub.nats.client import Client, Refusal
from triggerhub.store.jetstream.place import Place
from triggerhub.store.records import StoreError

DAY = 24 * 3600
NOT_FOUND = 10059
_OTHERWISE_THERE = 10058
_MUST = ("subjects", "retention", "discard", "max_msgs_per_subject", "sealed", "deny_purge")
"""What the store relies on. Of all else, another's choice is respected."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stream:
    """One of them. ``config`` as of JetStream's API; durations in nanoseconds."""

    name: str
    root: str
    """All subjects begin so."""
    config: Mapping[str, Any] = field(repr=False)
    read_only: bool = False

    @property
    def wanted(self) -> dict[str, Any]:
        """Its whole configuration, as far as the store says."""
        return {
            "name": self.name,
            "subjects": [f"{self.root}.>"],
            "retention": "limits",
            "storage": "file",
            "max_msgs_per_subject": -1,
            "sealed": False,
            "deny_purge": False,
            **self.config,
        }

    async def prepare(self, client: Client) -> str:
        """Find it, or create it; returns what somebody chose otherwise. Raises ``StoreError`` where
        what is there will not do, and what ``Client.ask`` raises."""
        try:
            found = await client.ask(f"STREAM.INFO.{self.name}")
        except Refusal as error:
            if error.number != NOT_FOUND or self.read_only:
                raise
            try:
                found = await client.ask(f"STREAM.CREATE.{self.name}", self.wanted)
                if found.get("did_create"):
                    log.info("store.stream_created", stream=self.name)
            except Refusal as error:
                if error.number != _OTHERWISE_THERE:
                    raise
                # Another hub was faster, with other settings.
                found = await client.ask(f"STREAM.INFO.{self.name}")
        return self._check(found["config"])

    def _check(self, found: Mapping[str, Any]) -> str:
        others = {
            name: (found.get(name), value)
            for name, value in self.wanted.items()
            if found.get(name, value) != value
        }
        wrong = {name: pair for name, pair in others.items() if name in _MUST}
        if found.get("mirror"):
            wrong["mirror"] = (found["mirror"].get("name"), None)
        if wrong:
            raise StoreError(
                f"stream {self.name} is there with {_told(wrong)}: change it, or give the store "
                "another prefix"
            )
        return _told(others)


def _told(others: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{name} {found!r}, expected {value!r}" for name, (found, value) in others.items()
    )


@dataclass(frozen=True, slots=True)
class Streams:
    """All of one store."""

    positions: Stream
    claims: Stream
    dead_letters: Stream
    journal: Stream
    inbox: Stream
    once: Stream

    def __iter__(self) -> Iterator[Stream]:
        yield from (self.positions, self.claims, self.dead_letters, self.journal)
        yield from (self.inbox, self.once)


def streams_of(place: Place, *, read_only: bool = False) -> Streams:
    """Bounded each: what is full refuses what comes. The journal, and what is known of what was
    put once, forget instead."""
    prefix = place.prefix
    kept: dict[str, Any] = {"discard": "new", "num_replicas": place.replicas}

    def bucket(name: str, config: dict[str, Any]) -> Stream:
        # As a KV bucket: `nats kv` can read it.
        own = {"max_msgs_per_subject": 1, "allow_rollup_hdrs": True, "deny_delete": True}
        root = f"$KV.{prefix}-{name}"
        return Stream(f"KV_{prefix}-{name}", root, kept | own | config, read_only)

    def stream(name: str, config: dict[str, Any]) -> Stream:
        return Stream(f"{prefix}-{name}", f"{prefix}.{name}", kept | config, read_only)

    return Streams(
        bucket("positions", {"max_bytes": 64 * 2**20}),
        bucket("claims", {"max_bytes": 16 * 2**20, "max_age": DAY * 10**9}),
        stream("dead-letters", {"max_bytes": place.dead_letters}),
        stream(
            "journal",
            {"max_bytes": 256 * 2**20, "max_msgs": 100_000, "max_age": DAY * 10**9,
             "discard": "old"},
        ),
        stream("inbox", {"max_bytes": place.inbox}),
        bucket("once", {"max_bytes": 256 * 2**20, "max_age": 7 * DAY * 10**9, "discard": "old"}),
    )  # fmt: skip
