"""Machines with clocks and loops of their own, one API server between them, and one true time that
passes as fast as it can. Machines are stopped, cut off and killed; the true time knows who led."""

from __future__ import annotations

import asyncio
import copy
import heapq
import itertools
import random
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.election import Election

Ts = TypeVarTuple("Ts")

_TURNS = 12
"""Iterations of a loop in which everything that is due has been done."""


class LeaseServer:
    """What the API server holds: one Lease, or none."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.refuses = False
        """Answers 500 to everything, and does nothing."""
        self.writes = 0
        self._version = 0

    @property
    def holder(self) -> str | None:
        """None: there is no lease."""
        return None if self.lease is None else str(self.lease["spec"]["holderIdentity"])

    def put(self, holder: str, renewed: str, duration: int = 10) -> None:
        """What somebody else wrote."""
        spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration}
        self._keep({"metadata": {"name": "lease"}, "spec": spec})

    def get(self) -> Object:
        return copy.deepcopy(self._there())

    def create(self, body: Object) -> Object:
        self._well()
        if self.lease is not None:
            raise failure(409, "AlreadyExists")
        return self._keep(body)

    def replace(self, body: Object) -> Object:
        version = self._there()["metadata"]["resourceVersion"]
        if body["metadata"].get("resourceVersion") != version:
            raise failure(409, "Conflict")
        return self._keep(body)

    def _there(self) -> Object:
        self._well()
        if self.lease is None:
            raise failure(404, "NotFound")
        return self.lease

    def _well(self) -> None:
        if self.refuses:
            raise failure(500, "InternalError")

    def _keep(self, body: Object) -> Object:
        self.writes += 1
        self._version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(self.lease)


def failure(status: int, reason: str) -> ApiError:
    return ApiError("update", "leases", "hub", status, reason, "told")


class World:
    """The true time in seconds, and what happens in it. Leaving it stops every machine."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.server = LeaseServer()
        self.machines: list[Machine] = []
        self.random = random.Random(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.resume()
            machine.end()
        self.run(10.0)
        for machine in self.machines:
            assert machine.ended, machine.name
            machine.close()

    def machine(self, name: str, rate: float = 1.0) -> Machine:
        """A new one, which starts now."""
        machine = Machine(self, name, rate)
        self.machines.append(machine)
        machine.turn()
        return machine

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(when, self.now), next(self._numbers), act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass, until something is so; returns how much did."""
        began, end = self.now, self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, act = heapq.heappop(self._due)
            act()
            self._look()
            if until():
                return self.now - began
        self.now = end
        return seconds

    @property
    def leaders(self) -> list[str]:
        """Who acts as the leader at this moment, or would if it were not stopped."""
        return [machine.name for machine in self.machines if machine.leads()]

    def _look(self) -> None:
        leaders = self.leaders
        assert len(leaders) <= 1, f"at {self.now}: {leaders}"
        for machine in self.machines:
            if not machine.stopped:
                assert machine.told == machine.leads(), f"at {self.now}: {machine.name}"


class Machine(asyncio.SelectorEventLoop):
    """One process: a loop whose clock goes ``rate`` times as fast as the true time."""

    def __init__(self, world: World, name: str, rate: float) -> None:
        super().__init__()
        self.name = name
        self.stopped = False
        """By SIGSTOP: its clock goes on, it does nothing."""
        self.cut = False
        """Nothing it sends arrives, and no answer reaches it."""
        self.deaf = False
        """What it writes is written; the answers to that are lost."""
        self.slow = 0.0
        """Seconds that each way takes longer."""
        self.dead = False
        self.told = False
        """What ``changed`` said last."""
        self.flips: list[float] = []
        self._world = world
        self._rate = rate
        self._late: list[Callable[[], None]] = []
        self.election = Election(
            self, name="lease", namespace="hub", identity=name, changed=self._changed
        )
        self._task = self.create_task(self.election.run())

    def time(self) -> float:
        return self._world.now * self._rate

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._world.at(when / self._rate, self.turn)
        return super().call_at(when, callback, *args, context=context)

    def turn(self) -> None:
        """Do what is due."""
        if self.stopped or self.is_closed():
            return
        for _ in range(_TURNS):
            self.call_soon(self.stop)
            self.run_forever()

    def leads(self) -> bool:
        events._set_running_loop(self)
        try:
            return not self.dead and self.election.leading
        finally:
            events._set_running_loop(None)

    def resume(self) -> None:
        """End all its troubles."""
        self.stopped = self.cut = self.deaf = False
        self.slow = 0.0
        late, self._late = self._late, []
        for deliver in late:
            deliver()
        self.turn()

    def kill(self) -> None:
        """By SIGKILL."""
        self.stopped = self.cut = self.dead = True

    def end(self) -> None:
        """By SIGTERM."""
        self._task.cancel()
        self.turn()

    @property
    def ended(self) -> bool:
        """As it was asked to, and with no other exception."""
        return self._task.cancelled()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._ask(self._world.server.get)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        return await self._ask(lambda: self._world.server.create(body), writes=True)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object
    ) -> Object:
        return await self._ask(lambda: self._world.server.replace(body), writes=True)

    async def _ask(self, act: Callable[[], Object], *, writes: bool = False) -> Object:
        """What was sent is on its way, whether or not somebody waits for the answer."""
        answer: asyncio.Future[Object] = self.create_future()
        self._world.at(self._arrival(), lambda: self._arrive(act, answer, writes))
        return await answer

    def _arrival(self) -> float:
        return self._world.now + self.slow + self._world.random.uniform(0.001, 0.02)

    def _arrive(
        self, act: Callable[[], Object], answer: asyncio.Future[Object], writes: bool
    ) -> None:
        if self.cut:
            return
        done: Object | ApiError
        try:
            done = act()
        except ApiError as error:
            done = error
        if self.deaf and writes:
            return
        self._world.at(self._arrival(), lambda: self._answered(done, answer))

    def _answered(self, done: Object | ApiError, answer: asyncio.Future[Object]) -> None:
        if self.stopped:
            self._late.append(lambda: self._answered(done, answer))
        elif not (self.cut or self.is_closed()):
            self.call_soon(self._settle, done, answer)
            self.turn()

    @staticmethod
    def _settle(done: Object | ApiError, answer: asyncio.Future[Object]) -> None:
        if answer.done():
            return
        if isinstance(done, ApiError):
            answer.set_exception(done)
        else:
            answer.set_result(done)

    def _changed(self) -> None:
        # Told in the machine's own loop, after it became so and before anything else.
        leads = self.election.leading
        assert leads != self.told, f"at {self._world.now}: {self.name} was told nothing new"
        self.told = leads
        self.flips.append(self._world.now)
