"""Dead letters and answers in topics of a real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64decode
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from integration import kafka_tools as tools
from integration.function import ACCEPT, Answer, Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.servers import Kafka
from integration.streams import Stream, arrived

RETRY = {"initial": "10ms", "max": "200ms"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def dead(kafka: Kafka) -> str:
    """A topic for dead letters."""
    return made(kafka.broker, "dead")


def made(broker: str, name: str, partitions: int = 1) -> str:
    topic = f"{name}-{uuid4().hex[:8]}"
    asyncio.run(tools.create_topic(broker, topic, partitions))
    return topic


def kafka_trigger(stream: Stream, to: str | None = None, **delivery: Any) -> dict[str, Any]:
    """One whose dead letters go to that topic."""
    source: dict[str, Any] = {
        "topic": stream.topic,
        "brokers": [stream.broker],
        "startFrom": "Earliest",
        "group": f"{stream.topic}.orders",
    }
    if "reply" in delivery:
        source["reply"] = {"topic": delivery.pop("reply")}
    letters = {} if to is None else {"deadLetter": {"topic": to}}
    return trigger("KafkaTrigger", "orders", "f", source, **letters, **delivery)


def command(hub: Hub, *arguments: str, code: int = 0) -> str:
    """What a ``triggerhub`` command of a user prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


def headers(record: Any) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers}


def refuse(call: Call) -> Answer:
    return reply(422, "no such customer é".encode())


def test_a_dead_letter_is_the_record_that_died_with_the_evidence_behind_its_headers(
    kafka: Kafka, dead: str, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    own = [("trace", b"\xff\x00"), ("trace", b"again"), ("empty", None)]
    put = partial(tools.produce, kafka.broker, stream.topic)
    asyncio.run(put([b"\x00\xffraw"], key=b"\xfe", headers=own, timestamp_ms=1_700_000_000_123))
    asyncio.run(put([None], key=b"tombstone", timestamp_ms=1_700_000_000_456))
    asyncio.run(put([b"x" * 200_000], key=None))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead, order="Partition"))
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 3, "dead letters")
        hub.wait(lambda: stream.committed("orders") == {0: 3}, "their commit")
        listed = hub.letters()
        found = asyncio.run(tools.records(kafka.broker, dead, 3))
        counted = partial(hub.metric, "triggerhub_dead_letters", trigger="orders")
        hub.wait(lambda: counted() == 3, "the metric")

    assert [(r.key, r.value) for r in found] == [
        (b"\xfe", b"\x00\xffraw"), (b"tombstone", None), (None, b"x" * 200_000),
    ]  # fmt: skip
    assert [r.timestamp for r in found[:2]] == [1_700_000_000_123, 1_700_000_000_456]
    first = found[0]
    assert first.headers[:3] == tuple(own)
    (letter,) = [one for one in listed if one["event"]["id"] == "0:0"]
    evidence = headers(first)
    times = {name: evidence.pop(f"triggerhub-{name}-time") for name in ("first", "last")}
    assert all(text.endswith("+00:00") for text in times.values())
    assert {name: text for name, text in evidence.items() if name.startswith("triggerhub-")} == {
        "triggerhub-dead-letter": letter["id"],
        "triggerhub-reason": "Rejected",
        "triggerhub-detail": "status 422: no such customer é",
        "triggerhub-trigger": "default/orders",
        "triggerhub-function": "f",
        "triggerhub-last-status": "422",
        "triggerhub-attempts": "1",
        "triggerhub-event-id": "0:0",
        "triggerhub-event-source": f"/kafka/{stream.topic}",
        "triggerhub-source-topic": stream.topic,
        "triggerhub-source-partition": "0",
        "triggerhub-source-offset": "0",
        "triggerhub-source-timestamp": "1700000000123",
    }
    assert letter["elsewhere"] == {
        "kind": "KafkaTrigger",
        "coordinates": {"topic": dead, "partition": "0", "offset": str(first.offset)},
    }


def test_dlq_commands_work_on_letters_that_lie_in_a_topic(
    kafka: Kafka, dead: str, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    own = [("h", b"\xff"), ("content-type", b"text/plain")]
    put = partial(tools.produce, kafka.broker, stream.topic, headers=own)
    asyncio.run(put([b"zero", b"one", b"two", b"three"], key=b"k"))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead))
        hub.start()
        hub.wait(lambda: stream.committed("orders") == {0: 4}, "commit")
        first, second, third, fourth = (letter["id"] for letter in hub.letters())
        hub.kill9()
        offline = json.loads(command(hub, "dlq", "list", "--data", str(hub.data), "-o", "json"))
        assert [one["id"] for one in offline] == [first, second, third, fourth]
        shown = command(hub, "dlq", "show", first, "--data", str(hub.data))
        assert f"topic {dead}, partition 0, offset 0" in shown
        assert "4 bytes, not shown: only a running hub reads it from there" in shown

        hub.start()
        shown = command(hub, "dlq", "show", first, "--admin", hub.admin)
        assert "zero" in shown
        letter = hub.get(f"/v1/dead-letters/{first}")
        assert b64decode(letter["event"]["data_base64"]) == b"zero"
        assert b64decode(letter["origin"]["key_base64"]) == b"k"
        assert [h["name"] for h in letter["origin"]["headers"]] == ["h", "content-type"]
        assert letter["origin"]["coordinates"]["topic"] == stream.topic
        assert letter["event"]["datacontenttype"] == "text/plain"

        said = command(hub, "dlq", "redrive", first, "--admin", hub.admin, code=1)
        assert f"{first}  dead" in said
        hub.wait(lambda: first not in {one["id"] for one in hub.letters()}, "its fresh evidence")
        again = hub.letters()[-1]
        assert again["elsewhere"]["coordinates"]["offset"] == "4"
        assert again["origin"]["coordinates"]["offset"] == "0"
        target.script = lambda call: ACCEPT
        said = command(hub, "dlq", "redrive", second, again["id"], "--admin", hub.admin)
        assert "2 accepted" in said
        bodies = [(call.id, call.body) for call in target.accepted]
        assert sorted(bodies) == [("0:0", b"zero"), ("0:1", b"one")]
        assert {one["id"] for one in hub.letters()} == {third, fourth}

        asyncio.run(tools.delete_records(kafka.broker, dead, 0, before=3))
        said = command(hub, "dlq", "redrive", third, "--admin", hub.admin, code=1)
        assert f"{third}  kept: topic {dead} partition 0 offset 2: it is there no more" in said
        assert "there no more" in command(hub, "dlq", "show", third, "--admin", hub.admin)

        said = command(hub, "dlq", "purge", "--all", "--yes", "--admin", hub.admin)
        assert "2 dead letters deleted" in said
        assert "2 of them only from the hub's list" in said
        assert hub.letters() == []
        assert len(asyncio.run(tools.records(kafka.broker, dead, 2))) == 2


def test_a_topic_that_is_not_there_is_not_created_and_its_letters_wait_for_it(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=4, partitions=1)
    dead = f"dead-{uuid4().hex[:8]}"
    stream.send(8)
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead, retry=RETRY))
        hub.start()
        hub.wait(lambda: hub.condition("orders") == "False DeadLetterUnavailable", "condition")
        message = hub.conditions("orders")["Ready"]["message"]
        assert f"topic {dead} does not exist on {kafka.broker}: create it" in message
        assert dead not in asyncio.run(tools.topics(kafka.broker))
        assert stream.committed("orders") == {0: 0}
        asyncio.run(tools.create_topic(kafka.broker, dead))
        hub.wait(lambda: stream.committed("orders") == {0: 8}, "commit")
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        assert len(target.calls) == 8
    found = asyncio.run(tools.records(kafka.broker, dead, 9, within=3))
    assert sorted(r.value for r in found) == sorted(stream.sent.values())


def test_a_record_that_the_topic_finds_too_large_waits_until_it_is_not(
    kafka: Kafka, dead: str, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    asyncio.run(tools.configure(kafka.broker, dead, max_message_bytes="20000"))
    asyncio.run(tools.produce(kafka.broker, stream.topic, [b"x" * 50_000], key=b"large"))
    asyncio.run(tools.produce(kafka.broker, stream.topic, [b"s"] * 3, key=b"small"))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead, retry=RETRY))
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 3, "the others")
        assert hub.condition("orders") == "False DeadLetterUnavailable"
        message = hub.conditions("orders")["Ready"]["message"]
        assert "raise its max.message.bytes" in message
        assert stream.committed("orders") == {0: 0}
        asyncio.run(tools.configure(kafka.broker, dead, max_message_bytes="1000000"))
        hub.wait(lambda: stream.committed("orders") == {0: 4}, "commit")
    found = asyncio.run(tools.records(kafka.broker, dead, 4))
    assert sorted(len(r.value) for r in found) == [1, 1, 1, 50_000]


def test_a_hub_that_is_killed_while_it_lays_letters_down_loses_none(
    kafka: Kafka, dead: str, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker)
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead, inFlight=16))
        hub.start()
        with stream.flowing(per_second=60):
            for _ in range(2):
                seen = len(target.calls)
                hub.wait(lambda seen=seen: len(target.calls) > seen + 100, "flow")  # type: ignore[misc]
                hub.kill9()
                hub.start(ready=False)
        hub.wait(lambda: sum(stream.committed("orders").values()) == len(stream.sent), "commit", 90)
        shown = command(hub, "dlq", "list", "--limit", "100000", "--admin", hub.admin, "-o", "json")
        listed = json.loads(shown)
        assert hub.stop() == 0
    found = asyncio.run(tools.records(kafka.broker, dead, 100_000, within=5))
    assert {headers(r)["triggerhub-event-id"] for r in found} == set(stream.sent)
    assert {letter["event"]["id"] for letter in listed} == set(stream.sent)
    # Each entry is of one record; records without one are of deliveries that a kill cut short.
    places = {json.dumps(letter["elsewhere"]["coordinates"]) for letter in listed}
    assert len(places) == len(listed) <= len(found)
    print(f"{len(stream.sent)} events, {len(found)} records, {len(listed)} entries")


def test_a_broker_that_goes_away_holds_letters_up_and_gets_each_once(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(own_kafka.broker, keys=8, partitions=1)
    dead = made(own_kafka.broker, "dead")
    stream.send(8)
    slow = reply(422, after=2.0)
    with answering(lambda call: slow) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, dead, retry=RETRY))
        hub.start()
        hub.wait(lambda: target.under_way == 8, "deliveries")
        own_kafka.kill9()
        problem = partial(hub.condition, "orders")
        hub.wait(lambda: problem().startswith("False"), "a condition")
        own_kafka.start()
        hub.wait(lambda: stream.committed("orders") == {0: 8}, "commit", 90)
        hub.wait(lambda: problem() == "True Ready", "readiness", 60)
    found = asyncio.run(tools.records(own_kafka.broker, dead, 9, within=3))
    assert {r.value for r in found} == set(stream.sent.values())
    assert len(found) <= 16
    print(f"8 events, {len(found)} records, {len(target.calls)} attempts")


@pytest.mark.parametrize(
    ("place", "field"),
    [({"deadLetter": "topic"}, "spec.delivery.deadLetter"), ({"reply": "topic"}, "spec.source")],
)
def test_a_loop_into_the_same_trigger_is_refused(
    tmp_path: Path, place: dict[str, str], field: str
) -> None:
    source: dict[str, Any] = {"topics": ["a", "orders"]}
    delivery = {}
    if "reply" in place:
        source["reply"] = {"topic": "orders"}
    else:
        delivery = {"deadLetter": {"topic": "orders"}}
    manifest = trigger("KafkaTrigger", "orders", "f", source, **delivery)
    (tmp_path / "t.yaml").write_text(json.dumps(manifest))
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", "validate", "-f", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    said = ran.stdout + ran.stderr
    assert f"{field}: found orders" in said
    assert "expected a topic that the trigger itself does not read" in said


def test_answers_become_records_in_the_order_of_their_keys(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker)
    answers = made(kafka.broker, "answers", partitions=2)

    def script(call: Call) -> Answer:
        if call.body.endswith(b":3"):
            return reply(204)
        kind = [("content-type", "text/x-answer")]
        return reply(200, b"re " + call.body, after=len(call.body) % 3 / 100, headers=kind)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, reply=answers, inFlight=16))
        hub.start()
        stream.send(400)
        hub.wait(lambda: arrived(target, stream), "delivery of every record")
        hub.wait(lambda: sum(stream.committed("orders").values()) == 400, "commit")
    found = asyncio.run(tools.records(kafka.broker, answers, 393, within=5))
    wanted = {value: event for event, value in stream.sent.items() if not value.endswith(b":3")}
    assert len(found) == len(wanted)
    by_key: defaultdict[bytes, list[int]] = defaultdict(list)
    for record in found:
        value = record.value.removeprefix(b"re ")
        assert record.key == value.partition(b":")[0]
        assert headers(record) == {
            "content-type": "text/x-answer",
            "triggerhub-correlation-id": f"/kafka/{stream.topic}/{wanted[value]}",
        }
        by_key[record.key].append(int(value.partition(b":")[2]))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def test_an_answer_that_is_a_cloudevent_stays_one_and_keeps_the_trace(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    answers = made(kafka.broker, "answers")
    fields = [
        ("ce-specversion", "1.0"), ("ce-id", "r1"), ("ce-source", "/f"), ("ce-type", "done"),
        ("ce-subject", "%C3%A9"), ("content-type", "application/json"),
    ]  # fmt: skip
    asyncio.run(tools.produce(
        kafka.broker, stream.topic, [b"x"], key=None, headers=[("traceparent", TRACE.encode())]
    ))  # fmt: skip
    answer = reply(202, b"{}", headers=fields)
    with answering(lambda call: answer) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, reply=answers))
        hub.start()
        hub.wait(lambda: stream.committed("orders") == {0: 1}, "commit")
    (record,) = asyncio.run(tools.records(kafka.broker, answers, 1))
    assert (record.key, record.value) == (None, b"{}")
    assert headers(record) == {
        "ce_specversion": "1.0", "ce_id": "r1", "ce_source": "/f", "ce_type": "done",
        "ce_subject": "é", "content-type": "application/json", "traceparent": TRACE,
        "triggerhub-correlation-id": f"/kafka/{stream.topic}/0:0",
    }  # fmt: skip


def test_an_answer_that_is_refused_is_told_tried_again_and_holds_up_its_key(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    answers = made(kafka.broker, "answers")
    asyncio.run(tools.configure(kafka.broker, answers, max_message_bytes="20000"))
    asyncio.run(tools.produce(kafka.broker, stream.topic, [b"large", b"next"], key=b"a"))
    asyncio.run(tools.produce(kafka.broker, stream.topic, [b"small"], key=b"b"))

    def script(call: Call) -> Answer:
        return reply(200, b"x" * 50_000 if call.body == b"large" else call.body)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, reply=answers, retry=RETRY))
        hub.start()
        hub.wait(lambda: hub.condition("orders") == "False ReplyRefused", "condition")
        assert "max.message.bytes" in hub.conditions("orders")["Ready"]["message"]
        hub.wait(lambda: len(target.calls) == 2, "the other key")
        assert stream.committed("orders") == {0: 0}
        asyncio.run(tools.configure(kafka.broker, answers, max_message_bytes="1000000"))
        hub.wait(lambda: stream.committed("orders") == {0: 3}, "commit")
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        assert len(target.calls) == 3
    found = asyncio.run(tools.records(kafka.broker, answers, 3))
    assert sorted(len(r.value) for r in found) == [4, 5, 50_000]


def test_what_waits_for_its_answer_when_the_hub_stops_is_given_back_and_comes_again(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=4, partitions=1)
    answers = f"answers-{uuid4().hex[:8]}"
    stream.send(4)

    def script(call: Call) -> Answer:
        return reply(200, b"re " + call.body)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, reply=answers, retry=RETRY))
        hub.start()
        hub.wait(lambda: hub.condition("orders") == "False ReplyRefused", "condition")
        assert f"topic {answers} does not exist" in hub.conditions("orders")["Ready"]["message"]
        assert hub.stop(within=15.0) == 0
        assert stream.committed("orders") == {0: 0}
        asyncio.run(tools.create_topic(kafka.broker, answers))
        hub.start()
        hub.wait(lambda: stream.committed("orders") == {0: 4}, "commit")
        assert len(target.accepted) == 8
    found = asyncio.run(tools.records(kafka.broker, answers, 5, within=3))
    assert sorted(r.value for r in found) == sorted(b"re " + v for v in stream.sent.values())


def test_a_broker_that_restarts_between_answer_and_reply_loses_no_reply(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(own_kafka.broker, keys=8, partitions=1)
    answers = made(own_kafka.broker, "answers")
    stream.send(16)

    def script(call: Call) -> Answer:
        return reply(200, b"re " + call.body, after=2.0)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, reply=answers, retry=RETRY))
        hub.start()
        hub.wait(lambda: target.under_way == 8, "deliveries")
        own_kafka.kill9()
        hub.wait(lambda: len(target.accepted) == 8, "answers")
        hub.wait(lambda: hub.condition("orders").startswith("False"), "a condition")
        own_kafka.start()
        hub.wait(lambda: stream.committed("orders") == {0: 16}, "commit", 120)
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness", 60)
    found = asyncio.run(tools.records(own_kafka.broker, answers, 100, within=3))
    assert {r.value for r in found} == {b"re " + value for value in stream.sent.values()}
    firsts: defaultdict[bytes, dict[bytes, None]] = defaultdict(dict)
    for record in found:
        firsts[record.key][record.value] = None
    assert all(list(values) == sorted(values) for values in firsts.values())
    assert len(found) <= len(target.accepted)
    print(f"16 events, {len(target.accepted)} answers, {len(found)} records")
