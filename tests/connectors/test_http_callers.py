"""Who may call: tokens, passwords, keys, addresses, as a client meets them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connectors.test_http_connector import Listening, Rig, get, hub, post
from triggerhub.connector import Reference, SpecError
from triggerhub.testing.fakes import subscription
from triggerhub_http.addresses import Elsewhere, Places
from triggerhub_http.passwords import Busy, Passwords
from triggerhub_http.security import Addresses
from triggerhub_http.source import HTTPSource
from triggerhub_http.tokens import Tokens

KEPT = Reference(env="KEPT")
ENV = {"env": "KEPT"}
GOOD = "s3cr3t-of-ci"
LINES = b"# callers\nci sha256:%b\nops  sha256:%b\n" % (
    hashlib.sha256(GOOD.encode()).hexdigest().encode(),
    hashlib.sha256(b"other").hexdigest().upper().encode(),
)
CHEAP = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4, b"2b")).replace(b"$2b$", b"$2y$")
HTPASSWD = b"ali:" + CHEAP + b"\n"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


async def asked(rig: Rig, source: dict[str, Any], **values: bytes) -> Listening:
    listening = rig.listen(source, values=values or {"KEPT": LINES})
    await listening.report.until("connected")
    return listening


def basic(pair: bytes) -> str:
    return f"authorization: Basic {base64.b64encode(pair).decode()}"


async def test_who_has_a_token_is_let_in_by_name_and_the_token_stays_here(rig: Rig) -> None:
    listening = await asked(rig, {"auth": {"bearer": ENV}})
    field = f"authorization: Bearer {GOOD}"
    assert (await rig.ask(get("/", field, "triggerhub-caller: root")))[0] == 200
    event = listening.function.events[0]
    assert event.request is not None
    named = [pair for pair in event.request.headers if pair[0] == b"triggerhub-caller"]
    assert named == [(b"triggerhub-caller", b"ci")]
    assert GOOD not in repr(event)
    assert (await rig.ask(get("/", "authorization: bearer   other")))[0] == 200


async def test_nobody_calls_the_function_by_a_name_that_the_hub_did_not_give(rig: Rig) -> None:
    function = await rig.serve()
    await rig.ask(get("/", "triggerhub-caller: root"))
    assert b"root" not in repr(function.events[0].request).encode()


async def test_what_was_checked_is_passed_on_where_that_is_asked_for(rig: Rig) -> None:
    listening = await asked(rig, {"auth": {"bearer": ENV, "passOn": True}})
    await rig.ask(get("/", f"authorization: Bearer {GOOD}"))
    assert GOOD in repr(listening.function.events[0].request)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "NoCredentials"),
        (["authorization: Bearer wrong"], "BadCredentials"),
        (["authorization: Bearer"], "BadCredentials"),
        (["authorization: Bearer \xff\xfe"], "BadCredentials"),
        (["authorization: " + GOOD], "NoCredentials"),
        (["authorization: Basic " + GOOD], "NoCredentials"),
        (["authorization: "], "NoCredentials"),
        (["x-api-key: " + GOOD], "NoCredentials"),
        (["connection: authorization", f"authorization: Bearer {GOOD}"], "NoCredentials"),
    ],
)
async def test_who_has_none_is_told_what_to_bring_and_counted(
    rig: Rig, fields: list[str], reason: str
) -> None:
    listening = await asked(rig, {"auth": {"bearer": ENV}})
    status, told, body = await rig.ask(get("/", *fields).encode("latin-1"))
    assert (status, json.loads(body)["error"]) == (401, reason)
    assert told["www-authenticate"].startswith('Bearer realm="shop/orders"')
    assert GOOD.encode() not in body
    assert listening.report.turned == [reason]
    assert not listening.function.events


async def test_two_of_a_field_are_refused_whoever_is_first(rig: Rig) -> None:
    listening = await asked(rig, {"auth": {"bearer": ENV}})
    two = [f"authorization: Bearer {GOOD}", "authorization: Bearer wrong"]
    assert (await rig.ask(get("/", *two)))[0] == 400
    assert (await rig.ask(get("/", *reversed(two))))[0] == 400
    assert listening.report.turned == ["BadRequest"] * 2


async def test_a_refused_body_is_not_waited_for(rig: Rig) -> None:
    await asked(rig, {"auth": {"bearer": ENV}, "maxBodySize": "1Gi"})
    for size, closed in (("content-length: 500000000", True), ("transfer-encoding: chunked", True)):
        client = await rig.client()
        client.send(get("/", size, method="POST"))
        status, fields, _ = await client.reply()
        assert (status, fields.get("connection")) == (401, "close" if closed else None)
        assert await client.closed()
    client = await rig.client()
    client.send(post("/", "small"))
    assert (await client.reply())[0] == 401
    client.send(post("/", "small", f"authorization: Bearer {GOOD}"))
    assert (await client.reply())[0] == 200


async def test_a_key_has_a_field_of_its_own(rig: Rig) -> None:
    listening = await asked(rig, {"auth": {"apiKey": {"header": "X-Key", "keys": ENV}}})
    assert (await rig.ask(get("/", f"x-key: {GOOD}")))[0] == 200
    assert GOOD not in repr(listening.function.events[0])
    status, fields, body = await rig.ask(get("/", "x-key: wrong"))
    assert (status, json.loads(body)["error"]) == (401, "BadCredentials")
    assert fields["www-authenticate"] == 'ApiKey realm="shop/orders", header="x-key"'


async def test_a_password_is_checked_and_then_remembered_for_a_while(rig: Rig) -> None:
    listening = await asked(rig, {"auth": {"basic": ENV}}, KEPT=HTPASSWD)
    for _ in range(2):
        assert (await rig.ask(get("/", basic(b"ali:open sesame"))))[0] == 200
    assert b"ali" in dict(listening.function.events[1].request.headers).values()  # type: ignore[union-attr]
    for wrong in (b"ali:open", b"ali:", b"bob:open sesame", b"ali", b":", b"ali:\0", b"\xff:a",
                  b"ali:" + b"x" * 100):  # fmt: skip
        status, fields, body = await rig.ask(get("/", basic(wrong)))
        assert (status, json.loads(body)["error"]) == (401, "BadCredentials")
        assert fields["www-authenticate"] == 'Basic realm="shop/orders", charset="UTF-8"'
    assert (await rig.ask(get("/", "authorization: Basic %%%")))[0] == 401


async def test_of_several_ways_each_is_enough(rig: Rig) -> None:
    ways = {"bearer": ENV, "basic": {"env": "USERS"}, "apiKey": {"keys": ENV}}
    await asked(rig, {"auth": ways}, KEPT=LINES, USERS=HTPASSWD)
    for field in (f"authorization: Bearer {GOOD}", basic(b"ali:open sesame"), f"x-api-key: {GOOD}"):
        assert (await rig.ask(get("/", field)))[0] == 200
    status, fields, _ = await rig.ask(get())
    assert status == 401
    assert fields["www-authenticate"].startswith("ApiKey"), "the last of three"


def passwords(kept: bytes, now: list[float]) -> Passwords:
    source = HTTPSource.model_validate({"auth": {"basic": ENV}})
    given = subscription(source, values={KEPT: kept})
    return Passwords("spec.source.auth.basic", KEPT, given, now=lambda: now[0])


async def test_a_password_that_was_right_is_checked_anew_after_five_minutes() -> None:
    now = [1000.0]
    found = passwords(HTPASSWD, now)
    pair = base64.b64encode(b"ali:open sesame")
    assert await found.holder(pair) == "ali"
    assert b"open sesame" not in repr(vars(found)).encode()
    found.close()  # from now on, what would have to be checked cannot be
    now[0] += 299
    assert await found.holder(pair) == "ali"
    for other in (b"ali:open sesame ", b"al:iopen sesame"):
        with pytest.raises(Busy):
            await found.holder(base64.b64encode(other))
    now[0] += 1
    with pytest.raises(Busy):
        await found.holder(pair)


async def test_passwords_are_checked_beside_the_event_loop_and_not_without_end() -> None:
    found = passwords(b"ali:" + bcrypt.hashpw(b"x", bcrypt.gensalt(10)) + b"\n", [0.0])
    tries = [base64.b64encode(b"ali:wrong %d" % n) for n in range(70)]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(found.holder(one)) for one in tries[:64]]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await found.holder(tries[65])
        assert not any(task.done() for task in running), "the loop went on meanwhile"
        for task in running[4:]:
            task.cancel()
    assert [task.result() for task in running[:4]] == [None] * 4
    assert await found.holder(tries[66]) is None, "who gave up makes room"
    found.close()


@pytest.mark.parametrize(
    "line",
    [
        b"ali:open sesame",
        b"ali:$apr1$c7UsM/Ws$0pMmkWHf2OiXZqRnHqn9h/",
        b"ali:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        CHEAP,
        b"ali:" + CHEAP.replace(b"$04$", b"$31$"),
        b"ali:" + CHEAP[:-1],
    ],
    ids=["plain", "apr1", "sha", "nameless", "dear", "short"],
)
def test_a_password_file_without_bcrypt_is_told_and_not_shown(line: bytes) -> None:
    with pytest.raises(
        SpecError, match=r"line 2 of environment variable KEPT.*htpasswd -B"
    ) as told:
        passwords(HTPASSWD + line, [0.0])
    assert "ali" not in str(told.value)


@pytest.mark.parametrize(
    "kept",
    [b"ci " + GOOD.encode(), b"sha256:" + b"0" * 64, b"ci sha256:00", b"a b sha256:" + b"0" * 64],
)
def test_a_token_that_is_not_hashed_is_told_and_not_shown(kept: bytes) -> None:
    given = subscription(HTTPSource(), values={KEPT: LINES + kept})
    with pytest.raises(SpecError, match="line 4 of environment variable KEPT") as told:
        Tokens("spec.source.auth.bearer", KEPT, given)
    assert GOOD not in str(told.value)


@given(st.binary(max_size=100))
def test_no_other_token_is_anybodys(token: bytes) -> None:
    found = Tokens("w", KEPT, subscription(HTTPSource(), values={KEPT: LINES}))
    assert found.holder(GOOD.encode()) == "ci"
    assert (found.holder(token) is None) == (token not in (GOOD.encode(), b"other"))


def places(**spec: Any) -> Places:
    return Places(Addresses.model_validate(spec))


def admitted(found: Places, peer: str, said: str) -> bool:
    try:
        found.check(peer, dict.fromkeys((b"x-forwarded-for", b"forwarded"), said.encode("latin-1")))
    except Elsewhere:
        return False
    return True


CLIENTS = {"allow": ["203.0.113.0/24", "2001:db8::/32"], "trustedProxies": ["10.0.0.0/8", "::1"]}


@pytest.mark.parametrize(
    ("peer", "said", "taken"),
    [
        ("203.0.113.7", "", True),
        ("::ffff:203.0.113.7", "", True),
        ("2001:db8::7", "", True),
        ("198.51.100.1", "", False),
        ("198.51.100.1", "203.0.113.7", False),  # no proxy of ours said so
        ("10.0.0.1", "203.0.113.7", True),
        ("10.0.0.1", "", False),
        ("10.0.0.1", "198.51.100.1", False),
        ("10.0.0.1", "203.0.113.7, 198.51.100.1", False),  # the first is made up
        ("10.0.0.1", "198.51.100.1, 203.0.113.7, 10.2.2.2", True),
        ("10.0.0.1", "203.0.113.7:4711", True),
        ("::1", "[2001:db8::7]:80", True),
        ("10.0.0.1", "203.0.113.7, unknown", False),
        ("10.0.0.1", "203.0.113.7,", False),
        ("10.0.0.1", "203.0.113.7 203.0.113.7", False),
        ("10.0.0.1", "203.0.113.07", False),
        ("", "203.0.113.7", False),
    ],
)
def test_a_client_is_whom_the_last_trusted_proxy_names(peer: str, said: str, taken: bool) -> None:
    assert admitted(places(**CLIENTS), peer, said) is taken


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("for=203.0.113.7", True),
        ('for=198.51.100.1, FOR="203.0.113.7:80";proto=https', True),
        ('for="[2001:db8::7]:4711"', True),
        ("by=10.0.0.9;for=203.0.113.7;host=a", True),
        ("for=203.0.113.7, for=198.51.100.1", False),
        ("for=203.0.113.7, by=10.0.0.9", False),
        ("for=203.0.113.7, for=_hidden", False),
        ('for=203.0.113.7, for="198.51.100.1', False),
        ('for="198.51.100.1, for=203.0.113.7"', False),
        ("203.0.113.7", False),
    ],
)
def test_a_forwarded_field_is_read_by_its_grammar(said: str, taken: bool) -> None:
    assert admitted(places(**CLIENTS, header="Forwarded"), "10.0.0.1", said) is taken


@given(
    st.sampled_from(["X-Forwarded-For", "Forwarded"]),
    st.text(st.characters(max_codepoint=255), max_size=60),
)
def test_whatever_a_field_says_who_is_not_allowed_stays_out(header: str, said: str) -> None:
    found = places(allow=["203.0.113.7"], trustedProxies=["10.0.0.0/8"], header=header)
    if "203.0.113.7" not in said:
        assert not admitted(found, "10.0.0.1", said)
    assert not admitted(found, "198.51.100.1", said)


async def test_who_calls_from_elsewhere_is_403_even_with_a_token(rig: Rig) -> None:
    spec = {
        "bearer": ENV,
        "addresses": {"allow": ["203.0.113.0/24"], "trustedProxies": ["127.0.0.1"]},
    }
    listening = await asked(rig, {"auth": spec})
    field = f"authorization: Bearer {GOOD}"
    status, _, body = await rig.ask(get("/", field))
    assert (status, json.loads(body)["error"]) == (403, "AddressRefused")
    assert (await rig.ask(get("/", field, "x-forwarded-for: 203.0.113.5")))[0] == 200
    assert (await rig.ask(get("/", field, "x-forwarded-for: 203.0.113.5, 8.8.8.8")))[0] == 403
    assert (await rig.ask(get("/", "x-forwarded-for: 203.0.113.5")))[0] == 401
    assert listening.report.turned == ["AddressRefused"] * 2 + ["NoCredentials"]


def signed(body: str, *fields: str, secret: bytes = b"hook") -> str:
    made = hmac.digest(secret, body.encode(), "sha256").hex()
    return post("/", body, f"x-hub-signature-256: sha256={made}", *fields)


async def test_a_signed_body_is_delivered_and_a_changed_one_is_403(rig: Rig) -> None:
    spec = {"signature": {"preset": "GitHub", "env": "KEPT"}, "maxBodySize": "4Mi"}
    listening = await asked(rig, spec, KEPT=b"hook\nnext\n")
    for body in ("{}", "", "x" * 1_000_000):
        assert (await rig.ask(signed(body)))[0] == 200
        assert listening.function.events[-1].data == body.encode()
    assert (await rig.ask(signed("{}", secret=b"next")))[0] == 200
    good = len(listening.function.events)
    status, _, body_ = await rig.ask(signed("{}").replace("{}", "[]"))
    assert (status, json.loads(body_)["error"]) == (403, "BadSignature")
    assert (await rig.ask(signed("{}", secret=b"wrong")))[0] == 403
    client = await rig.client()
    client.send(get("/", "content-length: 1000000", method="POST"))
    assert (await client.reply())[0] == 403, "no signature: its body is not waited for"
    assert listening.report.turned == ["BadSignature", "BadSignature", "NoSignature"]
    assert len(listening.function.events) == good


async def test_a_signature_is_taken_once_unless_its_request_failed(rig: Rig) -> None:
    spec = {"signature": {"preset": "GitHub", "replayWindow": "1m", "env": "KEPT"}}
    listening = await asked(rig, spec, KEPT=b"hook")
    listening.function.open.clear()
    first = await rig.client()
    first.send(signed("{}"))
    await listening.function.until(lambda f: f.now == 1)
    assert (await rig.ask(signed("{}")))[0] == 409, "it is under way"
    first.writer.close()
    await listening.function.until(lambda f: f.gone == 1)
    listening.function.open.set()
    assert (await rig.ask(signed("{}")))[0] == 200, "the first was not answered"
    status, _, body = await rig.ask(signed("{}"))
    assert (status, json.loads(body)["error"]) == (409, "Replayed")
    await listening.stop()
    await asked(rig, spec, KEPT=b"hook")
    assert (await rig.ask(signed("{}")))[0] == 409, "a listener that starts anew still knows"
