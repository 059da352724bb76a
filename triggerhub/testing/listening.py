"""Promises on how a connector listens: attached, in order, bounded, and until it is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from triggerhub.connector import SpecError
from triggerhub.event import Event, Outcome
from triggerhub.testing.fakes import Gate, accept, after
from triggerhub.testing.harness import Feature, Sample
from triggerhub.testing.stage import AnyRun, AnyStage, Run


async def connects_first(stage: AnyStage) -> None:
    async with stage.process() as connector:
        async with stage.listening(connector) as run:
            await run.begun(await stage.send("a"))
        if stage.has(Feature.KEEPS):
            await stage.send("a")  # it is there before the next listener is
        async with stage.listening(connector) as run:
            await run.begun(await stage.send("a"))


async def keeps_key_order(stage: AnyStage) -> None:
    gate = Gate()
    tick = after(stage.harness.quiet / 20)

    async def script(event: Event) -> Outcome:
        return await (gate if event.key == "slow" else tick)(event)

    async with stage.restarted(script) as run:
        sent = await stage.send(*["slow", "a", "b", "c"] * 5)
        slow = [sample for sample in sent if sample.key == "slow"]
        await run.until(
            lambda: len(run.emit.settled) >= len(sent) - len(slow),
            "one event of one key hung, and the other keys did not go on",
        )
        await run.watch()
        for key in ("a", "b", "c", "slow"):
            _in_order(run, [sample for sample in sent if sample.key == key])
    if not stage.has(Feature.REPLAYS):
        return
    async with stage.restarted(tick) as run:
        await run.begun(slow, "after a restart, not all events of a key came again")
        _in_order(run, slow)


def _in_order(run: AnyRun, sent: list[Sample]) -> None:
    came = [call.event.data for call in run.emit.calls if call.event.key == sent[0].key]
    wanted = [sample.data for sample in sent]
    assert came == wanted[: len(came)], (
        f"events of the key {sent[0].key!r} came in the order {came}, sent as {wanted}"
    )


async def bounds_in_flight(stage: AnyStage) -> None:
    gate = Gate()
    async with (
        stage.process() as connector,
        stage.listening(connector, gate, in_flight=3) as run,
    ):
        sent = await stage.send(*"abcdefgh")
        await run.emit.until(lambda: run.emit.active >= 3, run.harness.patience)
        await run.watch()
        gate.open()
        await run.begun(sent)


async def ends_when_cancelled(stage: AnyStage) -> None:
    long = 5 * (stage.harness.margin + stage.harness.quiet)
    async with stage.process() as connector:
        async with stage.listening(connector, grace=long) as run:
            await run.stop(within=0)
        async with stage.listening(connector, Gate(), in_flight=1) as run:
            await stage.send("a", "b", "c")
            await run.until(lambda: bool(run.emit.calls), "nothing arrived")
            await run.stop()
            count = len(run.emit.calls)
            assert count == 1, f"{count - 1} deliveries began after listen was cancelled"
        if stage.has(Feature.REPLAYS):
            async with stage.listening(connector, grace=long) as run:
                run.script = run.emit.between_attempts
                await stage.send("a")
                await run.until(lambda: run.emit.active > 0, "nothing arrived")
                # A delivery that only waits for its next attempt holds up no stop.
                await run.stop(within=0)


async def lets_attempts_end(stage: AnyStage) -> None:
    gate = Gate()
    grace = stage.harness.quiet + stage.harness.margin
    async with stage.process() as connector:
        async with stage.listening(connector, gate, grace=grace) as run:
            await stage.send("a")
            await run.until(lambda: run.emit.active == 1, "nothing arrived")
            asyncio.get_running_loop().call_later(stage.harness.quiet, gate.open)
            await run.stop()
        assert run.emit.settled, (
            f"an attempt under way was cut off, though it would have ended {stage.harness.quiet:g} "
            f"s after the stop and the grace time is {grace:g} s"
        )
    done = run.emit.calls[0].identity
    async with stage.restarted() as run:
        await run.begun(await stage.send("a"))
        await run.watch()
        assert done not in {call.identity for call in run.emit.calls}, (
            f"{done} was settled within the grace time, and came again"
        )


async def raises_when_unreachable(stage: AnyStage) -> None:
    found = stage.harness.unreachable()
    assert found is not None
    made, stage.place = found
    async with stage.process(made) as connector:
        run: AnyRun = Run(stage, connector, accept, 1, None)
        try:
            await asyncio.wait([run.task], timeout=stage.harness.patience)
            assert run.task.done(), (
                f"listen did not raise within {stage.harness.patience:g} s of a source that cannot "
                "be reached"
            )
            assert not run.report.is_connected, "report.connected() was called"
            error = None if run.task.cancelled() else run.task.exception()
            assert error is not None, "listen returned, though its source cannot be reached"
            assert not isinstance(error, SpecError), (
                f"listen raised {error!r}, which says that no later try can do better"
            )
        finally:
            await run.kill()


async def shares(stage: AnyStage) -> None:
    async with stage.process() as one, stage.process() as other:
        async with AsyncExitStack() as stay:
            # The first that came leaves first: what only it held must go over.
            async with stage.listening(one) as leaving:
                staying = await stay.enter_async_context(stage.listening(other))
                sent = await stage.send(*"abcdefghijkl")
                await staying.until(
                    lambda: not _missing_in_both(staying, leaving, sent),
                    "two processes listened, and not all events arrived at one of them",
                )
                await leaving.until(lambda: not leaving.emit.active, "deliveries did not end")
            fresh = await stage.send(*"abcdef")
            await staying.begun(fresh, "one process left, and the other did not go on")
        twice = {c.identity for c in staying.emit.settled} & {
            c.identity for c in leaving.emit.settled
        }
        assert not twice, f"{min(twice)} was settled in one process, and came to the other as well"


def _missing_in_both(one: AnyRun, other: AnyRun, sent: list[Sample]) -> bool:
    if one.stage.has(Feature.CARRIES_DATA):
        return bool(set(one.missing(sent)) & set(other.missing(sent)))
    came = {call.identity for run in (one, other) for call in run.emit.calls}
    return len(came) < len(sent)
