"""The hub in Prometheus' words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from triggerhub import __version__
from triggerhub.admin.states import Key, key_of
from triggerhub.admin.view import View
from triggerhub.delivery.tally import BUCKETS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_BOUNDS = [*(str(bound) for bound in BUCKETS), "+Inf"]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One binding's counters, all read in one step, so that they add up."""

    key: Key
    received: int
    settled: tuple[tuple[str, int], ...]
    in_flight: int
    attempts: tuple[tuple[str, int], ...]
    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Readings:
    """All that a scrape shows, as plain values: rendering them can leave the event loop."""

    links: Sequence[_Reading]
    sources: Sequence[tuple[Key, float | None, Mapping[str, float], int, Mapping[str, int]]]
    """Key, lag, lag of each partition, errors, who was refused by reason."""
    letters: Sequence[tuple[Key, int]]
    inboxes: Sequence[tuple[Key, int, int]]
    """Key, events, bytes."""
    states: Sequence[tuple[str, int]]
    store: bool
    """It can be used."""
    functions: Sequence[Metric] = ()


def read(view: View, functions: Sequence[Metric] = ()) -> Readings:
    """The hub's counters now; ``functions`` are the code functions' own families."""
    return Readings(
        links=[
            _Reading(
                key,
                tally.received,
                (
                    ("accepted", tally.accepted),
                    ("filtered", tally.filtered),
                    ("dead", tally.dead),
                    ("dropped", tally.dropped),
                    ("given_back", tally.given_back),
                ),
                tally.in_flight,
                tuple(tally.attempts.items()),
                tuple(tally.buckets),
                tally.seconds,
            )
            for key, tally in view.tallies()
        ],
        sources=[
            (key, source.waiting, source.parts, source.errors, dict(source.turned))
            for key, source in view.sources()
        ],
        letters=list(view.letters.items()),
        inboxes=[(key_of(name), held.events, held.size) for name, held in view.waiting.items()],
        states=sorted(view.states().items()),
        store=view.store.trouble is None,
        functions=functions,
    )


class _Guests(Collector):
    """Families that others made."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def render(readings: Readings) -> bytes:
    """The Prometheus text format, version 0.0.4.

    The hub's own families are written here and not by way of the client library's samples: a
    hub with 2 000 bindings has 60 000 lines, which cost it a second each time.
    """
    own = "\n".join(_lines(readings)) + "\n"
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Guests(readings.functions))
    return own.encode() + generate_latest(registry)


async def scrape(view: View) -> bytes:
    """One answer to Prometheus. Thousands of bindings take long to write down: not on the event
    loop."""
    functions = await view.processes.metrics()
    return await asyncio.to_thread(render, read(view, functions))


def _lines(readings: Readings) -> Iterator[str]:
    yield from _family("build_info", "gauge", "The hub's version; always 1.")
    yield f'triggerhub_build_info{{version="{__version__}"}} 1'
    yield from _of_links(readings.links)
    yield from _family("source_lag", "gauge", "Events that wait in the source.")
    for key, waiting, *_ in readings.sources:
        if waiting is not None:
            yield f"triggerhub_source_lag{{{_labels(key)}}} {waiting}"
    yield from _family(
        "source_partition_lag", "gauge", "Events that wait in one partition or shard of the source."
    )
    for key, _, parts, *_ in readings.sources:
        for part, waiting in parts.items():
            yield (
                f"triggerhub_source_partition_lag{{{_labels(key)},"
                f'partition="{_escaped(part)}"}} {waiting}'
            )
    yield from _family(
        "source_errors_total", "counter", "Times that a listener lost its source or failed."
    )
    for key, _, _, failures, _ in readings.sources:
        yield f"triggerhub_source_errors_total{{{_labels(key)}}} {failures}"
    yield from _family(
        "requests_refused_total", "counter", "Requests that were refused and became no event."
    )
    for key, *_, turned in readings.sources:
        for reason, number in sorted(turned.items()):
            yield (
                f"triggerhub_requests_refused_total{{{_labels(key)},"
                f'reason="{_escaped(reason)}"}} {number}'
            )
    yield from _family("dead_letters", "gauge", "Dead letters in the store.")
    for key, number in readings.letters:
        yield f"triggerhub_dead_letters{{{_labels(key)}}} {number}"
    yield from _family("inbox_events", "gauge", "Accepted events that are not settled yet.")
    for key, number, _ in readings.inboxes:
        yield f"triggerhub_inbox_events{{{_labels(key)}}} {number}"
    yield from _family("inbox_bytes", "gauge", "Their size.")
    for key, _, size in readings.inboxes:
        yield f"triggerhub_inbox_bytes{{{_labels(key)}}} {size}"
    yield from _family(
        "bindings", "gauge", "Bindings, and triggers that have none (Unbound), by state."
    )
    for state, number in readings.states:
        yield f'triggerhub_bindings{{state="{state}"}} {number}'
    yield from _family("store_available", "gauge", "1 while the store can be used, else 0.")
    yield f"triggerhub_store_available {int(readings.store)}"


def _of_links(links: Sequence[_Reading]) -> Iterator[str]:
    labelled = [(_labels(link.key), link) for link in links]
    yield from _family("events_received_total", "counter", "Events that a listener brought.")
    for labels, link in labelled:
        yield f"triggerhub_events_received_total{{{labels}}} {link.received}"
    yield from _family("events_settled_total", "counter", "Events that left the hub, by outcome.")
    for labels, link in labelled:
        for outcome, number in link.settled:
            yield f'triggerhub_events_settled_total{{{labels},outcome="{outcome}"}} {number}'
    yield from _family(
        "attempts_total", "counter", "Requests to functions by status class; none: no reply."
    )
    for labels, link in labelled:
        for status_class, number in link.attempts:
            yield f'triggerhub_attempts_total{{{labels},status_class="{status_class}"}} {number}'
    yield from _family(
        "in_flight", "gauge", "Deliveries under way, waits between attempts included."
    )
    for labels, link in labelled:
        yield f"triggerhub_in_flight{{{labels}}} {link.in_flight}"
    yield from _family(
        "delivery_seconds",
        "histogram",
        "From an event's arrival to its outcome, retries included.",
    )
    for labels, link in labelled:
        number = 0
        for bound, number in zip(_BOUNDS, accumulate(link.buckets), strict=True):
            yield f'triggerhub_delivery_seconds_bucket{{{labels},le="{bound}"}} {number}'
        yield f"triggerhub_delivery_seconds_count{{{labels}}} {number}"
        yield f"triggerhub_delivery_seconds_sum{{{labels}}} {link.seconds!r}"


def _family(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP triggerhub_{name} {help_text}", f"# TYPE triggerhub_{name} {kind}"


def _labels(key: Key) -> str:
    # DNS labels all three: nothing in them needs escaping.
    return f'namespace="{key[0]}",trigger="{key[1]}",function="{key[2]}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
