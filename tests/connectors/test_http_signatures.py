"""Signatures of senders: each preset by a vector that its sender has published."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.connector import SpecError
from triggerhub.testing.fakes import subscription
from triggerhub_http.security import Signature
from triggerhub_http.signatures import Replays, Signatures, Stated, Unsigned
from triggerhub_http.source import HTTPSource

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id="
    b"G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-"
    b"collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F39770088"
    b"5554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447"
    b"fce8b6703c"
)
STRIPE_BODY = b"""{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"""


def signatures(spec: dict[str, Any], secret: bytes) -> Signatures:
    made = Signature.model_validate({"env": "SECRET", **spec})
    source = HTTPSource(signature=made)
    return Signatures("spec.source.signature", made, subscription(source, values={made: secret}))


def passes(found: Signatures, fields: dict[bytes, bytes], body: bytes, now: float = 0.0) -> bool:
    try:
        return bool(found.verify(found.read(fields, now), body))
    except Unsigned:
        return False


PUBLISHED = {
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries,
    # "Testing the webhook payload validation".
    "GitHub": (
        b"It's a Secret to Everybody",
        {
            b"x-hub-signature-256": b"sha256="
            b"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        },
        b"Hello, World!",
        0,
    ),
    # https://docs.slack.dev/authentication/verifying-requests-from-slack, its worked example.
    "Slack": (
        b"8f742231b10e8888abcd99yyyzzz85a5",
        {
            b"x-slack-signature": b"v0="
            b"a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            b"x-slack-request-timestamp": b"1531420618",
        },
        SLACK_BODY,
        1531420618,
    ),
    # https://github.com/stripe/stripe-dotnet, src/StripeTests/Services/Events/EventUtilityTest.cs
    # and src/StripeTests/Resources/event_test_signature.json: Stripe's documents have none.
    "Stripe": (
        b"webhook_secret",
        {
            b"stripe-signature": b"t=1533204620,"
            b"v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,"
            b"v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
        },
        STRIPE_BODY,
        1533204620,
    ),
    # https://github.com/standard-webhooks/standard-webhooks: its libraries' reference test.
    "StandardWebhooks": (
        b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        {
            b"webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
            b"webhook-timestamp": b"1614265330",
            b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        1614265330,
    ),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_what_a_sender_has_published_passes_and_nothing_near_it(preset: str) -> None:
    secret, fields, body, moment = PUBLISHED[preset]
    found = signatures({"preset": preset}, secret)
    assert found.needs == set(fields)
    assert passes(found, fields, body, moment)
    assert not passes(found, fields, body + b" ", moment)
    assert not passes(found, fields, b"", moment)
    changed = secret[:-1] + (b"A" if secret[-1:] != b"A" else b"B")
    assert not passes(signatures({"preset": preset}, changed), fields, body, moment)
    for name, value in fields.items():
        assert not passes(found, fields | {name: b""}, body, moment)
        near = value.replace(b"1", b"2").replace(b"5", b"6")
        assert not passes(found, fields | {name: near}, body, moment)
        assert not passes(found, {n: v for n, v in fields.items() if n != name}, body, moment)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_secret_may_be_changed_without_a_gap(preset: str) -> None:
    secret, fields, body, moment = PUBLISHED[preset]
    other = b"whsec_" + base64.b64encode(b"another")
    for both in (secret + b"\n" + other + b"\n", b"# the old one\n" + other + b"\r\n" + secret):
        assert passes(signatures({"preset": preset}, both), fields, body, moment)


@pytest.mark.parametrize("preset", ["Slack", "Stripe", "StandardWebhooks"])
@pytest.mark.parametrize(("off", "taken"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_a_signed_time_is_good_within_its_tolerance(preset: str, off: int, taken: bool) -> None:
    secret, fields, body, moment = PUBLISHED[preset]
    found = signatures({"preset": preset}, secret)
    if taken:
        found.read(fields, moment + off)
    else:
        with pytest.raises(Unsigned, match="300 s") as caught:
            found.read(fields, moment + off)
        assert caught.value.reason == "StaleSignature"
    assert passes(signatures({"preset": preset, "tolerance": "10m"}, secret), fields, body, moment)


def test_of_several_signatures_one_that_is_right_is_enough() -> None:
    secret, fields, body, moment = PUBLISHED["Stripe"]
    right = fields[b"stripe-signature"]
    found = signatures({"preset": "Stripe"}, secret)
    assert passes(found, {b"stripe-signature": right + b",v1=00,v1=zz"}, body, moment)
    assert not passes(found, {b"stripe-signature": right + b",v1=00" * 16}, body, moment)
    assert not passes(found, {b"stripe-signature": right + b",t=1533204620"}, body, moment)
    secret, fields, body, moment = PUBLISHED["StandardWebhooks"]
    found = signatures({"preset": "StandardWebhooks"}, secret)
    several = b"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5B v1,AAAA v1,* "
    more = fields | {b"webhook-signature": several + fields[b"webhook-signature"]}
    assert passes(found, more, body, moment)


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA512", "SHA1"])
@pytest.mark.parametrize("encoding", ["Hex", "Base64"])
@pytest.mark.parametrize(
    ("more", "before"),
    [
        ({}, b""),
        ({"prefix": "v1="}, b""),
        ({"timestampHeader": "X-Time"}, b"1700000000."),
        ({"timestampHeader": "X-Time", "signed": "a:{timestamp}:b:{body}"}, b"a:1700000000:b:"),
        ({"signed": "once {body}"}, b"once "),
    ],
)
def test_a_sender_without_a_preset_is_described(
    algorithm: str, encoding: str, more: dict[str, str], before: bytes
) -> None:
    spec = {"header": "X-Sig", "algorithm": algorithm, "encoding": encoding, **more}
    made = hmac.digest(b"secret", before + b"body", getattr(hashlib, algorithm.lower()))
    text = made.hex().encode() if encoding == "Hex" else base64.b64encode(made)
    fields = {b"x-sig": more.get("prefix", "").encode() + text, b"x-time": b"1700000000"}
    found = signatures({"hmac": spec}, b"secret")
    assert passes(found, fields, b"body", 1700000000)
    assert not passes(found, fields, b"Body", 1700000000)
    if "prefix" in more:
        assert not passes(found, fields | {b"x-sig": text}, b"body", 1700000000)


@pytest.mark.parametrize(
    ("preset", "secret"),
    [
        ("GitHub", b""),
        ("GitHub", b"\n \n# nothing\n"),
        ("GitHub", b"\xff\xfe"),
        ("GitHub", b"\n".join(b"%d" % n for n in range(9))),
        ("StandardWebhooks", b"whsec_not base64!"),
        ("StandardWebhooks", b"whsec_"),
    ],
)
def test_a_secret_that_is_none_is_told_and_not_shown(preset: str, secret: bytes) -> None:
    with pytest.raises(SpecError, match=r"^spec\.source\.signature: ") as caught:
        signatures({"preset": preset}, secret)
    assert "environment variable SECRET" in str(caught.value)
    assert "not base64" not in str(caught.value)


ANY_FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for _, fields, _, _ in PUBLISHED.values() for name in fields})),
    st.binary(max_size=80)
    | st.from_regex(
        rb"(t=[0-9]{1,11}|v1[,=][0-9a-zA-Z+/=]{0,70}|sha256=|v0=|[ ,=.])*", fullmatch=True
    ),
)


@given(st.sampled_from(sorted(PUBLISHED)), ANY_FIELDS, st.binary(max_size=50))
def test_what_anybody_may_send_is_unsigned_and_nothing_worse(
    preset: str, fields: dict[bytes, bytes], body: bytes
) -> None:
    secret, right, _, moment = PUBLISHED[preset]
    found = signatures({"preset": preset}, secret)
    assert not passes(found, fields, body, moment)
    assert not passes(found, right | fields, body, moment)


def test_a_signature_is_remembered_as_long_as_it_could_be_sent_again() -> None:
    secret, fields, _, moment = PUBLISHED["Stripe"]
    stated = signatures({"preset": "Stripe"}, secret).read(fields, moment)
    for spec, expected in (
        ({"preset": "Stripe"}, moment + 300),
        ({"preset": "Stripe", "tolerance": "1h"}, moment + 3600),
        ({"preset": "Stripe", "replayWindow": "20m"}, moment + 50 + 1200),
    ):
        assert signatures(spec, secret).spent_until(stated, moment + 50) == expected
    untimed = Stated([b""])
    assert signatures({"preset": "GitHub"}, b"s").spent_until(untimed, 5.0) == 0
    window = {"preset": "GitHub", "replayWindow": "60s"}
    assert signatures(window, b"s").spent_until(untimed, 5.0) == 65


def test_what_is_under_way_or_was_taken_is_not_taken_again() -> None:
    replays = Replays()
    assert replays.enter(b"a", 100.0)
    assert not replays.enter(b"a", 100.0), "under way"
    replays.leave(b"a", 0.0)
    assert replays.enter(b"a", 101.0), "it was not answered well: its sender tries again"
    replays.leave(b"a", 130.0)
    assert not replays.enter(b"a", 129.9)
    assert replays.enter(b"a", 130.1)


def test_what_is_remembered_is_bounded_and_what_has_passed_is_forgotten() -> None:
    replays = Replays(most=2000)
    for n in range(10_000):
        assert replays.enter(b"%d" % n, 0.0)
        replays.leave(b"%d" % n, 50.0)
        assert len(replays) <= 2000
    assert not replays.enter(b"9999", 49.0)
    for n in range(3000):
        assert replays.enter(b"later %d" % n, 60.0)
        replays.leave(b"later %d" % n, 70.0)
    assert not replays.enter(b"later 2999", 60.0)
