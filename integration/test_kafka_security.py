"""TLS and login against a real broker: what it takes, what it refuses, and what is said of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from integration import kafka_tools as tools
from integration.fakes import Listening, eventually, listening
from integration.function import answering
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.streams import Stream, arrived, firsts, in_order, kafka_trigger
from triggerhub.connector import Installation, Reference
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.groups import CleanUpError
from triggerhub_kafka.problems import ListenError

WRONG = "hunter2"
Values = Mapping[str, bytes]

_numbers = iter(range(1_000_000))


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """One with a record."""
    name = f"secured-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name)
    await tools.produce(kafka.broker, name, [b"1"])
    return name


@pytest.fixture
def values(kafka: Kafka) -> dict[str, bytes]:
    """What the Secret holds."""
    pair = kafka.authority.issue_cert("hub.example")
    return {
        "ca": kafka.authority.cert_pem.bytes(),
        "certificate": b"".join(pem.bytes() for pem in pair.cert_chain_pems),
        "key": pair.private_key_pem.bytes(),
        "password": f"{kafka.PASSWORD}\n".encode(),
        "wrong": WRONG.encode(),
    }


def secret(key: str) -> dict[str, Any]:
    return {"secretRef": {"name": "kafka", "key": key}}


TLS = {"ca": secret("ca")}
MUTUAL = TLS | {"certificate": secret("certificate"), "key": secret("key")}


def sasl(mechanism: str = "SCRAM-SHA-512", **change: Any) -> dict[str, Any]:
    return {
        "mechanism": mechanism, "username": Kafka.USER, "password": secret("password")
    } | change  # fmt: skip


def source(topic: str, broker: str, security: dict[str, Any] | None) -> KafkaSource:
    return KafkaSource.model_validate(
        {"topic": topic, "brokers": [broker], "startFrom": "Earliest", "security": security}
    )


def known(values: Values) -> dict[Reference, bytes]:
    return {Reference.model_validate(secret(key)): value for key, value in values.items()}


def listen(
    topic: str, broker: str, security: dict[str, Any] | None, values: Values
) -> AbstractAsyncContextManager[Listening]:
    spec, name = source(topic, broker, security), f"shop.{topic}.handle"
    return listening(KafkaConnector(Installation()), spec, name=name, values=known(values))


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


async def refused(
    topic: str, broker: str, security: dict[str, Any] | None, values: Values
) -> tuple[str, str]:
    """The reason that is reported, and what is said. Every connection is closed afterwards."""
    before = sockets()
    async with listen(topic, broker, security, values) as running:
        with pytest.raises(ListenError) as caught:
            async with asyncio.timeout(30):
                await running.task
    assert running.report.messages[-1] == str(caught.value)
    assert not running.emit.begun
    shown = f"{caught.value!r} {caught.value.__cause__!r} {running.report.messages}"
    assert WRONG not in shown
    assert Kafka.PASSWORD not in shown
    await eventually(lambda: sockets() <= before, "every connection closed")
    return running.report.state, str(caught.value)


@pytest.mark.parametrize(
    ("listener", "security"),
    [
        ("TLS", {"tls": TLS}),
        ("TLS", {"tls": MUTUAL}),
        ("MUTUAL", {"tls": MUTUAL}),
        ("LOGIN", {"sasl": sasl("PLAIN")}),
        ("LOGIN", {"sasl": sasl("SCRAM-SHA-256")}),
        ("LOGIN", {"sasl": sasl("SCRAM-SHA-512")}),
        ("LOGINTLS", {"sasl": sasl("PLAIN"), "tls": TLS}),
        ("LOGINTLS", {"sasl": sasl("SCRAM-SHA-512"), "tls": TLS}),
    ],
    ids=lambda part: part if isinstance(part, str) else "+".join(part),
)
async def test_each_way_in_delivers_commits_and_cleans_up(
    kafka: Kafka, topic: str, values: Values, listener: str, security: dict[str, Any]
) -> None:
    broker = kafka.at(listener)
    async with listen(topic, broker, security, values) as running:
        await running.accepted(1)
        await running.connected()
        await tools.produce(kafka.broker, topic, [b"2"])
        await running.accepted(2)
        await running.stop()
    group = f"triggerhub.shop.{topic}.handle"
    assert await tools.committed(kafka.broker, group, topic) == 2
    bound = subscription(
        source(topic, broker, security), name=f"shop.{topic}.handle", values=known(values)
    )
    await KafkaConnector(Installation()).clean_up(bound)
    assert await tools.committed(kafka.broker, group, topic) is None


class TestTLSFails:
    async def test_by_an_unknown_authority(self, kafka: Kafka, topic: str, values: Values) -> None:
        other = trustme.CA().cert_pem.bytes()
        for security, known_as in (({"tls": TLS}, {"ca": other}), ({"tls": {}}, {})):
            reason, said = await refused(topic, kafka.at("TLS"), security, known_as)
            assert reason == "TLSFailed"
            assert f"{kafka.at('TLS')}: the broker's certificate is of an unknown authority" in said
            assert "set spec.source.security.tls.ca" in said

    async def test_by_another_host_name(self, kafka: Kafka, topic: str, values: Values) -> None:
        broker = kafka.at("TLS").replace("127.0.0.1", "localhost")
        reason, said = await refused(topic, broker, {"tls": TLS}, values)
        assert reason == "TLSFailed"
        assert "the broker's certificate is for another host" in said
        assert "'localhost'" in said

    async def test_where_a_broker_speaks_none(
        self, kafka: Kafka, topic: str, values: Values
    ) -> None:
        for listener, security in (
            ("PLAINTEXT", {"tls": TLS}),
            ("LOGIN", {"tls": TLS, "sasl": sasl()}),
        ):
            reason, said = await refused(topic, kafka.at(listener), security, values)
            assert (reason, said) == (
                "TLSFailed",
                (
                    f"{kafka.at(listener)} speaks no TLS on this port: leave "
                    "spec.source.security.tls out, or use the port that does"
                ),
            )

    async def test_where_a_broker_wants_it(self, kafka: Kafka, topic: str, values: Values) -> None:
        for listener, security in (
            ("TLS", None),
            ("MUTUAL", None),
            ("LOGINTLS", {"sasl": sasl("PLAIN")}),
        ):
            reason, said = await refused(topic, kafka.at(listener), security, values)
            assert (reason, said) == (
                "TLSFailed",
                f"{kafka.at(listener)} speaks TLS on this port: set spec.source.security.tls",
            )

    async def test_where_a_broker_wants_a_certificate(
        self, kafka: Kafka, topic: str, values: Values
    ) -> None:
        stranger = trustme.CA().issue_cert("hub.example")
        strange = dict(values) | {
            "certificate": stranger.cert_chain_pems[0].bytes(),
            "key": stranger.private_key_pem.bytes(),
        }
        for security, given in (({"tls": TLS}, values), ({"tls": MUTUAL}, strange)):
            reason, said = await refused(topic, kafka.at("MUTUAL"), security, given)
            assert reason == "TLSFailed", said
            assert "does not take the hub's certificate, or lack of one" in said


class TestLoginFails:
    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    async def test_by_a_wrong_password(
        self, kafka: Kafka, topic: str, values: Values, mechanism: str
    ) -> None:
        for account in ({"password": secret("wrong")}, {"username": "nobody"}):
            security = {"sasl": sasl(mechanism, **account)}
            reason, said = await refused(topic, kafka.at("LOGIN"), security, values)
            assert reason == "AuthenticationFailed"
            assert said.startswith(f"{kafka.at('LOGIN')} refuses the login: ")
            assert "check user name, password and mechanism of spec.source.security.sasl" in said

    async def test_where_a_broker_wants_one(self, kafka: Kafka, topic: str, values: Values) -> None:
        for listener, security in (("LOGIN", None), ("LOGINTLS", {"tls": TLS})):
            assert await refused(topic, kafka.at(listener), security, values) == (
                "AuthenticationFailed",
                (
                    f"{kafka.at(listener)} wants a login: set spec.source.security.sasl; it offers "
                    "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"
                ),
            )

    async def test_where_a_broker_wants_none(
        self, kafka: Kafka, topic: str, values: Values
    ) -> None:
        for listener, security in (
            ("PLAINTEXT", {"sasl": sasl()}),
            ("TLS", {"sasl": sasl(), "tls": TLS}),
        ):
            assert await refused(topic, kafka.at(listener), security, values) == (
                "AuthenticationFailed",
                (
                    f"{kafka.at(listener)} takes no login on this port: leave "
                    "spec.source.security.sasl out, or use the port that does"
                ),
            )

    async def test_by_another_mechanism(self, kafka: Kafka, topic: str, values: Values) -> None:
        broker = kafka.at("SCRAMONLY")
        assert await refused(topic, broker, {"sasl": sasl("PLAIN")}, values) == (
            "AuthenticationFailed",
            (
                f"{broker} does not offer the mechanism of spec.source.security.sasl: "
                "it offers SCRAM-SHA-512"
            ),
        )

    async def test_and_so_does_the_clean_up(self, kafka: Kafka, topic: str, values: Values) -> None:
        spec = source(topic, kafka.at("LOGIN"), {"sasl": sasl(password=secret("wrong"))})
        bound = subscription(spec, name=f"shop.{topic}.handle", values=known(values))
        before = sockets()
        with pytest.raises(CleanUpError, match="refuses the login"):
            await KafkaConnector(Installation()).clean_up(bound)
        await eventually(lambda: sockets() <= before, "every connection closed")


async def test_a_broker_that_wants_a_new_login_every_few_seconds_loses_nothing(
    kafka: Kafka, topic: str, values: Values
) -> None:
    """``connections.max.reauth.ms`` of the listener SCRAMONLY."""
    async with listen(topic, kafka.at("SCRAMONLY"), {"sasl": sasl()}, values) as running:
        for number in range(2, 26):
            await tools.produce(kafka.broker, topic, [b"%d" % number])
            await asyncio.sleep(0.5)
        await running.accepted(25)
        assert running.emit.data() == [b"%d" % number for number in range(1, 26)]
        assert running.report.states == ["Connected"]
        group = f"triggerhub.shop.{topic}.handle"
        await running.stop()
        assert await tools.committed(kafka.broker, group, topic) == 25


async def test_a_login_that_ends_while_the_hub_listens_is_told(
    kafka: Kafka, topic: str, values: Values
) -> None:
    changed, before = "only-for-this-test", sockets()
    try:
        async with listen(topic, kafka.at("SCRAMONLY"), {"sasl": sasl()}, values) as running:
            await running.accepted(1)
            kafka.set_password(changed)
            with pytest.raises(ListenError, match="refuses the login"):
                async with asyncio.timeout(60):
                    await running.task
            assert running.report.state == "AuthenticationFailed"
        await eventually(lambda: sockets() <= before, "every connection closed")
    finally:
        kafka.set_password(kafka.PASSWORD)


def told(hub: Hub) -> str:
    """All that a hub shows of itself."""
    paths = ("/v1/triggers", "/v1/bindings", "/v1/functions", "/metrics", "/readyz")
    return "".join([hub.said(), *(hub.request("GET", path)[1].decode() for path in paths)])


def test_a_hub_follows_its_secret_from_wrong_to_right_and_to_the_next_password(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream, following = Stream(kafka.broker), "the-next-password"

    def kept(ca: bytes, password: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka"},
            "stringData": {"ca": ca.decode(), "password": password},
        }  # fmt: skip

    ca = kafka.authority.cert_pem.bytes()
    with answering() as target, running(tmp_path, start=False) as hub:
        manifest = kafka_trigger(stream, "orders", "f")
        manifest["spec"]["source"] |= {
            "brokers": [kafka.at("LOGINTLS")], "security": {"tls": TLS, "sasl": sasl()}
        }  # fmt: skip
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", manifest)
        hub.write("s.yaml", kept(trustme.CA().cert_pem.bytes(), WRONG))
        hub.start()
        stream.send(40)
        hub.wait(lambda: hub.condition("orders") == "False TLSFailed", "TLSFailed")
        hub.write("s.yaml", kept(b"no certificate", WRONG))
        hub.wait(lambda: hub.condition("orders") == "False InvalidSource", "InvalidSource")
        hub.write("s.yaml", kept(ca, WRONG))
        hub.wait(lambda: hub.condition("orders") == "False AuthenticationFailed", "a refusal")
        assert "refuses the login" in hub.conditions("orders")["Connected"]["message"]
        assert not target.calls
        hub.write("s.yaml", kept(ca, kafka.PASSWORD))
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        hub.wait(lambda: arrived(target, stream), "delivery of every record")
        try:
            with stream.flowing(per_second=50):
                kafka.set_password(following)
                hub.write("s.yaml", kept(ca, following))
                hub.wait(lambda: len(firsts(target.accepted)) > 400, "flow after the rotation")
            hub.wait(lambda: arrived(target, stream), "delivery of every record")
            hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        finally:
            kafka.set_password(kafka.PASSWORD)
        assert in_order(firsts(target.accepted))
        said = told(hub)
        for canary in (WRONG, kafka.PASSWORD, following, "PRIVATE KEY"):
            assert canary not in said
        assert hub.stop() == 0
