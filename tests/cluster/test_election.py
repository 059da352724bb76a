"""One leader among the replicas, whatever happens to them. At every moment of every test the world
sees to it that no two lead, and that each is told exactly when that changes (``machines.py``)."""

from __future__ import annotations

import math
import random
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.cluster.machines import LeaseServer, World, failure
from triggerhub.cluster.answers import ApiError

DURATION, RENEW = 10.0, 3.0


def one_leads(world: World, seconds: float = 2.0) -> str:
    world.run(seconds)
    (leader,) = world.leaders
    return leader


def test_one_of_many_leads_and_goes_on_to() -> None:
    with World() as world:
        machines = [world.machine(f"m{n}") for n in range(5)]
        leader = one_leads(world)
        world.run(600.0)
        assert world.leaders == [leader] == [world.server.holder]
        assert sum(len(machine.flips) for machine in machines) == 1
        assert world.server.lease is not None
        spec = world.server.lease["spec"]
        assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (10, 0)
        assert datetime.fromisoformat(spec["acquireTime"]) < datetime.fromisoformat(
            spec["renewTime"]
        )
        assert world.server.writes < 600 / (RENEW * 0.8) + 2


def test_a_clean_stop_hands_over_at_once() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        assert one_leads(world) == "first"
        first.end()
        assert not first.leads()
        assert world.run(20.0, second.leads) < RENEW / 3 * 1.2 + 0.2
        assert first.ended
        assert world.server.lease is not None
        assert world.server.lease["spec"]["leaseTransitions"] == 1


def test_a_clean_stop_while_a_renewal_is_under_way_hands_over_at_once() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        one_leads(world)
        first.slow = 0.3
        before = world.server.writes
        world.run(10.0, lambda: world.server.writes > before)  # applied, not yet answered
        first.end()
        assert world.run(20.0, second.leads) < RENEW


def test_a_stop_before_the_first_answer_hands_over_at_once() -> None:
    with World() as world:
        first = world.machine("first")
        first.slow = 0.5
        world.run(5.0, lambda: world.server.holder == "first")
        assert not first.leads()
        first.end()
        second = world.machine("second")
        assert world.run(20.0, second.leads) < RENEW


def test_a_stop_that_does_not_reach_the_server_ends_soon() -> None:
    with World() as world:
        first = world.machine("first")
        one_leads(world)
        first.cut = True
        first.end()
        assert world.run(20.0, lambda: first.ended) <= 2.01
        assert world.server.holder == "first"


def test_a_follower_that_stops_leaves_the_lease_alone() -> None:
    with World() as world:
        world.machine("first")
        one_leads(world)
        second = world.machine("second")
        world.run(5.0)
        before = world.server.writes
        second.end()
        world.run(0.5)
        assert second.ended
        assert world.server.writes - before <= 1  # the leader's own renewal
        assert world.leaders == ["first"]


def test_a_killed_leader_is_followed_when_its_lease_has_run_out() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        one_leads(world)
        world.run(random.uniform(0, 5))
        first.kill()
        took = world.run(60.0, second.leads)
        assert DURATION - RENEW < took < DURATION + RENEW


def test_a_leader_that_cannot_renew_stops_before_another_may_lead() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        one_leads(world)
        first.cut = True
        stopped = world.run(60.0, lambda: not first.leads())
        assert stopped <= DURATION * 2 / 3
        assert 0 < world.run(60.0, second.leads) < DURATION
        first.cut = False
        world.run(60.0)
        assert world.leaders == ["second"]


def test_one_lost_request_ends_no_office() -> None:
    with World() as world:
        first = world.machine("first")
        world.machine("second")
        one_leads(world)
        for _ in range(10):
            before = world.server.writes
            world.run(10.0, lambda: world.server.writes > before)  # noqa: B023 - asked within
            world.run(1.0)
            first.cut = True
            world.run(RENEW - 0.9)  # the next renewal is sent in this time
            first.cut = False
        world.run(20.0)
        assert len(first.flips) == 1


def test_nobody_leads_while_the_server_is_away_and_somebody_does_afterwards() -> None:
    with World() as world, capture_logs() as logs:
        machines = [world.machine(f"m{n}") for n in range(3)]
        one_leads(world)
        for machine in machines:
            machine.cut = True
        world.run(30.0)
        assert world.leaders == []
        for machine in machines:
            machine.cut = False
        assert world.run(60.0, lambda: bool(world.leaders)) < DURATION + RENEW
        world.run(5.0)
        said = [entry["event"] for entry in logs if entry["event"].startswith("election.")]
        assert said.count("election.failed") == said.count("election.recovered") == 3


def test_a_write_that_took_effect_but_was_never_answered_is_known_for_its_own() -> None:
    with World() as world:
        first = world.machine("first")
        first.deaf = True
        world.run(5.0)
        assert world.server.holder == "first"
        assert not first.leads()
        first.deaf = False
        assert world.run(20.0, first.leads) < 2 * RENEW
        first.deaf = True
        world.run(5.0)
        first.deaf = False
        world.run(20.0)
        assert first.leads()
        assert len(first.flips) in (1, 3)  # it need not have lost it


def test_a_stopped_leader_that_wakes_up_leads_no_more() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        one_leads(world)
        first.stopped = True
        assert world.run(60.0, second.leads) < DURATION + RENEW
        world.run(60.0)
        first.resume()
        assert world.leaders == ["second"]
        world.run(30.0)
        assert world.leaders == ["second"]
        assert len(first.flips) == 2


def test_one_stopped_while_it_asked_does_not_lead_on_an_old_answer() -> None:
    with World() as world:
        first = world.machine("first")
        world.run(5.0, lambda: world.server.holder == "first")
        first.stopped = True  # the answer is on its way
        second = world.machine("second")
        assert world.run(60.0, second.leads) < DURATION + RENEW
        first.resume()
        world.run(30.0)
        assert world.leaders == ["second"]
        assert first.flips == []


def test_a_deleted_lease_is_made_again_by_its_holder() -> None:
    with World() as world:
        for n in range(3):
            world.machine(f"m{n}")
        leader = one_leads(world, 20.0)
        world.server.lease = None
        world.run(30.0)
        assert world.leaders == [leader] == [world.server.holder]
        assert sum(len(machine.flips) for machine in world.machines) == 1


def test_a_deleted_lease_counts_as_long_as_it_would_have() -> None:
    with World() as world:
        first, second = world.machine("first"), world.machine("second")
        one_leads(world, 20.0)
        first.cut = True
        world.server.lease = None
        took = world.run(60.0, second.leads)
        assert DURATION - RENEW < took < DURATION + RENEW


def test_a_lease_that_somebody_annotates_is_still_renewed() -> None:
    with World() as world:
        first = world.machine("first")
        one_leads(world)
        for n in range(5):
            assert world.server.lease is not None
            metadata = world.server.lease["metadata"]
            metadata["annotations"] = {"n": str(n)}
            metadata["resourceVersion"] = f"x{n}"
            world.run(5.0)
            assert world.server.lease["metadata"]["annotations"] == {"n": str(n)}
        assert len(first.flips) == 1


@pytest.mark.parametrize("renewed", ["2020-01-31T12:00:00.000000Z", "2120-01-31T12:00:00.000000Z"])
def test_the_clock_of_another_machine_is_not_trusted(renewed: str) -> None:
    with World() as world:
        world.server.put("elsewhere", renewed)
        first = world.machine("first")
        took = world.run(60.0, first.leads)
        assert DURATION <= took < DURATION + RENEW


def test_a_holder_of_another_duration_is_given_its_own() -> None:
    with World() as world:
        world.server.put("elsewhere", "2020-01-31T12:00:00.000000Z", duration=25)
        first = world.machine("first")
        assert 25.0 <= world.run(60.0, first.leads) < 25.0 + RENEW


@pytest.mark.parametrize("spec", [{}, None, {"holderIdentity": None, "renewTime": "yesterday"}])
def test_a_lease_that_says_nothing_is_free(spec: object) -> None:
    with World() as world:
        world.server.put("", "")
        assert world.server.lease is not None
        world.server.lease["spec"] = spec
        first = world.machine("first")
        assert one_leads(world) == "first"
        assert first.election.since == math.inf


def test_without_a_predecessor_nothing_falls_due_before() -> None:
    with World() as world:
        first = world.machine("first")
        one_leads(world)
        assert first.election.since == math.inf


def test_what_falls_due_is_its_own_since_the_last_sign_of_life_of_whoever_led() -> None:
    with World() as world:
        world.server.put("elsewhere", "2026-01-31T12:00:00.000000Z")
        first = world.machine("first")
        world.run(60.0, first.leads)
        at = datetime.fromisoformat("2026-01-31T12:00:00Z").timestamp()
        assert first.election.since == at
        world.run(60.0)
        assert first.election.since == at
        assert world.server.lease is not None
        renewed = datetime.fromisoformat(world.server.lease["spec"]["renewTime"]).timestamp()
        second = world.machine("second")
        first.stopped = True
        world.run(60.0, second.leads)
        assert second.election.since == renewed


def test_one_that_leads_again_goes_on_where_it_stopped() -> None:
    with World() as world:
        first = world.machine("first")
        one_leads(world)
        assert world.server.lease is not None
        first.cut = True
        renewed = datetime.fromisoformat(world.server.lease["spec"]["renewTime"]).timestamp()
        world.run(30.0)
        assert not first.leads()
        first.cut = False
        world.run(30.0)
        assert first.leads()
        assert first.election.since == renewed


def test_a_predecessor_from_the_future_takes_nothing_away() -> None:
    with World() as world:
        world.server.put("elsewhere", "2120-01-31T12:00:00.000000Z")
        first = world.machine("first")
        world.run(60.0, first.leads)
        assert first.election.since <= time.time()


def test_a_trouble_is_said_once_and_its_end_too() -> None:
    with World() as world, capture_logs() as logs:
        world.machine("first")
        world.server.refuses = True
        world.run(60.0)
        world.server.refuses = False
        world.run(5.0)
        assert [entry["event"] for entry in logs] == ["election.failed", "election.recovered"]
        assert "500 InternalError" in logs[0]["error"]


def test_a_lease_that_may_not_be_written_is_no_reason_to_hurry() -> None:
    class Guarded(LeaseServer):
        asked = 0

        def create(self, body: object) -> dict[str, object]:
            self.asked += 1
            raise failure(403, "Forbidden")

    with World() as world, capture_logs() as logs:
        world.server = server = Guarded()
        world.machine("first")
        world.run(600.0)
        assert server.asked < 800
        assert [entry["event"] for entry in logs] == ["election.failed"]


TROUBLES = ("stop", "cut", "deaf", "slow", "kill", "refuse", "end")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 90.0),
            st.integers(0, 2),
            st.sampled_from(TROUBLES),
            st.floats(0.01, 25.0),
        ),
        max_size=14,
    ),
    st.lists(st.floats(0.92, 1.08), min_size=3, max_size=3),
    st.integers(0, 2**32),
)
def test_no_two_ever_lead_and_one_does_when_the_troubles_are_over(
    troubles: list[tuple[float, int, str, float]], rates: list[float], seed: int
) -> None:
    with World() as world:
        world.random = random.Random(seed)
        places = [world.machine(f"m{n}", rate) for n, rate in enumerate(rates)]
        number = iter(range(3, 100))

        def begin(place: int, trouble: str, seconds: float) -> None:
            machine = places[place]
            if trouble == "refuse":
                world.server.refuses = True
            elif trouble == "slow":
                machine.slow = seconds / 8
            elif trouble == "stop":
                machine.stopped = True
            elif trouble in ("kill", "end"):
                machine.resume()
                machine.kill() if trouble == "kill" else machine.end()
                places[place] = world.machine(f"m{next(number)}", rates[place])
            else:
                setattr(machine, trouble, True)

        def end(place: int, trouble: str) -> None:
            if trouble == "refuse":
                world.server.refuses = False
            else:
                places[place].resume()

        over = world.now
        for at, place, trouble, seconds in troubles:
            world.at(world.now + at, lambda p=place, t=trouble, s=seconds: begin(p, t, s))  # type: ignore[misc]
            world.at(world.now + at + seconds, lambda p=place, t=trouble: end(p, t))  # type: ignore[misc]
            over = max(over, world.now + at + seconds)
        world.run(over - world.now)
        # A follower that was cut off may see a dead leader's last write only now, and late.
        bound = (DURATION + 2.5 * RENEW) * 1.1
        assert world.run(bound, lambda: bool(world.leaders)) < bound
        leader = world.leaders
        world.run(60.0)
        assert world.leaders == leader


def test_the_world_sees_when_two_lead() -> None:
    """The one way: a newcomer does not know that the lease it does not find was just deleted."""
    with World() as world:
        first = world.machine("first")
        one_leads(world)
        first.cut = True
        world.server.lease = None
        world.machine("second")
        with pytest.raises(AssertionError, match="'first', 'second'"):
            world.run(5.0)
        first.kill()


def test_an_answer_of_any_kind_is_a_trouble_and_no_end() -> None:
    with World() as world, capture_logs() as logs:
        server = world.server
        statuses = iter((400, 401, 403, 410, 422, 429, 503))
        broken: list[ApiError] = [failure(status, str(status)) for status in statuses]

        class Strange(LeaseServer):
            def get(self) -> dict[str, object]:
                if broken:
                    raise broken.pop()
                return server.get()

        strange = Strange()
        world.server = strange
        first = world.machine("first")
        world.run(30.0)
        assert not broken
        world.server = server
        world.run(30.0)
        assert first.leads()
        assert {entry["event"] for entry in logs} == {"election.failed", "election.recovered"}
