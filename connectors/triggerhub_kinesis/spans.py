"""Positions in a stream as a person writes them, for a replay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from triggerhub_kinesis.places import AFTER, AT, TRIM_HORIZON, Place, at_time
from triggerhub_kinesis.stream import Shard

_FORM = "TrimHorizon, or SHARD:SEQUENCE,… such as 0:4968…,3:4968…"
_PLACE = re.compile(
    r"(?:shardId-)?(?P<shard>[0-9]{1,12})(?::(?P<sequence>[0-9]{1,128})(?P<after>\+?))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Span:
    """Of one shard."""

    begin: Place
    end: int | None = None
    """The first sequence number that does not belong to it; None: no bound but the time."""


def find_spans(
    shards: Mapping[str, Shard], since: datetime | str, until: datetime | str | None
) -> dict[str, Span]:
    """Of each shard that belongs to the window. Raises ValueError for a text that is no position,
    or names a shard that is not there."""
    ends: dict[str, int] = {}
    if isinstance(until, str):
        for shard, place in _places(shards, "to", until).items():
            if not place.where:
                raise ValueError(f"to: found shard {_number(shard)} alone, expected {_FORM}")
            ends[shard] = int(place.where) + (place.type == AFTER)
    if isinstance(since, datetime):
        begins = dict.fromkeys(shards, at_time(since))
    elif since == "TrimHorizon":
        begins = dict.fromkeys(shards, Place(TRIM_HORIZON))
    else:
        begins = _places(shards, "from", since)
    return {shard: Span(begin, ends.get(shard)) for shard, begin in begins.items()}


def say_places(places: Mapping[str, Place]) -> str:
    """As ``find_spans`` reads them: a shard alone is one from its oldest record on; ``+``: after
    that record."""
    said = []
    for shard, place in sorted(places.items()):
        text = _number(shard)
        if place.type in (AT, AFTER):
            text += f":{place.where}" + ("+" if place.type == AFTER else "")
        said.append(text)
    return ",".join(said)


def _places(shards: Mapping[str, Shard], where: str, text: str) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for part in text.split(","):
        found = _PLACE.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{where}: found {_cut(part)}, expected a time, {_FORM}")
        shard = f"shardId-{int(found['shard']):012}"
        if shard not in shards:
            raise ValueError(f"{where}: there is no shard {found['shard']} in the stream")
        if shard in places:
            raise ValueError(f"{where}: found shard {found['shard']} twice, expected it once")
        sequence = found["sequence"]
        kind = AFTER if found["after"] else AT
        places[shard] = Place(kind, sequence) if sequence else Place(TRIM_HORIZON)
    return places


def _number(shard: str) -> str:
    return str(int(shard.rpartition("-")[2]))


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
