from __future__ import annotations

import asyncio
import socket
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.admin.smallhub import SmallHub, small_hub, status, until
from tests.fakes import MemoryStore
from triggerhub.control.faults import Fault
from triggerhub.control.resources import Snapshot
from triggerhub.control.status import Condition, State
from triggerhub.delivery.target import OnExhausted
from triggerhub.event import Event
from triggerhub.settings import Settings
from triggerhub.store.records import Selection, StoreError, Trouble
from triggerhub.store.sqlite import SQLiteStore


def event(event_id: str, source: str = "/kafka/orders") -> Event:
    return Event(id=event_id, source=source, type="t", data=b"x")


async def test_bindings_show_counters_and_triggers_without_a_function(hub: SmallHub) -> None:
    name = hub.bind()
    hub.function.status["BAD"] = 422
    await hub.dispatcher.dispatch(name, event("1"))
    await hub.dispatcher.dispatch(name, event("BAD"))
    lost = Condition("Ready", State.FALSE, "FunctionNotFound", "function f does not exist")
    hub.manifests.unbound.append(status("CronTrigger", "shop", "nightly", (), lost))

    bound, unbound = (await hub.ask("GET", "/v1/bindings")).json["bindings"]

    assert bound["name"] == "shop.orders.handle"
    assert (bound["received"], bound["accepted"], bound["dead"]) == (2, 1, 1)
    assert (bound["state"], bound["lastError"]) == ("Ready", "status 422")
    assert (unbound["name"], unbound["state"]) == ("", "Unbound")
    assert unbound["reason"] == "FunctionNotFound"


async def test_a_binding_whose_source_is_gone_says_so(hub: SmallHub) -> None:
    name = hub.bind()
    hub.sources.states[name].disconnected("BrokerUnreachable", "no broker at b:9092")
    [bound] = (await hub.ask("GET", "/v1/bindings")).json["bindings"]
    assert (bound["state"], bound["reason"]) == ("NotReady", "BrokerUnreachable")
    assert bound["message"] == "no broker at b:9092"


async def test_the_rate_counts_what_was_settled_in_the_last_seconds(hub: SmallHub) -> None:
    name = hub.bind()
    await until(lambda: bool(hub.view._samples))
    for number in range(20):
        await hub.dispatcher.dispatch(name, event(str(number)))
    [bound] = hub.view.bindings()
    assert bound.rate > 1


async def test_faults_of_manifests_are_listed(hub: SmallHub) -> None:
    fault = Fault("a.yaml", 3, "KafkaTrigger shop/orders", "spec.topic", "unknown field")
    hub.manifests.snapshot = Snapshot(faults=(fault,))
    [told] = (await hub.ask("GET", "/v1/faults")).json["faults"]
    assert (told["file"], told["line"], told["field"]) == ("a.yaml", 3, "spec.topic")


async def test_triggers_show_their_conditions(hub: SmallHub) -> None:
    hub.bind()
    [trigger] = (await hub.ask("GET", "/v1/triggers")).json["triggers"]
    assert trigger["bindings"] == ["shop.orders.handle"]
    assert trigger["conditions"][0]["status"] == "True"


async def test_readiness_says_what_is_waited_for(hub: SmallHub) -> None:
    assert (await hub.ask("GET", "/readyz")).status == 200
    name = hub.bind()
    hub.manifests.is_ready = False
    hub.sources.states[name].attached = None
    answer = await hub.ask("GET", "/readyz")
    assert answer.status == 503
    assert b"shop.orders.handle" in answer.body
    assert (await hub.ask("GET", "/healthz")).status == 200


async def test_a_store_that_refuses_is_waited_for_once_and_one_that_is_away_is_only_told_of(
    hub: SmallHub,
) -> None:
    hub.view.store = store = MemoryStore()
    refused, away = (Trouble("store s: why", refused=refused) for refused in (True, False))
    for trouble, code, said in (
        (refused, 503, b"store s: why\n"),
        (away, 200, b"ready\nstore s: why\n"),
        (refused, 200, b"ready\nstore s: why\n"),
        (None, 200, b"ready\n"),
    ):
        store.trouble = trouble
        answer = await hub.ask("GET", "/readyz")
        assert (answer.status, answer.body) == (code, said)
        metrics = (await hub.ask("GET", "/metrics")).body.decode()
        assert f"\ntriggerhub_store_available {int(trouble is None)}\n" in metrics


@pytest.mark.parametrize(
    ("method", "path", "body", "expected", "said"),
    [
        ("GET", "/v1/nothing", None, 404, "nothing at /v1/nothing"),
        ("POST", "/v1/bindings", None, 405, "does not take POST"),
        ("POST", "/v1/dead-letters/redrive", b"{", 400, "not JSON"),
        ("POST", "/v1/dead-letters/redrive", b"[]", 400, "JSON object"),
        ("POST", "/v1/dead-letters/redrive", b"{}", 400, "nothing is selected"),
        ("DELETE", "/v1/dead-letters", b"{}", 400, "nothing is selected"),
        ("DELETE", "/v1/dead-letters", b'{"ids": []}', 400, "empty list"),
        ("DELETE", "/v1/dead-letters", b'{"all": "yes"}', 400, "true or false"),
        ("DELETE", "/v1/dead-letters", b'{"all": true, "reason": "x"}', 400, "one of them"),
        ("DELETE", "/v1/dead-letters", b'{"tigger": "x"}', 400, "tigger"),
        ("DELETE", "/v1/dead-letters", b'{"olderThan": "1 day"}', 400, "such as 30s"),
        ("GET", "/v1/dead-letters?limit=0", None, 400, "limit"),
        ("GET", "/v1/dead-letters?limit=x", None, 400, "limit"),
        ("GET", "/v1/dead-letters?colour=red", None, 400, "colour"),
        ("GET", "/v1/dead-letters/01X", None, 404, "01X"),
        ("GET", "/v1/events", None, 400, "id"),
        ("GET", "/v1/events?id=zzz", None, 404, "zzz"),
        ("POST", "/v1/bindings/none/emit", b"{}", 404, "no trigger none"),
        ("POST", "/v1/bindings/a/emit", b'{"key": 1}', 404, "no trigger a"),
        ("POST", "/v1/dead-letters/redrive", b"[" * 100_000, 400, "not JSON"),
    ],
)
async def test_what_makes_no_sense_is_told_as_json(
    hub: SmallHub, method: str, path: str, body: bytes | None, expected: int, said: str
) -> None:
    answer = await hub.ask(method, path, raw=body)
    assert answer.status == expected
    assert said in answer.json["message"]
    assert answer.json["error"]


async def test_dead_letters_are_listed_by_filter_and_page(hub: SmallHub) -> None:
    first, second = await hub.bury(), await hub.bury("bills")
    page = (await hub.ask("GET", "/v1/dead-letters?limit=1")).json
    assert [letter["id"] for letter in page["deadLetters"]] == [first.id]
    rest = (await hub.ask("GET", f"/v1/dead-letters?limit=1&after={page['next']}")).json
    assert [letter["id"] for letter in rest["deadLetters"]] == [second.id]
    bills = (await hub.ask("GET", "/v1/dead-letters?trigger=shop%2Fbills")).json
    assert [letter["id"] for letter in bills["deadLetters"]] == [second.id]
    assert (await hub.ask("GET", "/v1/dead-letters?olderThan=1h")).json["deadLetters"] == []


async def test_one_dead_letter_shows_its_bytes(hub: SmallHub) -> None:
    letter = await hub.bury()
    told = (await hub.ask("GET", f"/v1/dead-letters/{letter.id}")).json
    assert b64decode(told["event"]["data_base64"]) == b"\xff\x00"
    assert b64decode(told["origin"]["key_base64"]) == b"\xfe"
    assert told["origin"]["headers"] == [{"name": "h", "value_base64": None}]
    assert told["firstTime"] == "2023-11-14T22:13:20.000Z"


async def test_a_dead_letter_that_lies_elsewhere_shows_its_bytes_from_there(hub: SmallHub) -> None:
    hub.bind()
    letter = await hub.lay_down()
    told = (await hub.ask("GET", f"/v1/dead-letters/{letter.id}")).json
    assert b64decode(told["event"]["data_base64"]) == b"\xff\x00"
    assert b64decode(told["origin"]["key_base64"]) == b"\xfe"
    place = {"kind": "KafkaTrigger", "coordinates": {"shelf": "dead", "number": "0"}}
    assert told["elsewhere"] == place
    [listed] = (await hub.ask("GET", "/v1/dead-letters")).json["deadLetters"]
    assert (listed["elsewhere"], listed["event"]["size"]) == (place, 2)


async def test_a_dead_letter_that_cannot_be_read_shows_what_is_known_and_why(
    hub: SmallHub,
) -> None:
    letter = await hub.lay_down()
    told = (await hub.ask("GET", f"/v1/dead-letters/{letter.id}")).json
    assert "KafkaTrigger shop/orders is not bound" in told["elsewhere"]["unread"]
    assert (told["event"]["size"], told["event"]["data_base64"]) == (2, "")
    hub.bind()
    hub.sources.cellar.letters.clear()
    told = (await hub.ask("GET", f"/v1/dead-letters/{letter.id}")).json
    assert told["elsewhere"]["unread"] == "there is no such letter"
    assert told["reason"] == "Rejected"


async def test_a_purge_says_which_letters_stay_where_they_lie(hub: SmallHub) -> None:
    await hub.bury()
    await hub.lay_down()
    answer = await hub.ask("DELETE", "/v1/dead-letters", {"all": True})
    assert answer.json == {"deleted": 2, "elsewhere": 1}
    assert len(hub.sources.cellar.letters) == 1


async def test_a_redrive_reads_letters_from_where_they_lie_and_deletes_their_entries(
    hub: SmallHub,
) -> None:
    hub.bind()
    await hub.lay_down(event_id="7")
    gone = await hub.lay_down(event_id="8")
    hub.sources.cellar.letters.pop()
    answer = await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    told = {line["id"]: (line["outcome"], line["detail"]) for line in answer.lines}
    assert told.pop(gone.id) == ("kept", "there is no such letter")
    assert [*told.values()] == [("accepted", "")]
    assert hub.function.seen == [("7", b"\xff\x00")]
    assert await hub.letters() == [gone.id]


async def test_a_letter_that_dies_again_keeps_what_its_source_said_of_it(hub: SmallHub) -> None:
    hub.bind()
    before = await hub.bury(event_id="7")
    hub.function.default = 422
    await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    [after] = await hub.store.dead_letters.list(Selection())
    assert after.id != before.id
    assert after.origin == before.origin


async def test_a_purge_deletes_what_is_selected(hub: SmallHub) -> None:
    await hub.bury()
    kept = await hub.bury("bills")
    answer = await hub.ask("DELETE", "/v1/dead-letters", {"trigger": "orders"})
    assert answer.json == {"deleted": 1, "elsewhere": 0}
    assert await hub.letters() == [kept.id]


async def test_a_redriven_letter_goes_when_it_is_accepted(hub: SmallHub) -> None:
    hub.bind()
    letter = await hub.bury(event_id="7")
    answer = await hub.ask("POST", "/v1/dead-letters/redrive", {"ids": [letter.id]})
    assert answer.lines == [{"id": letter.id, "outcome": "accepted", "detail": ""}]
    assert hub.function.seen == [("7", b"\xff\x00")]
    assert await hub.letters() == []


async def test_a_letter_that_dies_again_is_replaced_and_not_met_twice(hub: SmallHub) -> None:
    hub.bind()
    hub.function.default = 422
    letters = [await hub.bury() for _ in range(70)]
    answer = await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    assert {line["outcome"] for line in answer.lines} == {"dead"}
    assert len(answer.lines) == len(hub.function.seen) == 70
    assert len(await hub.letters()) == 70
    assert not {letter.id for letter in letters} & set(await hub.letters())


async def test_a_redrive_keeps_the_order_of_a_key(hub: SmallHub) -> None:
    hub.bind()
    hub.function.pause = 0.002
    for number in range(30):
        await hub.bury(event_id=str(number), key="same")
    await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    assert [seen for seen, _ in hub.function.seen] == [str(number) for number in range(30)]
    assert hub.function.most == 1


async def test_what_waits_in_an_inbox_is_shown_also_when_nothing_is_bound(hub: SmallHub) -> None:
    name = hub.bind()
    for binding in (name, name, "shop.gone.handle"):
        await hub.store.inbox(binding).put(Event(id="1", source="/s", type="t"))
    rows = {row["name"]: row for row in (await hub.ask("GET", "/v1/bindings")).json["bindings"]}
    assert (rows[name]["inbox"], rows[name]["state"]) == (2, "Ready")
    gone = rows["shop.gone.handle"]
    assert (gone["inbox"], gone["state"], gone["trigger"]) == (1, "Unbound", "gone")
    assert "1 events wait in its inbox" in gone["message"]
    emitted = await hub.ask("POST", "/v1/bindings/shop/gone/emit", {"data": "x"})
    assert emitted.status == 409
    assert b"not bound" in emitted.body


async def test_what_waits_for_a_binding_that_is_gone_can_be_purged(hub: SmallHub) -> None:
    for number in range(3):
        await hub.store.inbox("shop.gone.handle").put(Event(id=f"{number}", source="/s", type="t"))
    (row,) = (await hub.ask("GET", "/v1/inboxes")).json["inboxes"]
    assert row.pop("bytes") > 100
    assert row == {"binding": "shop.gone.handle", "events": 3, "bound": False}
    answer = await hub.ask("DELETE", "/v1/inboxes/shop.gone.handle")
    assert answer.json == {"deleted": 3}
    assert (await hub.ask("GET", "/v1/inboxes")).json == {"inboxes": []}
    again = await hub.ask("DELETE", "/v1/inboxes/shop.gone.handle")
    assert (again.status, again.json["message"]) == (
        404, "nothing waits in an inbox of shop.gone.handle"
    )  # fmt: skip


async def test_what_somebody_delivers_or_may_deliver_is_not_purged(
    hub: SmallHub, tmp_path: Path
) -> None:
    name = hub.bind()
    hub.function.hold = asyncio.Event()
    await hub.store.inbox(name).put(Event(id="1", source="/s", type="t"))

    async def refused(why: str) -> None:
        answer = await hub.ask("DELETE", f"/v1/inboxes/{name}")
        assert answer.status == 409
        assert why in answer.json["message"]
        assert len(await hub.store.inbox(name).read()) == 1

    (row,) = (await hub.ask("GET", "/v1/inboxes")).json["inboxes"]
    assert row["bound"] is True
    await refused("it is bound")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hub.dispatcher.dispatch(name, Event(id="2", source="/s", type="t")))
        await until(lambda: bool(hub.function.seen))
        hub.manifests.bindings.clear()
        await refused("under way")
        hub.function.hold.set()
    hub.dispatcher.rebind(())
    hub.manifests.snapshot = None
    await refused("not read yet")
    hub.manifests.snapshot = Snapshot()
    async with SQLiteStore(hub.store._writer._database._directory) as other:
        claims = other.positions(f"inbox/{name}")
        assert await claims.claim("inbox", 30.0)
        await refused("another process")
        await claims.release("inbox")
        assert (await hub.ask("DELETE", f"/v1/inboxes/{name}")).json == {"deleted": 1}
        assert await claims.claim("inbox", 30.0)


class FullDisk:
    """A store that can be read but not written."""

    def __init__(self, store: SQLiteStore) -> None:
        self.dead_letters = self
        self.journal = store.journal
        self.list = store.dead_letters.list
        self.counts = store.dead_letters.counts
        self.waiting = store.waiting

    async def delete(self, selection: Selection) -> int:
        raise StoreError("triggerhub.db cannot be written: disk full")


async def test_a_store_that_fails_ends_a_redrive_with_its_sentence(hub: SmallHub) -> None:
    hub.bind()
    await hub.bury()
    hub.view.store = FullDisk(hub.store)  # type: ignore[assignment]
    answer = await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    assert answer.lines[-1]["message"] == "triggerhub.db cannot be written: disk full"
    purged = await hub.ask("DELETE", "/v1/dead-letters", {"all": True})
    assert (purged.status, purged.json["error"]) == (503, "StoreError")
    assert len(await hub.letters()) == 1


async def test_letters_without_a_key_go_side_by_side_within_a_bound(hub: SmallHub) -> None:
    hub.bind()
    hub.function.pause = 0.01
    for _ in range(40):
        await hub.bury()
    await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    assert hub.function.most == 16


async def test_a_function_that_is_away_does_not_hold_up_others_letters(hub: SmallHub) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        hub.bind("orders", url=f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        hub.bind("bills")
        for _ in range(40):
            await hub.bury("orders")
        bills = {(await hub.bury("bills")).id for _ in range(5)}
        body = {"all": True, "timeout": "1500ms"}
        answer = await hub.ask("POST", "/v1/dead-letters/redrive", body)
    assert {line["id"] for line in answer.lines if line["outcome"] == "accepted"} == bills
    assert len(await hub.letters()) == 40


async def test_a_letter_whose_binding_is_gone_stays(hub: SmallHub) -> None:
    letter = await hub.bury()
    [told] = (await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})).lines
    assert told["outcome"] == "kept"
    assert await hub.letters() == [letter.id]


async def test_a_redrive_to_a_function_that_is_away_ends_in_time_and_keeps_all(
    hub: SmallHub,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        hub.bind(url=f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        letters = [(await hub.bury()).id for _ in range(40)]
        body = {"all": True, "timeout": "400ms"}
        async with asyncio.timeout(5):
            answer = await hub.ask("POST", "/v1/dead-letters/redrive", body)
    assert {line["outcome"] for line in answer.lines} == {"kept"}
    assert sorted(line["id"] for line in answer.lines) == sorted(letters)
    assert any("refused" in line["detail"] for line in answer.lines)
    assert sorted(await hub.letters()) == sorted(letters)


async def test_a_redrive_never_deletes_what_would_be_dropped(hub: SmallHub) -> None:
    hub.bind(on_exhausted=OnExhausted.DROP)
    hub.function.default = 422
    letter = await hub.bury()
    [told] = (await hub.ask("POST", "/v1/dead-letters/redrive", {"all": True})).lines
    assert told["outcome"] == "kept"
    assert await hub.letters() == [letter.id]


async def test_a_client_that_goes_away_ends_its_redrive(hub: SmallHub) -> None:
    name = hub.bind()
    hub.function.hold = asyncio.Event()
    await hub.bury()
    asking = asyncio.ensure_future(hub.ask("POST", "/v1/dead-letters/redrive", {"all": True}))
    await until(lambda: bool(hub.function.seen))
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: hub.dispatcher.link(name).tally.in_flight == 0)
    hub.function.hold.set()
    assert len(await hub.letters()) == 1


async def test_an_event_is_explained_by_source_and_id_or_id_alone(hub: SmallHub) -> None:
    name = hub.bind()
    hub.function.status["0:12"] = 500
    await hub.dispatcher.dispatch(name, event("0:12"))
    path = f"/v1/events/{quote('/kafka/orders', safe='')}/{quote('0:12', safe='')}"
    [by_path] = (await hub.ask("GET", path)).json["deliveries"]
    [by_id] = (await hub.ask("GET", "/v1/events?id=0:12")).json["deliveries"]
    assert by_path == by_id
    assert [attempt["status"] for attempt in by_path["attempts"]] == [500, 500]
    assert by_path["settled"] == "dead"
    assert by_path["deadLetter"] in await hub.letters()


async def test_a_test_event_tells_what_became_of_it(hub: SmallHub) -> None:
    hub.bind()
    body = {"data": {"n": 1}, "key": "k", "subject": "s", "extensions": {"tenant": "a"}}
    answer = await hub.ask("POST", "/v1/bindings/shop%2Forders/emit", body)
    assert answer.status == 200
    assert answer.json["outcome"] == "accepted"
    assert answer.json["source"] == "/emit/shop/orders"
    assert answer.json["delivery"]["attempts"][0]["status"] == 200
    assert hub.function.seen == [(answer.json["id"], b'{"n": 1}')]


async def test_a_test_event_that_takes_long_goes_on(hub: SmallHub) -> None:
    name = hub.bind()
    hub.function.hold = asyncio.Event()
    answer = await hub.ask("POST", f"/v1/bindings/{name}/emit", {"data": "x", "timeout": "50ms"})
    assert (answer.status, answer.json["outcome"]) == (202, "under way")
    hub.function.hold.set()
    await until(lambda: hub.dispatcher.link(name).tally.accepted == 1)


async def test_an_ambiguous_trigger_is_asked_for_its_binding(hub: SmallHub) -> None:
    hub.bind(function="handle")
    other = hub.bind(function="audit")
    answer = await hub.ask("POST", "/v1/bindings/orders/emit", {})
    assert answer.status == 409
    assert other in answer.json["message"]
    assert (await hub.ask("POST", f"/v1/bindings/{other}/emit", {})).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"key": 1},
        {"subject": "a\nb"},
        {"extensions": {"Upper": "x"}},
        {"extensions": {"id": "x"}},
        {"extensions": []},
        {"colour": "red"},
        {"data_base64": "%%%"},
        {"timeout": "soon"},
        {"timeout": True},
    ],
)
async def test_an_impossible_test_event_is_refused(hub: SmallHub, body: object) -> None:
    hub.bind()
    assert (await hub.ask("POST", "/v1/bindings/orders/emit", body)).status == 400
    assert hub.function.seen == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
async def test_a_name_that_is_not_loopback_is_refused(hub: SmallHub, host: str) -> None:
    answer = await hub.ask("GET", "/v1/bindings", headers={"host": host})
    assert (answer.status, answer.json["error"]) == (403, "Forbidden")
    assert (await hub.ask("GET", "/healthz", headers={"host": host})).status == 200


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9090", "LOCALHOST"])
async def test_loopback_names_are_answered(hub: SmallHub, host: str) -> None:
    assert (await hub.ask("GET", "/v1/bindings", headers={"host": host})).status == 200


async def test_another_origin_can_change_nothing(hub: SmallHub) -> None:
    await hub.bury()
    headers = {"origin": "http://evil.example"}
    answer = await hub.ask("DELETE", "/v1/dead-letters", {"all": True}, headers=headers)
    assert answer.status == 403
    assert len(await hub.letters()) == 1
    same = {"origin": f"http://{hub.view.address}"}
    answer = await hub.ask("DELETE", "/v1/dead-letters", {"all": True}, headers=same)
    assert answer.status == 200


async def test_an_address_in_use_is_told_in_one_sentence(hub: SmallHub, tmp_path: Path) -> None:
    settings = Settings(paths=(), admin=hub.view.address)
    with pytest.raises(OSError, match=r"already in use; another triggerhub.*--admin"):
        async with small_hub(tmp_path / "other", settings):
            pass


@pytest.mark.parametrize("admin", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"])
async def test_an_open_address_without_a_token_is_refused(tmp_path: Path, admin: str) -> None:
    with pytest.raises(OSError, match="--admin-token-file"):
        async with small_hub(tmp_path, Settings(paths=(), admin=admin)):
            pass


@pytest.mark.parametrize("admin", ["9090", "localhost:http", "::1:9090", "127.0.0.1:99999"])
async def test_a_malformed_address_is_told(tmp_path: Path, admin: str) -> None:
    with pytest.raises(OSError, match="--admin: found"):
        async with small_hub(tmp_path, Settings(paths=(), admin=admin)):
            pass


async def test_a_token_is_needed_for_v1_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    settings = Settings(paths=(), admin="0.0.0.0:0", admin_token_file=file)
    async with small_hub(tmp_path / "data", settings) as hub:
        assert (await hub.ask("GET", "/v1/bindings")).status == 401
        wrong = {"authorization": "Bearer s3cre"}
        assert (await hub.ask("GET", "/v1/bindings", headers=wrong)).status == 401
        right = {"authorization": "Bearer s3cret", "host": "hub.example"}
        assert (await hub.ask("GET", "/v1/bindings", headers=right)).status == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await hub.ask("GET", path)).status == 200


async def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n")
    settings = Settings(paths=(), admin="0.0.0.0:0", admin_token_file=file)
    with pytest.raises(OSError, match="is empty"):
        async with small_hub(tmp_path / "data", settings):
            pass


async def test_a_defect_is_answered_without_its_inside(hub: SmallHub) -> None:
    hub.manifests.snapshot = None
    hub.manifests.status = None  # type: ignore[assignment,method-assign]
    answer = await hub.ask("GET", "/v1/triggers")
    assert (answer.status, answer.json["error"]) == (500, "InternalError")
    assert "Traceback" not in answer.body.decode()
