"""Hubs on several machines share a store in NATS JetStream: as processes with data of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

from integration.function import ACCEPT, Function, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.nats_servers import Nats
from integration.room import Room
from integration.servers import eventually

SECONDLY = {"schedule": "* * * * * *"}


def url_of(nats: Nats) -> str:
    """A store that nobody else has."""
    return f"nats://{nats.server}?prefix=h{uuid4().hex[:8]}&deadLetters=64Mi&inbox=64Mi"


@contextmanager
def hubs(
    tmp_path: Path, url: str, *manifests: dict[str, Any], env: dict[str, str] | None = None
) -> Iterator[list[Hub]]:
    """Two, each with the same manifests and a data directory of its own."""
    with ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            hub = stack.enter_context(
                running(tmp_path / name, "--store", url, start=False, env=env)
            )
            hub.write("all.yaml", *manifests)
            hub.start()
            found.append(hub)
        yield found


def triggerhub(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    command = [sys.executable, "-m", "triggerhub", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def leads(hub: Hub) -> bool:
    return '"leader.elected"' in hub.said()


def slots(target: Function) -> list[float]:
    """The due times of the ticks that were accepted, each as often as it was."""
    return sorted(
        datetime.fromisoformat(call.id).timestamp()
        for call in target.accepted
        if call.headers["ce-type"] == "dev.triggerhub.cron.tick"
    )


def test_each_tick_comes_once_and_at_least_once_when_the_hub_that_ticks_is_killed(
    tmp_path: Path, nats: Nats
) -> None:
    held: list[float] = []

    def script(call: Any) -> Any:
        # The tick that is under way when the hub dies is answered by nobody.
        if held and datetime.fromisoformat(call.id).timestamp() > held[0]:
            return reply(503)
        return ACCEPT

    with (
        answering(script) as target,
        hubs(
            tmp_path,
            url_of(nats),
            function("handle", target.url),
            trigger("CronTrigger", "tick", "handle", SECONDLY),
        ) as (one, two),
    ):
        eventually(lambda: len(target.accepted) >= 4, "ticks of two hubs")
        assert max(Counter(slots(target)).values()) == 1
        leader, other = (one, two) if leads(one) else (two, one)
        assert not leads(other)
        held.append(time.time())
        eventually(lambda: any(call.status == 503 for call in target.calls), "a tick under way")
        leader.kill9()
        held.clear()
        killed = time.time()
        eventually(lambda: slots(target)[-1] > killed + 12, "ticks of the other hub")
        found = slots(target)
        assert leads(other)
        assert sorted(set(found)) == [found[0] + n for n in range(len(set(found)))]
        # Once it leads, nothing comes twice.
        assert max(Counter(each for each in found if each > killed + 11).values()) == 1
        assert other.stop() == 0


def test_a_hub_that_stops_hands_the_clock_over_and_nothing_comes_twice(
    tmp_path: Path, nats: Nats
) -> None:
    with (
        answering() as target,
        hubs(
            tmp_path,
            url_of(nats),
            function("handle", target.url),
            trigger("CronTrigger", "tick", "handle", SECONDLY),
        ) as (one, two),
    ):
        eventually(lambda: len(target.accepted) >= 2, "ticks of two hubs")
        leader = one if leads(one) else two
        assert leader.stop() == 0
        stopped = time.time()
        eventually(lambda: slots(target)[-1] > stopped + 3, "ticks of the other hub")
        found = slots(target)
        assert found == [found[0] + n for n in range(len(found))]


def test_replicas_in_a_cluster_share_the_store_and_their_lease_says_who_ticks(
    tmp_path: Path, nats: Nats, room: Room
) -> None:
    url = url_of(nats)
    with answering() as target, ExitStack() as stack:
        one, two = (
            stack.enter_context(
                running(
                    tmp_path / name, "--namespace", room.namespace, "--store", url,
                    kubeconfig=room.account, env={"POD_NAME": name},
                )
            )
            for name in ("one", "two")
        )  # fmt: skip
        room.apply(
            function("handle", target.url),
            trigger("CronTrigger", "tick", "handle", SECONDLY),
        )
        eventually(lambda: len(target.accepted) >= 4, "ticks of two replicas")
        assert max(Counter(slots(target)).values()) == 1
        leader, other = (one, two) if leads(one) else (two, one)
        leader.kill9()
        killed = time.time()

        def complete() -> bool:
            # Those that were due meanwhile come at once, in any order.
            found = sorted(set(slots(target)))
            return found[-1] > killed + 3 and found == [found[0] + n for n in range(len(found))]

        eventually(complete, "ticks of the other replica, and none left out")
        assert leads(other)


def test_dead_letters_are_those_of_all_hubs_and_are_read_while_all_are_down(
    tmp_path: Path, nats: Nats
) -> None:
    url = url_of(nats)
    healthy: list[bool] = []
    with answering(lambda call: ACCEPT if healthy else reply(400)) as target:
        with hubs(
            tmp_path,
            url,
            function("handle", target.url),
            trigger("CronTrigger", "never", "handle", {"schedule": "0 0 29 2 *"}),
        ) as (one, two):
            for hub in (one, two):
                assert hub.emit("default/never", data="{}")["outcome"] == "dead"
            for hub in (one, two):
                admin = ("--admin", hub.admin)
                listed = json.loads(triggerhub("dlq", "list", "-o", "json", *admin))
                assert len({letter["id"] for letter in listed}) == 2
            first = listed[0]["id"]
            event = listed[0]["event"]["id"]
            # Whoever delivered it: the journal is one, too.
            for hub in (one, two):
                hub.wait(
                    lambda hub=hub: "400" in triggerhub("why", event, "--admin", hub.admin),  # type: ignore[misc]
                    "the story of the event",
                )
            healthy.append(True)
            triggerhub("dlq", "redrive", first, "--admin", one.admin)
            assert [letter["id"] for letter in two.letters()] == [listed[1]["id"]]
            assert one.stop() == 0
            assert two.stop() == 0
        left = json.loads(triggerhub("dlq", "list", "--store", url, "-o", "json"))
        assert [letter["id"] for letter in left] == [listed[1]["id"]]
        shown = triggerhub("dlq", "show", listed[1]["id"], "--store", url)
        assert "Last answer   status 400" in shown


def post(hub: Hub, body: str, key: str) -> int:
    request = Request(
        f"http://{hub.listen}/in", body.encode(), {"Idempotency-Key": key}, method="POST"
    )
    with urlopen(request, timeout=30) as answer:
        status: int = answer.status
        return status


def test_requests_that_one_hub_took_are_delivered_by_another_when_it_is_killed(
    tmp_path: Path, nats: Nats
) -> None:
    healthy: list[bool] = []
    with (
        answering(lambda call: ACCEPT if healthy else reply(503)) as target,
        hubs(
            tmp_path,
            url_of(nats),
            function("handle", target.url),
            trigger(
                "HTTPTrigger", "in", "handle", {"path": "/in", "mode": "Async"},
                retry={"initial": "50ms", "max": "1s"},
            ),
        ) as (one, two),
    ):  # fmt: skip
        for number in range(20):
            assert post(one, f"{number}", f"key {number}") == 202
        # A sender that tries again comes to another hub.
        for number in range(5):
            assert post(two, f"{number}", f"key {number}") == 202
        eventually(lambda: bool(target.calls), "a delivery under way")
        one.kill9()
        healthy.append(True)
        for number in range(20, 25):
            assert post(two, f"{number}", f"key {number}") == 202
        eventually(lambda: len({c.body for c in target.accepted}) == 25, "all of them", within=90)
        assert len(target.accepted) == 25
        assert two.stop() == 0


def test_what_needs_no_store_goes_on_while_it_is_away_and_the_rest_comes_back_by_itself(
    tmp_path: Path, own_nats: Nats
) -> None:
    with (
        answering(lambda call: reply(400) if call.body == b"bad" else ACCEPT) as target,
        running(tmp_path, "--store", url_of(own_nats), start=False) as hub,
    ):
        hub.write(
            "all.yaml",
            function("handle", target.url),
            trigger("CronTrigger", "tick", "handle", SECONDLY),
            trigger("HTTPTrigger", "ask", "handle", {"path": "/ask"}),
        )
        own_nats.kill9()
        hub.start()
        hub.wait(lambda: hub.condition("ask") == "True Ready", "requests without a store")
        hub.wait(lambda: hub.condition("tick") == "False SourceFailed", "that the clock waits")
        status, said = hub.request("GET", "/readyz")
        assert (status, said.splitlines()[0]) == (200, b"ready")
        assert b"no NATS server answers" in said
        assert hub.metric("triggerhub_store_available") == 0
        assert "no NATS server answers" in hub.conditions("tick")["Ready"]["message"]
        assert hub.emit("default/ask", data="good")["outcome"] == "accepted"
        letter = hub.emit("default/ask", data="bad", timeout="1s")
        assert letter["outcome"] != "dead"
        hub.wait(
            lambda: hub.condition("ask") == "False DeadLetterUnavailable", "that the letter waits"
        )
        own_nats.start()
        hub.wait(lambda: hub.condition("tick") == "True Ready", "the clock", within=60)
        hub.wait(lambda: len(hub.letters()) == 1, "the letter", within=60)
        assert hub.request("GET", "/readyz") == (200, b"ready\n")
        assert hub.metric("triggerhub_store_available") == 1
        ticks = len(slots(target))
        hub.wait(lambda: len(slots(target)) > ticks + 2, "ticks", within=60)
        own_nats.kill9()
        hub.wait(
            lambda: hub.condition("tick") == "False SourceFailed", "that it is away", within=60
        )
        own_nats.start()
        hub.wait(lambda: hub.condition("tick") == "True Ready", "the clock", within=60)
        assert len(hub.letters()) == 1
        ticks = len(slots(target))
        hub.wait(lambda: len(slots(target)) > ticks + 2, "ticks", within=60)
        # Said once each time, though many a tick and the election asked.
        assert hub.said().count('"store.unavailable"') == 2
        assert hub.said().count('"store.available"') == 2
        assert hub.stop() == 0


def test_a_login_of_the_store_is_in_the_environment_and_nowhere_else(
    tmp_path: Path, own_nats: Nats
) -> None:
    own_nats.stop()
    own_nats.configure('authorization { user: "hub", password: "pa55-word" }')
    own_nats.start()
    url = url_of(own_nats)
    password = tmp_path / "password"
    password.write_text("wrong-one\n")
    env = {"TRIGGERHUB_STORE": url, "TRIGGERHUB_STORE_USER": "hub",
           "TRIGGERHUB_STORE_PASSWORD_FILE": str(password)}  # fmt: skip
    with (
        answering(lambda call: reply(400)) as target,
        running(tmp_path / "hub", start=False, env=env) as hub,
    ):
        hub.write(
            "all.yaml",
            function("handle", target.url),
            trigger("HTTPTrigger", "ask", "handle", {"path": "/ask"}),
        )
        hub.start(ready=False)
        hub.wait(lambda: "refuses the login" in hub.said(), "the refusal")
        hub.wait(lambda: hub.condition("ask") == "True Ready", "requests")
        # A rollout with it ends here, and replaces no hub that works.
        status, said = hub.request("GET", "/readyz")
        assert status == 503
        assert b"refuses the login" in said
        password.write_text("pa55-word\n")
        hub.wait(
            lambda: hub.emit("default/ask", data="x", timeout="1s")["outcome"] == "dead",
            "a dead letter with the new password",
        )
        assert hub.ready()
        assert "pa55-word" not in hub.said()
        assert b"pa55-word" not in Path(f"/proc/{hub.pid}/cmdline").read_bytes()
        refused = subprocess.run(
            [sys.executable, "-m", "triggerhub", "run", "-f", str(tmp_path), "--data",
             str(tmp_path / "other"), "--store", f"nats://hub:pa55-word@{own_nats.server}"],
            capture_output=True, text=True, timeout=60, check=False, env=os.environ | env,
        )  # fmt: skip
        assert refused.returncode == 1
        assert "TRIGGERHUB_STORE_PASSWORD" in refused.stderr
        assert "pa55-word" not in refused.stderr
