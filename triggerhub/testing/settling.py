"""Promises on what becomes of events: whole, settled once, given back, brought again."""

from __future__ import annotations

import asyncio

from triggerhub.connector import GivenBack
from triggerhub.event import Event, Outcome
from triggerhub.testing.fakes import Call, Gate, Script, accept
from triggerhub.testing.harness import Feature, Sample
from triggerhub.testing.stage import AnyStage, brief


def first_by(special: Script, others: Script = accept) -> Script:
    """A script: the first event that comes, whenever it comes, is treated by ``special``."""
    chosen: list[str] = []

    async def script(event: Event) -> Outcome:
        if not chosen:
            chosen.append(event.id)
        return await (special if event.id == chosen[0] else others)(event)

    return script


async def arrives_whole(stage: AnyStage) -> None:
    keyed = stage.has(Feature.KEYED)
    bodies = [b"plain", b"", bytes(range(256)), "größe 量 \U0001f980".encode(), b'{"a": [1]}\r\n']
    if stage.harness.largest:
        bodies.append(
            (b"large\x00\xff" * (stage.harness.largest // 7 + 1))[: stage.harness.largest]
        )
    keys = ["k", "schlüssel/ ?&%", None]
    samples = [
        Sample(data, keys[n % len(keys)] if keyed else None) for n, data in enumerate(bodies)
    ]
    async with stage.restarted() as run:
        sent = await stage.produce(samples)
        await run.until(
            lambda: len({call.identity for call in run.emit.calls}) >= len(sent),
            f"of {len(sent)} events that were sent, not all arrived with an identity of their own",
        )
        await run.watch()
        came = [(call.event.data, call.event.key) for call in run.emit.calls]
        wanted = [(sample.data, sample.key) for sample in sent]
        for data, key in came:
            assert (data, key) in wanted, (
                f"nobody sent the data {brief(data)} with the key {key!r}; what was sent: "
                + ", ".join(f"{brief(d)} with {k!r}" for d, k in wanted)
            )
        for data, key in wanted:
            assert (data, key) in came, f"{brief(data)} with the key {key!r} did not arrive"


async def settled_stays_settled(stage: AnyStage) -> None:
    async with stage.restarted() as run:
        await run.begun(await stage.send("a", "b", "c"))
        await run.until(lambda: not run.emit.active, "deliveries did not end")
    settled = {call.identity for call in run.emit.settled}
    async with stage.restarted() as run:
        await run.begun(await stage.send("a", "b", "c"))
        await run.watch()
        again = settled & {call.identity for call in run.emit.calls}
        assert not again, f"{min(again)} was settled, and came again after a restart"


async def unsettled_comes_again(stage: AnyStage) -> None:
    """The oldest event hangs, so that no later success may be committed past it."""
    async with stage.restarted(first_by(Gate())) as run:
        otherwise = "one event hung, and others, of other keys, did not go on"
        await run.begun(await stage.send("a", "b", "c", "d"), otherwise)
        await run.until(lambda: run.emit.active == 1, otherwise)
    hung = run.emit.calls[0]
    await _comes_again(stage, hung, "its listener was stopped while it was under way")


async def _comes_again(stage: AnyStage, call: Call, why: str) -> None:
    async with stage.restarted() as run:
        await run.until(
            lambda: call.identity in {again.identity for again in run.emit.settled},
            f"{call.identity} was not settled ({why}), and did not come again",
        )
    async with stage.restarted() as run:
        await run.begun(await stage.send("a"))
        await run.watch()
        assert call.identity not in {again.identity for again in run.emit.calls}, (
            f"{call.identity} came again, was settled then, and came once more"
        )


async def unsettled_is_answered(stage: AnyStage) -> None:
    async with stage.restarted(first_by(Gate())) as run:
        (hung,) = await stage.send(None)
        await run.begun([hung])
        (well,) = await stage.send(None)
        await run.begun([well])
        assert await stage.harness.answered(well), (
            "the producer of a settled event heard of failure"
        )
    assert not await stage.harness.answered(hung), (
        "an event was not settled (its listener was stopped while it was under way), and its "
        "producer heard that it was accepted"
    )
    async with stage.restarted() as run:
        await run.watch()
        assert not run.emit.calls, "what was not settled came again: the harness must name REPLAYS"


async def tail_is_given_back(stage: AnyStage) -> None:
    async with stage.process() as connector:
        async with stage.listening(connector, first_by(accept, Gate()), in_flight=1) as run:
            sent = await stage.send("a", "b", "a", "b", "c")
            await run.until(lambda: len(run.emit.calls) == 2, "the second event did not arrive")
            await run.watch()
        done = run.emit.calls[0]
        rest = [sample for sample in sent if sample.data != done.event.data]
    async with stage.restarted() as run:
        await run.begun(rest, "events that waited when the listener was stopped did not come again")
        await run.watch()
        assert done.identity not in {call.identity for call in run.emit.calls}, (
            f"{done.identity} was settled, and came again after a restart"
        )


async def goes_on(stage: AnyStage) -> None:
    async with stage.process() as connector:
        async with stage.listening(connector) as run:
            await run.begun(await stage.send("a", "b"))
            await run.until(lambda: not run.emit.active, "deliveries did not end")
        async with stage.listening(connector) as second:
            await second.begun(
                await stage.send("a", "b"), "the second listen did not bring new events"
            )
            await second.watch()
        again = {c.identity for c in run.emit.settled} & {c.identity for c in second.emit.calls}
        assert not again, f"{min(again)} was settled, and the second listen began before it"


async def keeps_what_comes_meanwhile(stage: AnyStage) -> None:
    async with stage.restarted() as run:
        await run.begun(await stage.send("a"))
    kept = await stage.send("a", "b", "c")
    async with stage.restarted() as run:
        await run.begun(kept, "what was produced while nobody listened did not arrive")


async def given_back_is_not_settled(stage: AnyStage) -> None:
    async def refuse(event: Event) -> Outcome:
        raise GivenBack(f"no function is bound for {event.id}")

    async with stage.restarted(first_by(refuse)) as run:
        sent = await stage.send("a", "a", "a")
        await run.until(
            lambda: run.emit.calls[0].ended if run.emit.calls else False, "none arrived"
        )
        await asyncio.sleep(stage.harness.quiet)
    lost = run.emit.calls[0]
    passed = [call for call in run.emit.settled if call.event.key == lost.event.key is not None]
    assert not passed, f"{lost.identity} was given back, and {passed[0].identity} passed it"
    if stage.has(Feature.REPLAYS):
        await _comes_again(stage, lost, "emit raised GivenBack")
    if stage.has(Feature.ANSWERS):
        (asked,) = [sample for sample in sent if sample.data == lost.event.data]
        assert not await stage.harness.answered(asked), (
            "emit raised GivenBack, and the producer heard that its event was accepted"
        )
