"""The promise of a connector whose system takes dead letters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from triggerhub.connector import Letter, LetterBox
from triggerhub.event import Event, Origin
from triggerhub.testing.fakes import subscription
from triggerhub.testing.harness import Feature, Sample
from triggerhub.testing.stage import AnyStage, brief

_BODIES = (b"plain", b"", bytes(range(256)), "größe 量".encode(), b'{"a": [1]}\r\n')
_EVIDENCE = {"reason": "Rejected", "detail": "status 422: größe 量", "attempts": "1"}


async def comes_back_as_it_was(stage: AnyStage) -> None:
    keyed = stage.has(Feature.KEYED)
    keys = ["k", "schlüssel/ ?&%", None]
    samples = [Sample(data, keys[n % 3] if keyed else None) for n, data in enumerate(_BODIES)]
    async with stage.restarted() as run:
        sent = await stage.produce(samples)
        await run.begun(sent)
        events = list({call.identity: call.event for call in run.emit.calls}.values())
    bound = subscription(stage.place, name=f"test.{stage.name}.letters")
    laid: list[tuple[Event, Origin, dict[str, str]]] = []
    async with stage.process() as connector:
        box = cast("LetterBox[Any]", connector)
        for number, event in enumerate(events):
            origin = Origin() if event.origin is None else event.origin()
            died = replace(event, origin=None)
            letter = Letter(id=f"{number}", event=died, origin=origin, evidence=_EVIDENCE)
            found = await box.lay_down(bound, stage.harness.letters, letter)
            laid.append((died, origin, dict(found)))
    places = [coordinates for _, _, coordinates in laid]
    assert all(
        isinstance(text, str) for place in places for pair in place.items() for text in pair
    ), f"coordinates must be texts, found {places[0]}"
    assert all(places.count(place) == 1 for place in places), f"two letters lie in {places[0]}"
    async with stage.process() as connector:
        box = cast("LetterBox[Any]", connector)
        for died, origin, coordinates in laid:
            _compare(await box.read_back(bound, coordinates), died, origin)


def _compare(back: Event, died: Event, origin: Origin) -> None:
    what = f"the dead letter of {(died.source, died.id)}"
    assert (back.source, back.id) == (died.source, died.id), (
        f"{what} came back as {(back.source, back.id)}"
    )
    assert back.data == died.data, (
        f"{what} came back with {brief(back.data)}, expected {brief(died.data)}"
    )
    assert replace(back, origin=None) == died, f"{what} came back as {back}, expected {died}"
    found = Origin() if back.origin is None else back.origin()
    assert found == origin, f"{what} came back with the origin {found}, expected {origin}"
