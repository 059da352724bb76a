"""Dead letters and answers in streams of a real nats-server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.function import ACCEPT, Answer, Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.nats_flow import Flow
from integration.nats_servers import Nats

RETRY = {"initial": "10ms", "max": "200ms"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server of the test's own, started, that it may kill; it takes small messages."""
    with Nats(tmp_path_factory.mktemp("nats"), "max_payload: 100000").started() as server:
        yield server


def refuse(call: Call) -> Answer:
    return reply(422, "no such customer é".encode())


def command(hub: Hub, *arguments: str, code: int = 0) -> str:
    """What a ``triggerhub`` command of a user prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", *arguments, "--admin", hub.admin],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


def made(nats: Nats, name: str, *subjects: str, **config: Any) -> str:
    asyncio.run(tools.create_stream(nats.server, name, *(subjects or (f"{name}.>",)), **config))
    return name


def message(hub: Hub) -> str:
    said: str = hub.conditions("orders")["Ready"]["message"]
    return said


def test_a_dead_letter_is_the_message_that_died_with_the_evidence_behind_its_headers(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats)
    dead = made(nats, f"dead{flow.name}")
    raw = b"NATS/1.0\r\nX-Kind: gr\xc3\xb6\xc3\x9fe\r\nX-Kind: \xff\r\nNats-Msg-Id: o-7\r\n\r\n"
    data = bytes(range(256))
    asyncio.run(tools.publish_raw(nats.server, f"{flow.name}.a", raw, data))
    whole = json.dumps({"specversion": "1.0", "id": "c1", "source": "/s", "type": "t", "data": 1})
    headers = {"content-type": "application/cloudevents+json"}
    asyncio.run(tools.publish(nats.server, f"{flow.name}.b", whole.encode(), headers=headers))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", deadLetter={"subject": f"{dead}.x"}, retry=RETRY))
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 2, "dead letters")
        hub.wait(lambda: flow.unsettled() == 0, "their end")
        emitted = hub.emit("orders", data="tested")
        listed = {letter["event"]["id"]: letter for letter in hub.letters()}
        assert emitted["outcome"] == "dead", emitted

        first, second, third = asyncio.run(tools.messages(nats.server, dead))
        letter = listed["1"]
        assert first.data == data
        pairs = [(name, value) for name, value in first.pairs if not name.endswith("-time")]
        assert pairs[1:4] == [
            ("X-Kind", "größe".encode()), ("X-Kind", b"\xff"),
            ("triggerhub-header-Nats-Msg-Id", b"o-7"),
        ]  # fmt: skip
        times = [value for name, value in first.pairs if name.endswith("-time")]
        assert len(times) == 3
        identity = dict(first.pairs)["Nats-Msg-Id"].decode()
        assert identity.startswith("default.orders.f/letter:")
        assert identity.endswith(f":/nats/{flow.name}/1")
        assert [(name, value.decode()) for name, value in pairs[4:]] == [
            ("triggerhub-dead-letter", letter["id"]),
            ("triggerhub-reason", "Rejected"),
            ("triggerhub-detail", "status 422: no such customer é"),
            ("triggerhub-trigger", "default/orders"),
            ("triggerhub-function", "f"),
            ("triggerhub-last-status", "422"),
            ("triggerhub-attempts", "1"),
            ("triggerhub-event-id", "1"),
            ("triggerhub-event-source", f"/nats/{flow.name}"),
            ("triggerhub-source-subject", f"{flow.name}.a"),
            ("triggerhub-source-stream", flow.name),
            ("triggerhub-source-sequence", "1"),
            ("triggerhub-source-delivered", "1"),
        ]
        assert letter["elsewhere"] == {
            "kind": "NATSTrigger",
            "coordinates": {"subject": f"{dead}.x", "stream": dead, "sequence": "1"},
        }
        # The whole, not only what was the event's data.
        assert second.data == whole.encode()
        assert (third.data, dict(third.pairs)["ce-type"]) == (b"tested", b"dev.triggerhub.emit")

        (tested,) = (one for one in hub.letters() if one["event"]["source"].endswith("orders"))
        target.script = lambda call: ACCEPT
        said = command(hub, "dlq", "redrive", "--all")
        assert "3 accepted" in said
    assert {call.id: call.body for call in target.accepted} == {
        "1": data, "c1": b"1", tested["event"]["id"]: b"tested",
    }  # fmt: skip


def test_dlq_commands_work_on_letters_that_lie_in_a_stream(nats: Nats, tmp_path: Path) -> None:
    flow = Flow(nats, keys=1)
    dead = made(nats, f"dead{flow.name}")
    flow.send(3)
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", deadLetter={"subject": f"{dead}.x"}, retry=RETRY))
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 3, "dead letters")
        first, second, third = (letter["id"] for letter in hub.letters())
        shown = command(hub, "dlq", "show", first)
        assert "k0:0" in shown
        assert f"subject {dead}.x, stream {dead}, sequence 1" in shown
        letter = hub.get(f"/v1/dead-letters/{first}")
        assert b64decode(letter["event"]["data_base64"]) == b"k0:0"
        assert letter["origin"]["coordinates"]["stream"] == flow.name
        assert {h["name"] for h in letter["origin"]["headers"]} == {"Nats-Msg-Id"}

        said = command(hub, "dlq", "redrive", first, code=1)
        assert f"{first}  dead" in said
        hub.wait(lambda: first not in {one["id"] for one in hub.letters()}, "its fresh evidence")
        again = hub.letters()[-1]
        # Within the stream's window for duplicates it is the same message.
        assert again["elsewhere"]["coordinates"]["sequence"] == "1"
        asyncio.run(tools.delete_message(nats.server, dead, 1))
        shown = command(hub, "dlq", "show", again["id"])
        assert f"stream {dead} sequence 1: it is there no more" in shown
        said = command(hub, "dlq", "redrive", again["id"], code=1)
        assert f"{again['id']}  kept: stream {dead} sequence 1: it is there no more" in said

        said = command(hub, "dlq", "redrive", second, code=1)
        asyncio.run(tools.delete_message(nats.server, dead, 2))
        again = hub.letters()[-1]
        target.script = lambda call: ACCEPT
        said = command(hub, "dlq", "redrive", third)
        assert "1 accepted" in said
        assert [(call.id, call.body) for call in target.accepted] == [("3", b"k0:2")]
        said = command(hub, "dlq", "purge", "--all", "--yes")
        assert "only from the hub's list" in said
        assert hub.letters() == []


def test_a_letter_that_a_stream_had_once_and_lost_is_written_again(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats, keys=1)
    dead = made(nats, f"dead{flow.name}")
    flow.send(1)
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", deadLetter={"subject": f"{dead}.x"}, retry=RETRY))
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 1, "the dead letter")
        (before,) = hub.letters()
        target.script = lambda call: reply(422, after=0.5)
        redrive = subprocess.Popen(
            [sys.executable, "-m", "triggerhub", "dlq", "redrive", before["id"],
             "--admin", hub.admin], stdout=subprocess.DEVNULL,
        )  # fmt: skip
        hub.wait(lambda: target.under_way == 1, "its attempt")
        asyncio.run(tools.delete_message(nats.server, dead, 1))
        redrive.wait(30)
        hub.wait(lambda: [one["id"] for one in hub.letters()] != [before["id"]], "the next one")
        (after,) = hub.letters()
        assert after["elsewhere"]["coordinates"]["sequence"] == "2"
        assert [m.data for m in asyncio.run(tools.messages(nats.server, dead))] == [b"k0:0"]


def test_what_keeps_a_letter_from_its_stream_is_told_and_its_event_waits(
    broken: Nats, tmp_path: Path
) -> None:
    flow = Flow(broken, keys=2)
    dead = f"dead{flow.name}"
    flow.send(4)
    large = b"x" * (100_000 - 100)
    asyncio.run(tools.publish(broken.server, f"{flow.name}.large", large))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        source = {"subject": f"{dead}.x"}
        hub.write("t.yaml", flow.trigger("f", deadLetter=source, retry=RETRY))
        hub.start()

        def says(text: str) -> None:
            hub.wait(
                lambda: hub.condition("orders") == "False DeadLetterUnavailable"
                and text in message(hub), text,
            )  # fmt: skip

        says(f"no stream takes subject {dead}.x: create one")
        assert flow.unsettled() == 5
        # The subject of the trigger's own stream, which it reads whole.
        asyncio.run(
            tools.configure(broken.server, flow.name, subjects=[f"{flow.name}.>", f"{dead}.x"])
        )
        says(f"subject {dead}.x lies in stream {flow.name}, which the trigger itself reads")
        asyncio.run(tools.configure(broken.server, flow.name, subjects=[f"{flow.name}.>"]))
        made(broken, dead, max_msgs=2, discard="new")
        says(f"stream {dead} refuses subject {dead}.x: maximum messages exceeded")
        assert flow.unsettled() == 3
        asyncio.run(tools.configure(broken.server, dead, max_msgs=10))
        says(f"{dead}.x: the message has 100")
        hub.wait(lambda: flow.unsettled() == 1, "the others")
        asyncio.run(tools.delete_stream(broken.server, dead))
        flow.send(1)
        says(f"no stream takes subject {dead}.x: create one")
        made(broken, dead)
        hub.wait(lambda: flow.unsettled() == 1, "the last one")
        broken.kill9()
        broken.configure("max_payload: 200000")
        broken.start()
        hub.wait(lambda: flow.unsettled() == 0, "the large one", 60)
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        found = asyncio.run(tools.messages(broken.server, dead))
        assert [m.data for m in found if m.data == large] == [large]
        assert len(target.calls) == 6


def test_a_server_that_goes_away_holds_letters_up_and_gets_each_once(
    broken: Nats, tmp_path: Path
) -> None:
    flow = Flow(broken, keys=8)
    dead = made(broken, f"dead{flow.name}")
    flow.send(8)
    with (
        answering(lambda call: reply(422, after=1.0)) as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", deadLetter={"subject": f"{dead}.x"}, retry=RETRY))
        hub.start()
        hub.wait(lambda: target.under_way == 8, "deliveries")
        broken.kill9()
        hub.wait(lambda: hub.condition("orders").startswith("False"), "a condition")
        hub.wait(lambda: target.under_way == 0, "their end")
        broken.start()
        hub.wait(lambda: flow.unsettled() == 0, "their end", 60)
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        assert len(target.calls) == 8
    found = asyncio.run(tools.messages(broken.server, dead))
    assert sorted(m.data for m in found) == sorted(flow.sent)


def test_a_hub_that_is_killed_while_it_lays_letters_down_leaves_each_once(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats, ack_wait=2)
    dead = made(nats, f"dead{flow.name}")
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        letters = {"deadLetter": {"subject": f"{dead}.x"}}
        hub.write("t.yaml", flow.trigger("f", inFlight=16, **letters))
        hub.start()
        with flow.flowing(per_second=100):
            for _ in range(2):
                seen = len(target.calls)
                hub.wait(lambda seen=seen: len(target.calls) > seen + 60, "flow")  # type: ignore[misc]
                hub.kill9()
                hub.start(ready=False)
        hub.wait(lambda: flow.unsettled() == 0, "the last one", 60)
        listed = json.loads(command(hub, "dlq", "list", "--limit", "100000", "-o", "json"))
        assert hub.stop() == 0
    found = asyncio.run(tools.messages(nats.server, dead))
    assert sorted(m.data for m in found) == sorted(flow.sent)
    assert len({letter["event"]["id"] for letter in listed}) == len(flow.sent)
    print(f"{len(flow.sent)} events, {len(target.calls)} attempts, {len(found)} letters")


def test_a_core_subjects_letters_lie_in_a_stream_too(nats: Nats, tmp_path: Path) -> None:
    flow = Flow(nats, core=True)
    dead = made(nats, f"dead{flow.name}")
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", deadLetter={"subject": f"{dead}.x"}))
        hub.start()
        flow.send(3)
        hub.wait(lambda: len(hub.letters()) == 3, "dead letters")
        target.script = lambda call: ACCEPT
        ids = {letter["event"]["id"] for letter in hub.letters()}
        assert "3 accepted" in command(hub, "dlq", "redrive", "--all")
        assert flow.arrived(target)
        assert {call.id for call in target.accepted} == ids


@pytest.mark.parametrize(
    ("place", "field", "subjects"),
    [("deadLetter", "spec.delivery.deadLetter", ["x", "a.*.c"]), ("reply", "spec.source", [">"])],
)
def test_a_loop_into_the_same_trigger_is_refused(
    tmp_path: Path, place: str, field: str, subjects: list[str]
) -> None:
    source: dict[str, Any] = {"subjects": subjects}
    delivery = {}
    if place == "reply":
        source["reply"] = {"subject": "a.b.c"}
    else:
        delivery = {"deadLetter": {"subject": "a.b.c"}}
    (tmp_path / "t.yaml").write_text(
        json.dumps(trigger("NATSTrigger", "orders", "f", source, **delivery))
    )
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", "validate", "-f", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    said = ran.stdout + ran.stderr
    assert f"{field}: found a.b.c" in said
    assert "expected a subject that the trigger itself does not read" in said


def test_answers_become_messages_that_a_stream_confirmed(nats: Nats, tmp_path: Path) -> None:
    flow = Flow(nats)
    answers = made(nats, f"answers{flow.name}")

    def script(call: Call) -> Answer:
        if call.body.endswith(b":3"):
            return reply(204)
        kind = [("content-type", "text/x-answer"), ("ce-id", "a%C3%A9"), ("x-other", "no")]
        return reply(200, b"re " + call.body, headers=kind)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", {"reply": {"subject": f"{answers}.x"}}))
        hub.start()
        trace = {"traceparent": TRACE}
        asyncio.run(tools.publish(nats.server, f"{flow.name}.t", b"traced", headers=trace))
        flow.send(40)
        hub.wait(lambda: flow.arrived(target), "delivery of every message")
        hub.wait(lambda: flow.unsettled() == 0, "their end")
    found = asyncio.run(tools.messages(nats.server, answers))
    wanted = {b"re " + value for value in flow.sent if not value.endswith(b":3")}
    assert {m.data for m in found} == wanted | {b"re traced"}
    (traced,) = (m for m in found if m.data == b"re traced")
    assert dict(traced.pairs) == {
        "content-type": b"text/x-answer",
        "ce-id": b"a%C3%A9",
        "traceparent": TRACE.encode(),
        "triggerhub-correlation-id": f"/nats/{flow.name}/1".encode(),
        "Nats-Msg-Id": f"default.orders.f/reply:/nats/{flow.name}/1".encode(),
    }
    for key in range(8):
        own = [m.data for m in found if m.data.startswith(b"re k%d:" % key)]
        assert own == sorted(own, key=lambda value: int(value.partition(b":")[2]))


def test_answers_to_a_subject_without_a_stream_reach_who_listens_and_to_a_stream_never_less(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats)
    to = f"answers{flow.name}"

    async def heard() -> list[bytes]:
        async with tools.connected(nats.server) as client:
            listening = await client.subscribe(f"{to}.x")
            await client.flush()
            await asyncio.to_thread(flow.send, 3)
            return sorted([(await listening.next_msg(20)).data for _ in range(3)])

    with (
        answering(lambda call: reply(200, call.body)) as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", {"reply": {"subject": f"{to}.x"}}, retry=RETRY))
        hub.start()
        assert asyncio.run(heard()) == sorted(flow.sent)
        hub.wait(lambda: flow.unsettled() == 0, "their end")
        made(nats, to)
        told = partial(hub.condition, "orders")

        since = time.monotonic()

        def noticed() -> bool:
            flow.send(1)  # it looks again with an answer, after 2 s
            return time.monotonic() > since + 3

        hub.wait(noticed, "the end of a while")
        hub.wait(lambda: flow.unsettled() == 0, "their end")
        assert asyncio.run(tools.messages(nats.server, to))
        asyncio.run(tools.delete_stream(nats.server, to))
        flow.send(1)
        hub.wait(lambda: told() == "False ReplyRefused", "a word")
        assert f"no stream takes subject {to}.x" in message(hub)
        assert flow.unsettled() == 1
        made(nats, to)
        hub.wait(lambda: flow.unsettled() == 0, "its end")
        assert [m.data for m in asyncio.run(tools.messages(nats.server, to))] == flow.sent[-1:]
