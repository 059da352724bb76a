"""SASL OAUTHBEARER against a real broker, which checks signature, issuer, audience and time of each
token by itself; it wants a new login every three seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import trustme

from integration import kafka_tools as tools
from integration.fakes import Listening, eventually, listening
from integration.function import answering, reply
from integration.hub import function, running
from integration.issuer import AuthorizationServer, Issuer, authorizing
from integration.servers import Kafka
from integration.streams import Stream, arrived, firsts, in_order, kafka_trigger
from integration.test_kafka_letters import made
from integration.test_kafka_security import TLS, Values, known, secret, sockets, told
from triggerhub.connector import Installation, SpecError
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.problems import ListenError

_numbers = iter(range(1_000_000))


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """One with a record."""
    name = f"bearer-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name)
    await tools.produce(kafka.broker, name, [b"1"])
    return name


@pytest.fixture
def server(kafka: Kafka) -> Iterator[AuthorizationServer]:
    with authorizing(kafka.issuer, kafka.authority) as server:
        yield server


def listen(
    kafka: Kafka, topic: str, login: dict[str, Any], values: Values, **broker: Any
) -> AbstractAsyncContextManager[Listening]:
    sasl = {"mechanism": "OAUTHBEARER"} | login
    spec = KafkaSource.model_validate(
        {
            "topic": topic, "brokers": [broker.get("broker", kafka.at("BEARER"))],
            "startFrom": "Earliest", "security": {"tls": TLS, "sasl": sasl},
        }
    )  # fmt: skip
    values = {"ca": kafka.authority.cert_pem.bytes()} | dict(values)
    name = f"shop.{topic}.handle"
    return listening(KafkaConnector(Installation()), spec, name=name, values=known(values))


async def refused(
    kafka: Kafka, topic: str, login: dict[str, Any], values: Values, **broker: Any
) -> tuple[str, str]:
    """The reason that is reported, and what is said. It shows no value, and every connection is
    closed afterwards."""
    before = sockets()
    async with listen(kafka, topic, login, values, **broker) as running:
        with pytest.raises(ListenError) as caught:
            async with asyncio.timeout(30):
                await running.task
    assert running.report.messages[-1] == str(caught.value)
    assert not running.emit.begun
    shown = f"{caught.value!r} {caught.value.__cause__!r} {running.report.messages}"
    for value in values.values():
        assert value.decode() not in shown
    await eventually(lambda: sockets() <= before, "every connection closed")
    return running.report.state, str(caught.value)


def oauth(server: AuthorizationServer, **change: Any) -> dict[str, Any]:
    return {
        "oauth": {
            "tokenEndpoint": server.endpoint,
            "clientId": server.CLIENT,
            "clientSecret": secret("secret"),
            "scope": "kafka.read",
            "ca": secret("ca"),
        }
        | change
    }


SECRET = {"secret": AuthorizationServer.SECRET.encode()}
KEPT = {"token": secret("token")}


class TestToken:
    async def test_that_is_good_lets_the_hub_in(self, kafka: Kafka, topic: str) -> None:
        token = f"{kafka.issuer.token()}\n".encode()
        async with listen(kafka, topic, KEPT, {"token": token}) as running:
            await running.accepted(1)
            await running.connected()
            await tools.produce(kafka.broker, topic, [b"2"])
            await running.accepted(2)
            await running.stop()
        assert await tools.committed(kafka.broker, f"triggerhub.shop.{topic}.handle", topic) == 2

    @pytest.mark.parametrize(
        "of",
        [
            lambda issuer: issuer.token(life=-60),
            lambda issuer: issuer.token(aud="another"),
            lambda issuer: issuer.token(iss="https://another.example"),
            lambda issuer: Issuer().token(),
            lambda issuer: "no-jwt",
        ],
        ids=["expired", "audience", "issuer", "signature", "form"],
    )
    async def test_that_is_refused_is_told_as_such(self, kafka: Kafka, topic: str, of: Any) -> None:
        token = of(kafka.issuer).encode()
        reason, said = await refused(kafka, topic, KEPT, {"token": token})
        assert reason == "AuthenticationFailed"
        assert said.startswith(f"{kafka.at('BEARER')} refuses the token (invalid_token): ")
        assert "check spec.source.security.sasl" in said

    async def test_that_expires_while_the_hub_listens_is_told(
        self, kafka: Kafka, topic: str
    ) -> None:
        token, before = kafka.issuer.token(life=10).encode(), sockets()
        async with listen(kafka, topic, KEPT, {"token": token}) as running:
            await running.accepted(1)
            with pytest.raises(ListenError, match="refuses the token"):
                async with asyncio.timeout(60):
                    await running.task
            assert running.report.states == ["Connected", "AuthenticationFailed"]
        await eventually(lambda: sockets() <= before, "every connection closed")

    async def test_is_not_what_a_broker_wants_that_offers_other_mechanisms(
        self, kafka: Kafka, topic: str
    ) -> None:
        broker, token = kafka.at("LOGINTLS"), kafka.issuer.token().encode()
        assert await refused(kafka, topic, KEPT, {"token": token}, broker=broker) == (
            "AuthenticationFailed",
            (
                f"{broker} does not offer the mechanism of spec.source.security.sasl: "
                "it offers PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"
            ),
        )


class TestClientCredentials:
    async def test_bring_a_new_token_for_each_login_that_outlives_the_last(
        self, kafka: Kafka, topic: str, server: AuthorizationServer
    ) -> None:
        server.life = 5.0
        async with listen(kafka, topic, oauth(server), SECRET) as running:
            for number in range(2, 18):
                await tools.produce(kafka.broker, topic, [b"%d" % number])
                await asyncio.sleep(0.5)
            await running.accepted(17)
            assert running.emit.data() == [b"%d" % number for number in range(1, 18)]
            assert running.report.states == ["Connected"]
            await running.stop()
        assert len(server.given) >= 2
        assert await tools.committed(kafka.broker, f"triggerhub.shop.{topic}.handle", topic) == 17

    async def test_are_asked_for_once_as_long_as_the_token_lives(
        self, kafka: Kafka, topic: str, server: AuthorizationServer
    ) -> None:
        async with listen(kafka, topic, oauth(server), SECRET) as running:
            await running.accepted(1)
            await running.connected()
        assert len(server.given) == 1

    async def test_that_are_refused_are_told(
        self, kafka: Kafka, topic: str, server: AuthorizationServer
    ) -> None:
        for change, values, why in (
            ({}, {"secret": b"hunter2"}, "401, invalid_client: who is that"),
            ({"clientId": "nobody"}, SECRET, "401, invalid_client: who is that"),
            ({"scope": "all"}, SECRET, "400, invalid_scope"),
        ):
            assert await refused(kafka, topic, oauth(server, **change), values) == (
                "AuthenticationFailed",
                (
                    f"{server.endpoint} gives no token: {why}: check clientId, clientSecret and "
                    "scope of spec.source.security.sasl.oauth"
                ),
            )

    async def test_need_a_server_that_answers(
        self, kafka: Kafka, topic: str, server: AuthorizationServer
    ) -> None:
        server.server.down()
        reason, said = await refused(kafka, topic, oauth(server), SECRET)
        assert reason == "TokenUnavailable"
        assert said.startswith(f"no token from {server.endpoint}: ")
        server.server.up()
        other = {"ca2": trustme.CA().cert_pem.bytes()}
        reason, said = await refused(kafka, topic, oauth(server, ca=secret("ca2")), SECRET | other)
        assert reason == "TokenUnavailable"
        assert "its certificate is not trusted" in said


class Shop:
    """A token provider as a plugin has it."""

    issuer: Issuer
    asked: int

    def __init__(self, options: Mapping[str, str]) -> None:
        if "role" not in options:
            raise ValueError("expected role")
        self._options = options
        Shop.asked = 0

    async def token(self) -> str:
        Shop.asked += 1
        if self._options["role"] == "nobody":
            raise RuntimeError("no credentials found")
        if self._options["role"] == "torn":
            return "a\x01auth=b"
        return self.issuer.token(life=4, sub=self._options["role"])


@pytest.fixture
def plugin(kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed token provider."""
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: shop\nVersion: 1.0\n")
    entry = EntryPoint("shop", f"{__name__}:Shop", "triggerhub.kafka_tokens")
    (info / "entry_points.txt").write_text(f"[{entry.group}]\n{entry.name} = {entry.value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    Shop.issuer = kafka.issuer
    return entry.name


class TestProvider:
    async def test_is_asked_at_each_login(self, kafka: Kafka, topic: str, plugin: str) -> None:
        login = {"provider": {"name": plugin, "options": {"role": secret("role")}}}
        async with listen(kafka, topic, login, {"role": b"reader"}) as running:
            await running.accepted(1)
            await running.connected()
            begun = Shop.asked
            await eventually(lambda: Shop.asked >= begun + 3, "three more logins", 60)
            await tools.produce(kafka.broker, topic, [b"2"])
            await running.accepted(2)
            assert running.report.states == ["Connected"]

    async def test_whose_tokens_are_refused_from_now_on_is_told(
        self, kafka: Kafka, topic: str, plugin: str
    ) -> None:
        login = {"provider": {"name": plugin, "options": {"role": "reader"}}}
        async with listen(kafka, topic, login, {}) as running:
            await running.accepted(1)
            await running.connected()
            Shop.issuer = Issuer()
            with pytest.raises(ListenError, match=r"refuses? the (token|login)"):
                async with asyncio.timeout(60):
                    await running.task
            # A broker that refuses a token answers as if there were no topics: none is missing.
            assert running.report.states == ["Connected", "AuthenticationFailed"]

    async def test_that_gives_none_is_told(self, kafka: Kafka, topic: str, plugin: str) -> None:
        for role, why in (
            ("nobody", "no credentials found"),
            ("torn", "it gave something else than a token"),
        ):
            login = {"provider": {"name": plugin, "options": {"role": role}}}
            assert await refused(kafka, topic, login, {}) == (
                "TokenUnavailable",
                f"the token provider shop gives no token: {why}",
            )

    async def test_that_is_not_there_or_cannot_be_is_refused(
        self, kafka: Kafka, topic: str, plugin: str
    ) -> None:
        where = "spec.source.security.sasl.provider"
        for provider, said in (
            ({"name": "aws"}, f"{where}.name: found aws, expected one that is installed: shop"),
            ({"name": plugin}, f"{where}.options: expected role"),
        ):
            async with listen(kafka, topic, {"provider": provider}, {}) as running:
                with pytest.raises(SpecError) as caught:
                    await running.task
            assert str(caught.value) == said


def test_a_hub_follows_a_token_that_is_kept_fresh(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker)
    tokens = [kafka.issuer.token(life=-60), kafka.issuer.token(life=15)]

    def kept(token: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka"},
            "stringData": {"ca": kafka.authority.cert_pem.bytes().decode(), "token": token},
        }  # fmt: skip

    with answering() as target, running(tmp_path, start=False) as hub:
        manifest = kafka_trigger(stream, "orders", "f")
        manifest["spec"]["source"] |= {
            "brokers": [kafka.at("BEARER")],
            "security": {"tls": TLS, "sasl": {"mechanism": "OAUTHBEARER"} | KEPT},
        }
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", manifest)
        hub.write("s.yaml", kept(tokens[0]))
        hub.start()
        hub.wait(lambda: hub.condition("orders") == "False AuthenticationFailed", "a refusal")
        answers = made(kafka.broker, "answers")
        manifest["spec"]["source"]["reply"] = {"topic": answers}
        target.script = lambda call: reply(200, call.body)
        hub.write("t.yaml", manifest)
        with stream.flowing(per_second=50):
            hub.write("s.yaml", kept(tokens[1]))
            hub.wait(lambda: len(firsts(target.accepted)) > 200, "flow with the second token")
            hub.wait(lambda: hub.condition("orders") == "False AuthenticationFailed", "its end")
            tokens.append(kafka.issuer.token())
            hub.write("s.yaml", kept(tokens[2]))
            so_far = len(firsts(target.accepted))
            hub.wait(lambda: len(firsts(target.accepted)) > so_far + 200, "flow with the third")
        hub.wait(lambda: arrived(target, stream), "delivery of every record")
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        assert in_order(firsts(target.accepted))
        found = asyncio.run(tools.records(kafka.broker, answers, len(stream.sent)))
        assert {record.value for record in found} == set(stream.sent.values())
        said = told(hub)
        assert not any(token in said for token in tokens)
        assert hub.stop() == 0
