from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.smallhub import SmallHub, small_hub, status
from tests.cli.terminal import Ran, run
from triggerhub.control.status import Condition, State
from triggerhub.event import Event
from triggerhub.settings import Settings


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def one_sentence(ran: Ran, code: int = 1) -> str:
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return ran.err


async def ask(hub: SmallHub, *arguments: str, **more: object) -> Ran:
    return await run(*arguments, "--admin", hub.view.address, **more)  # type: ignore[arg-type]


async def test_bindings_fit_a_hundred_columns(hub: SmallHub) -> None:
    name = hub.bind()
    hub.bind("a-trigger-with-quite-a-long-name-indeed", "and-a-function-with-a-long-name-too")
    hub.function.status["BAD"] = 422
    hub.sources.states[name].lag(1234)
    await hub.dispatcher.dispatch(name, Event(id="BAD", source="/s", type="t"))
    why = Condition("Ready", State.FALSE, "FunctionNotFound", "function f\x1b[2J does not exist")
    hub.manifests.unbound.append(status("CronTrigger", "shop", "nightly", (), why))

    ran = await ask(hub, "bindings", env={"COLUMNS": "100"})

    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == [
        "TRIGGER", "KIND", "FUNCTION", "STATE", "RATE", "IN-FLIGHT", "LAG", "DEAD", "LAST", "ERROR",
    ]  # fmt: skip
    assert max(len(line) for line in lines) <= 100
    assert "1234" in lines[1]
    assert "status 422" in lines[1]
    assert "\x1b" not in ran.out


async def test_into_a_pipe_nothing_is_cut(hub: SmallHub) -> None:
    long = "a-trigger-with-quite-a-long-name-indeed"
    hub.bind(long, "and-a-function-with-a-long-name-too")
    ran = await ask(hub, "bindings")
    assert long in ran.out
    assert "and-a-function-with-a-long-name-too" in ran.out


async def test_listings_are_json_and_yaml_too(hub: SmallHub) -> None:
    hub.bind()
    assert (await ask(hub, "bindings", "-o", "json")).json[0]["name"] == "shop.orders.handle"
    assert "- name: shop.orders.handle\n" in (await ask(hub, "bindings", "-o", "yaml")).out


async def test_json_says_in_which_partition_events_wait(hub: SmallHub) -> None:
    hub.sources.states[hub.bind()].lag(3, {"orders/0": 0, "orders/1": 3})
    found = (await ask(hub, "bindings", "-o", "json")).json[0]
    assert (found["lag"], found["lagByPartition"]) == (3, {"orders/0": 0, "orders/1": 3})


async def test_what_only_grows_is_said_where_errors_are(hub: SmallHub) -> None:
    hub.sources.states[hub.bind()].growing = "what waits in the source only grows"
    assert "only grows" in (await ask(hub, "bindings")).out


async def test_an_emitted_event_tells_its_story(hub: SmallHub) -> None:
    hub.bind()
    ran = await ask(hub, "emit", "orders", "--data", '{"a": 1}', "--key", "k")
    assert ran.code == 0
    assert "attempt 1: status 200" in ran.out
    assert hub.function.seen[0][1] == b'{"a": 1}'


async def test_data_comes_from_a_file_or_standard_input_byte_for_byte(
    hub: SmallHub, tmp_path: Path
) -> None:
    hub.bind()
    (tmp_path / "x").write_bytes(b"\x00\xff\n")
    assert (await ask(hub, "emit", "orders", "--data", f"@{tmp_path / 'x'}")).code == 0
    assert (await ask(hub, "emit", "orders", "--data", "-", stdin=b"\xfe\r\n")).code == 0
    assert [data for _, data in hub.function.seen] == [b"\x00\xff\n", b"\xfe\r\n"]


async def test_an_event_that_is_refused_ends_with_1_and_names_its_dead_letter(
    hub: SmallHub,
) -> None:
    hub.bind()
    hub.function.default = 422
    ran = await ask(hub, "emit", "shop/orders", "--data", "x")
    assert ran.code == 1
    [letter] = await hub.letters()
    assert f"triggerhub dlq redrive {letter}" in ran.out


async def test_an_event_that_takes_long_goes_on(hub: SmallHub) -> None:
    hub.bind()
    hub.function.hold = asyncio.Event()
    ran = await ask(hub, "emit", "orders", "--timeout", "50ms")
    assert ran.code == 1
    assert "triggerhub why" in ran.out
    hub.function.hold.set()


async def test_why_tells_attempts_in_order(hub: SmallHub) -> None:
    name = hub.bind()
    hub.function.default = 500
    await hub.dispatcher.dispatch(name, Event(id="0:7", source="/kafka/orders", type="t"))
    ran = await ask(hub, "why", "0:7", "--source", "/kafka/orders")
    assert ran.code == 0
    told = ["/kafka/orders", "received", "attempt 1", "attempt 2", "dead letter"]
    places = [ran.out.index(words) for words in told]
    assert places == sorted(places)


async def test_many_attempts_are_told_in_few_lines(hub: SmallHub) -> None:
    from triggerhub.delivery.retry import Policy

    name = hub.bind(retry=Policy(attempts=40, initial=0.0001, max=0.0001))
    hub.function.default = 500
    await hub.dispatcher.dispatch(name, Event(id="0:7", source="/s", type="t"))
    ran = await ask(hub, "why", "0:7")
    assert ran.out.count("status 500,") < 15
    assert "28 attempts more" in ran.out


async def test_why_of_an_unknown_event_is_one_sentence(hub: SmallHub) -> None:
    assert "nothing is known of event nope" in one_sentence(await ask(hub, "why", "nope"))


async def test_a_redrive_shows_each_letter_and_a_sum(hub: SmallHub) -> None:
    hub.bind()
    letter = await hub.bury()
    ran = await ask(hub, "dlq", "redrive", letter.id)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"{letter.id}  accepted",
        "1 dead letter: 1 accepted, 0 dead again, 0 kept as they were",
    ]


async def test_a_redrive_that_is_not_accepted_ends_with_1(hub: SmallHub) -> None:
    letter = await hub.bury()
    ran = await ask(hub, "dlq", "redrive", "--all")
    assert ran.code == 1
    assert "1 kept" in ran.out
    assert await hub.letters() == [letter.id]


@pytest.mark.parametrize("verb", ["redrive", "purge"])
async def test_without_a_choice_nothing_is_touched(hub: SmallHub, verb: str) -> None:
    await hub.bury()
    assert "--all" in one_sentence(await ask(hub, "dlq", verb), 2)
    assert "--all" in one_sentence(await ask(hub, "dlq", verb, "--all", "--reason", "x"), 2)
    assert len(await hub.letters()) == 1


async def test_a_purge_says_how_many_went(hub: SmallHub) -> None:
    await hub.bury()
    await hub.bury("bills")
    ran = await ask(hub, "dlq", "purge", "--trigger", "shop/bills")
    assert (ran.code, ran.out) == (0, "1 dead letter deleted\n")


async def test_inboxes_are_listed_and_purged_one_by_one(hub: SmallHub) -> None:
    assert (await ask(hub, "inbox", "list")).out == "all inboxes are empty\n"
    bound = hub.bind()
    for binding in (bound, "shop.gone.handle"):
        await hub.store.inbox(binding).put(Event(id="1", source="/s", type="t"))
    listed = (await ask(hub, "inbox", "list")).out.splitlines()
    assert listed[0].split() == ["BINDING", "BOUND", "EVENTS", "BYTES"]
    assert [line.split()[:3] for line in listed[1:]] == [
        ["shop.gone.handle", "no", "1"], [bound, "yes", "1"],
    ]  # fmt: skip
    assert "it is bound" in one_sentence(await ask(hub, "inbox", "purge", bound))
    assert "nothing waits" in one_sentence(await ask(hub, "inbox", "purge", "a/b"))
    purged = await ask(hub, "inbox", "purge", "shop.gone.handle")
    assert (purged.code, purged.out) == (0, "1 event deleted\n")
    (left,) = (await ask(hub, "inbox", "list", "-o", "json")).json
    assert (left["binding"], left["bound"]) == (bound, True)


async def test_a_purge_says_which_letters_stay_where_they_lie(hub: SmallHub) -> None:
    await hub.lay_down()
    ran = await ask(hub, "dlq", "purge", "--all")
    first, second = ran.out.splitlines()
    assert first == "1 dead letter deleted"
    assert second.startswith("1 of them only from the hub's list: they stay")


async def test_a_letter_that_lies_elsewhere_is_shown_from_there_by_a_hub(hub: SmallHub) -> None:
    hub.bind()
    letter = await hub.lay_down()
    shown = await ask(hub, "dlq", "show", letter.id)
    assert "It lies in    shelf dead, number 0" in shown.out
    assert "ff 00" in shown.out
    hub.sources.cellar.letters.clear()
    shown = await ask(hub, "dlq", "show", letter.id)
    assert "Data          2 bytes, not shown: there is no such letter" in shown.out


async def test_dead_letters_are_listed_and_shown(hub: SmallHub) -> None:
    letter = await hub.bury()
    listed = await ask(hub, "dlq", "list", "--reason", "Rejected")
    assert letter.id in listed.out
    shown = await ask(hub, "dlq", "show", letter.id)
    assert "status 422" in shown.out
    assert "no such order" in shown.out
    assert "ff 00" in shown.out
    whole = await ask(hub, "dlq", "show", letter.id, "-o", "json")
    assert whole.json["event"]["data_base64"] == "/wA="


async def test_a_long_list_is_cut_and_says_so(hub: SmallHub) -> None:
    letters = [await hub.bury() for _ in range(3)]
    ran = await ask(hub, "dlq", "list", "--limit", "2")
    assert letters[1].id in ran.out
    assert letters[2].id not in ran.out
    assert "more than these 2" in ran.out


async def test_dead_letters_are_read_from_the_folder_while_the_hub_is_down(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ".triggerhub"
    async with small_hub(folder, Settings(paths=(), admin="127.0.0.1:0")) as hub:
        letter = await hub.bury()
        await hub.store.inbox("shop.orders.handle").put(Event(id="1", source="/s", type="t"))
    waiting = await run("inbox", "list", "--data", str(folder))
    assert waiting.out.splitlines()[1].split()[:3] == ["shop.orders.handle", "-", "1"]
    shown = await run("dlq", "show", letter.id, "--data", str(folder))
    assert "no such order" in shown.out
    listed = await run("dlq", "list", "--data", str(folder), "-o", "json")
    assert [found["id"] for found in listed.json] == [letter.id]
    missing = await run("dlq", "list", "--data", str(tmp_path / "none"))
    assert "none" in one_sentence(missing)
    unknown = await run("dlq", "show", "01X", "--data", str(folder))
    assert "no dead letter 01X" in one_sentence(unknown)


@pytest.mark.parametrize(
    "arguments",
    [("bindings",), ("why", "1"), ("emit", "x"), ("dlq", "list"), ("dlq", "redrive", "--all")],
)
async def test_no_hub_is_one_sentence(nobody: str, arguments: tuple[str, ...]) -> None:
    said = one_sentence(await run(*arguments, "--admin", nobody))
    assert said == (
        f"triggerhub: no hub answers at http://{nobody}: is `triggerhub run` running? (--admin)\n"
    )


async def test_what_is_no_hub_is_told_as_such(hub: SmallHub) -> None:
    await asyncio.sleep(0)
    address = hub.function.url.removeprefix("http://").partition("/")[0]
    assert "no triggerhub" in one_sentence(await run("bindings", "--admin", address))


@pytest.mark.parametrize("admin", ["ftp://x", "http://", "http://h/path", "http://h:port"])
async def test_a_malformed_address_is_wrong_usage(admin: str) -> None:
    assert "--admin" in one_sentence(await run("bindings", "--admin", admin), 2)


async def test_a_token_is_sent_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    settings = Settings(paths=(), admin="127.0.0.1:0", admin_token_file=file)
    async with small_hub(tmp_path / "data", settings) as hub:
        assert "wants its token" in one_sentence(await ask(hub, "bindings"))
        assert (await ask(hub, "bindings", "--admin-token-file", str(file))).code == 0
        env = {"TRIGGERHUB_ADMIN_TOKEN": "s3cret", "TRIGGERHUB_ADMIN": hub.view.address}
        assert (await run("bindings", env=env)).code == 0
