"""SASL OAUTHBEARER of a KafkaTrigger: what may be written, and where its tokens come from.

integration/test_kafka_oauth.py has the broker that takes them, and the authorization server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from triggerhub.connector import Installation, Reference, SpecError
from triggerhub.control.references import references
from triggerhub.credentials import Contexts
from triggerhub.testing.fakes import RecordingReport, subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.access import Accesses
from triggerhub_kafka.oauth import Account, Granted
from triggerhub_kafka.problems import ExtraMissingError
from triggerhub_kafka.refusal import TokenUnavailable
from triggerhub_kafka.security import ClientCredentials
from triggerhub_kafka.web import Answer, Unreachable, Web

CANARY = "hunter2"
KEPT = {"secretRef": {"name": "kafka", "key": "k"}}
GRANTED = {
    "tokenEndpoint": "https://login.example/token",
    "clientId": "hub",
    "clientSecret": KEPT,
}


def source(**sasl: Any) -> KafkaSource:
    return KafkaSource.model_validate(
        {"topic": "orders", "security": {"sasl": {"mechanism": "OAUTHBEARER"} | sasl}}
    )


def options(spec: KafkaSource, value: bytes) -> dict[str, Any]:
    """What a client is made with, where that is what the Secret holds."""
    known = {Reference.model_validate(KEPT): value}
    bound = subscription(spec, name="shop.orders.f", values=known)
    return dict(Accesses(Contexts()).of(bound, ["kafka.example:9093"]).options)


@pytest.mark.parametrize(
    ("sasl", "message"),
    [
        ({}, "found none, expected exactly one of token, oauth, provider"),
        ({"token": KEPT, "oauth": GRANTED}, "found token and oauth, expected exactly one of"),
        ({"token": KEPT, "username": "x"}, "found username and token, expected neither username"),
        ({"mechanism": "PLAIN", "token": KEPT}, "found token, expected username and password"),
        ({"oauth": GRANTED | {"tokenEndpoint": "http://a/"}}, "expected an https URL such as"),
        ({"oauth": GRANTED | {"scope": 'a "b"'}}, "expected a scope such as kafka.read"),
    ],
)
def test_faults_say_what_was_found_and_expected(sasl: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        source(**sasl)
    assert message in str(caught.value)


def test_whatever_is_kept_elsewhere_is_found_in_the_source() -> None:
    def kept(key: str) -> dict[str, Any]:
        return {"secretRef": {"name": "kafka", "key": key}}

    spec = KafkaSource.model_validate(
        {
            "topic": "orders",
            "security": {
                "sasl": {
                    "mechanism": "OAUTHBEARER",
                    "provider": {"name": "aws", "options": {"a": kept("a"), "b": "text"}},
                }
            },
            "schemaRegistry": {
                "url": "https://r",
                "basic": {"username": kept("b"), "password": kept("c")},
                "tls": {"ca": kept("d")},
            },
        }
    )
    keys = [found.secret_ref.key for found in references(spec) if found.secret_ref is not None]
    assert sorted(keys) == ["a", "b", "c", "d"]


async def test_a_token_that_is_kept_is_given_as_it_is() -> None:
    found = options(source(token=KEPT), b" eyJ.a_b-c~+/==\n")
    assert (found["security_protocol"], found["sasl_mechanism"]) == (
        "SASL_PLAINTEXT",
        "OAUTHBEARER",
    )
    assert await found["sasl_oauth_token_provider"].token() == "eyJ.a_b-c~+/=="
    assert "sasl_plain_username" not in found


@pytest.mark.parametrize("value", [b"", b"a b", b"a\x01auth=b", b"a=b", "tök".encode(), b"\xff"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(value: bytes) -> None:
    with pytest.raises(SpecError) as caught:
        options(source(token=KEPT), value + CANARY.encode() if value else value)
    assert str(caught.value).startswith("spec.source.security.sasl.token: expected ")
    assert CANARY not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_what_is_not_installed_is_told_with_the_command_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # as if it were not there
    known = {Reference.model_validate(KEPT): b"x"}
    bound = subscription(source(oauth=GRANTED), name="shop.orders.f", values=known)
    said = "spec.source.security.sasl.oauth needs: pip install 'triggerhub[kafka-oauth]'"
    with pytest.raises(ExtraMissingError) as caught:
        await KafkaConnector(Installation()).listen(bound)
    assert str(caught.value) == said
    report = bound.report
    assert isinstance(report, RecordingReport)
    assert (report.said, report.message) == (["ExtraNotInstalled"], said)


class Server(Web):
    """An authorization server in memory, which a request reaches in a second."""

    def __init__(self) -> None:  # no connections
        self.asked = 0
        self.answer: dict[str, Any] = {"token_type": "bearer", "expires_in": 100}
        self.status = 200
        self.away = False

    async def ask(self, method: str, url: str, form: bytes | None = None) -> Answer:
        self.asked += 1
        await asyncio.sleep(1.0)
        if self.away:
            raise Unreachable("refused")
        token = {"access_token": f"token-{self.asked}"}
        return Answer(self.status, json.dumps(token | self.answer).encode())


def granted(server: Server) -> Granted:
    account = Account("Basic x", ssl.create_default_context())
    provider = Granted(ClientCredentials.model_validate(GRANTED), "spec.oauth", account)
    provider._web = server
    return provider


@pytest.mark.looptime
class TestClientCredentials:
    async def test_are_asked_for_once_by_all_who_connect_at_once(self) -> None:
        server = Server()
        provider = granted(server)
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(provider.token()) for _ in range(20)]
        assert {task.result() for task in found} == {"token-1"}

    async def test_bring_a_new_token_before_the_old_one_ends(self) -> None:
        server = Server()
        provider = granted(server)
        assert await provider.token() == "token-1"
        await asyncio.sleep(78)  # 79 since it was asked for
        assert await provider.token() == "token-1"
        await asyncio.sleep(2)
        assert await provider.token() == "token-2"

    async def test_are_asked_for_anew_when_a_broker_refuses_the_token(self) -> None:
        provider = granted(Server())
        assert await provider.token() == "token-1"
        provider.refused()
        assert await provider.token() == "token-2"

    async def test_of_a_server_that_is_away_serve_as_long_as_they_live(self) -> None:
        server = Server()
        provider = granted(server)
        await provider.token()
        server.away = True
        await asyncio.sleep(90)
        assert await provider.token() == "token-1"
        await asyncio.sleep(10)
        with pytest.raises(TokenUnavailable) as caught:
            await provider.token()
        assert str(caught.value) == "no token from https://login.example/token: refused"
        server.away = False
        assert (await provider.token()).startswith("token-")

    async def test_without_a_time_of_life_are_taken_for_five_minutes(self) -> None:
        server = Server()
        server.answer = {"token_type": "Bearer"}
        provider = granted(server)
        await provider.token()
        await asyncio.sleep(230)
        assert await provider.token() == "token-1"
        await asyncio.sleep(20)
        assert await provider.token() == "token-2"

    @pytest.mark.parametrize(
        ("status", "answer", "said"),
        [
            (200, {"token_type": "mac"}, "answered 200 without a bearer token"),
            (200, {"token_type": "bearer", "access_token": "a b"}, "without a bearer token"),
            (200, {"token_type": "bearer", "access_token": None}, "without a bearer token"),
            (200, {"token_type": "bearer", "expires_in": "soon"}, "without a bearer token"),
            (500, {"error": "server_error"}, "gives no token: 500, server_error"),
            (404, {}, "gives no token: 404, it does not say why"),
        ],
    )
    async def test_that_are_none_are_unavailable(
        self, status: int, answer: dict[str, Any], said: str
    ) -> None:
        server = Server()
        server.status, server.answer = status, answer
        with pytest.raises(TokenUnavailable, match=said) as caught:
            await granted(server).token()
        assert "token-1" not in str(caught.value)
