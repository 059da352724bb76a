"""TLS and login of a KafkaTrigger: what may be written, and what becomes of it.

integration/test_kafka_security.py has the brokers that take it or refuse.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trustme
from aiokafka import errors
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from triggerhub.connector import Reference, SpecError
from triggerhub.credentials import Contexts
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaSource
from triggerhub_kafka.access import Accesses
from triggerhub_kafka.problems import explain
from triggerhub_kafka.refusal import LoginFailed, TLSFailed, Tried, why

CANARY = "hunter2"
BROKERS = ["kafka.example:9093"]
AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes()


def secret(key: str) -> dict[str, Any]:
    return {"secretRef": {"name": "kafka", "key": key}}


def source(**security: Any) -> KafkaSource:
    return KafkaSource.model_validate({"topic": "orders", "security": security})


def sasl(**change: Any) -> dict[str, Any]:
    return {"mechanism": "SCRAM-SHA-512", "username": "orders", "password": secret("p")} | change


def options(
    spec: KafkaSource, values: dict[str, bytes] | None = None, accesses: Accesses | None = None
) -> dict[str, Any]:
    """What a client is made with, where those are the values of the Secret's keys."""
    known = {Reference.model_validate(secret(k)): value for k, value in (values or {}).items()}
    bound = subscription(spec, name="shop.orders.f", values=known)
    return dict((accesses or Accesses(Contexts())).of(bound, BROKERS).options)


class Pair:
    """A certificate of the hub's own and its key."""

    def __init__(self) -> None:
        issued = AUTHORITY.issue_cert("hub.example")
        self.certificate = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        self.key = issued.private_key_pem.bytes()

    def encrypted(self) -> bytes:
        key = load_pem_private_key(self.key, None)
        protection = BestAvailableEncryption(CANARY.encode())
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


class TestManifest:
    @pytest.mark.parametrize(
        ("security", "message"),
        [
            ({}, "found none of tls, sasl, expected at least one"),
            ({"tls": {"certificate": secret("c")}}, "found only certificate, expected both"),
            ({"tls": {"key": secret("k")}}, "found only key, expected both certificate and key"),
            ({"tls": {"insecureSkipVerify": True}}, "Extra inputs"),
            (
                {"sasl": sasl(mechanism="OAUTHBEARER")},
                "found username and password, expected neither",
            ),
            ({"sasl": sasl(mechanism="scram-sha-512")}, "'SCRAM-SHA-512' or 'OAUTHBEARER'"),
            ({"sasl": sasl(password=CANARY)}, "Input should be"),
            ({"sasl": sasl(username="")}, "at least 1 character"),
            (
                {"sasl": {"mechanism": "PLAIN", "username": "x"}},
                "found username, expected username and",
            ),
        ],
    )
    def test_faults_say_what_was_expected(self, security: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError) as caught:
            source(**security)
        assert message in str(caught.value)


class TestOptions:
    def test_without_security_nothing_is_encrypted_and_nobody_logs_in(self) -> None:
        assert options(KafkaSource.model_validate({"topic": "orders"})) == {
            "bootstrap_servers": BROKERS,
            "client_id": "triggerhub.shop.orders.f",
        }

    @pytest.mark.parametrize(
        ("security", "protocol"),
        [
            ({"tls": {}}, "SSL"),
            ({"sasl": sasl()}, "SASL_PLAINTEXT"),
            ({"tls": {}, "sasl": sasl()}, "SASL_SSL"),
        ],
    )
    def test_kafka_has_a_name_for_each_combination(
        self, security: dict[str, Any], protocol: str
    ) -> None:
        found = options(source(**security), {"p": b"x"})
        assert found["security_protocol"] == protocol
        assert ("ssl_context" in found) is ("tls" in security)

    def test_certificates_and_host_names_are_checked(self) -> None:
        for tls in ({}, {"ca": secret("ca")}):
            context = options(source(tls=tls), {"ca": CA})["ssl_context"]
            assert context.verify_mode is ssl.CERT_REQUIRED
            assert context.check_hostname
            assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_a_ca_is_trusted_instead_of_the_system_s(self) -> None:
        bundle = b"# Autorit\xe9 de certification\n" + CA + CA
        context = options(source(tls={"ca": secret("ca")}), {"ca": bundle})["ssl_context"]
        assert len(context.get_ca_certs()) == 1

    def test_an_account_is_text_or_kept_elsewhere(self) -> None:
        for username in ("orders", secret("u")):
            found = options(source(sasl=sasl(username=username)), {"u": b"orders", "p": b"x y"})
            assert found["sasl_mechanism"] == "SCRAM-SHA-512"
            assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("orders", "x y")

    @pytest.mark.parametrize(
        ("kept", "meant"), [("x\n", "x"), ("x\r\n", "x"), (" x \n\n", " x \n"), ("x\ny", "x\ny")]
    )
    def test_one_newline_at_the_end_of_a_value_is_none_of_it(self, kept: str, meant: str) -> None:
        found = options(source(sasl=sasl()), {"p": kept.encode()})
        assert found["sasl_plain_password"] == meant

    def test_subscriptions_with_the_same_certificates_share_what_is_made_of_them(self) -> None:
        contexts, spec = Contexts(), source(tls={"ca": secret("ca")})
        first = options(spec, {"ca": CA}, Accesses(contexts))["ssl_context"]
        assert options(spec, {"ca": CA}, Accesses(contexts))["ssl_context"] is first
        other = options(spec, {"ca": trustme.CA().cert_pem.bytes()}, Accesses(contexts))[
            "ssl_context"
        ]
        assert other is not first


class TestUnfitSecrets:
    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            (b"", "text that is not empty"),
            (b"\n", "text that is not empty"),
            (f"{CANARY}\0".encode(), "without NUL"),
            (f"{CANARY}\xff".encode("latin-1"), "UTF-8 text"),
        ],
    )
    def test_a_password_that_cannot_be_one_is_refused_and_not_shown(
        self, value: bytes, wanted: str
    ) -> None:
        message = refused(source(sasl=sasl()), {"p": value})
        assert message.startswith("spec.source.security.sasl.password: expected ")
        assert wanted in message
        assert "in key p of Secret kafka" in message

    @pytest.mark.parametrize("value", [b"", CANARY.encode(), CA[:200], b"\x00\x01\x02"])
    def test_a_ca_that_holds_no_certificate_is_refused(self, value: bytes) -> None:
        message = refused(source(tls={"ca": secret("ca")}), {"ca": value})
        assert message == (
            "spec.source.security.tls.ca: expected certificates in PEM form in key ca of "
            "Secret kafka, found something else"
        )

    def test_a_pair_that_is_none_is_refused_and_says_why(self) -> None:
        spec = source(tls={"certificate": secret("c"), "key": secret("k")})
        one, other = Pair(), Pair()
        for certificate, key, where, wanted in (
            (one.certificate, other.key, "key", "the key of the certificate"),
            (one.certificate, one.encrypted(), "key", "a private key that is not encrypted"),
            (one.certificate, CANARY.encode(), "key", "a private key in PEM form"),
            (one.certificate, b"", "key", "a private key in PEM form"),
            (one.key, one.key, "certificate", "a certificate in PEM form"),
            (b"", one.key, "certificate", "a certificate in PEM form"),
        ):
            message = refused(spec, {"c": certificate, "k": key})
            assert message.startswith(f"spec.source.security.tls.{where}: expected {wanted}")

    def test_a_pair_leaves_no_file_open(self) -> None:
        spec = source(tls={"certificate": secret("c"), "key": secret("k")})
        pair = Pair()
        before = os.listdir("/proc/self/fd")
        options(spec, {"c": pair.certificate, "k": pair.key})
        refused(spec, {"c": pair.certificate, "k": pair.encrypted()})
        assert os.listdir("/proc/self/fd") == before


def refused(spec: KafkaSource, values: dict[str, bytes]) -> str:
    with pytest.raises(SpecError) as caught:
        options(spec, values)
    assert CANARY not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_what_is_given_to_a_client_shows_no_secret() -> None:
    known = {Reference.model_validate(secret("p")): CANARY.encode()}
    bound = subscription(source(sasl=sasl()), name="shop.orders.f", values=known)
    access = Accesses(Contexts()).of(bound, BROKERS)
    assert access.options["sasl_plain_password"] == CANARY
    assert CANARY not in repr(access) + repr(bound)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TLSFailed("k:1 speaks no TLS"), "TLSFailed"),
        (LoginFailed("k:1 wants a login"), "AuthenticationFailed"),
    ],
)
def test_what_a_broker_refuses_has_a_reason_and_is_told_as_it_was_found(
    error: errors.KafkaError, reason: str
) -> None:
    assert explain(error, brokers=["k:1"], group="g") == (reason, str(error.args[0]))


@contextmanager
def demanding() -> Iterator[int]:
    """The port of a server that wants a client's certificate, which only OpenSSL's own way of
    serving tells a client that has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(context)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


async def test_a_certificate_that_is_wanted_is_told_though_the_alert_was_lost() -> None:
    """TLS 1.3: what the client sends after the handshake may reset the connection first."""

    async def closed(**_: Any) -> None:
        raise ConnectionResetError

    context = options(source(tls={"ca": secret("ca")}), {"ca": CA})["ssl_context"]
    with demanding() as port:
        found = await why(ConnectionResetError(), Tried("127.0.0.1", port, "SSL", context, closed))
    assert isinstance(found, TLSFailed)
    assert "does not take the hub's certificate, or lack of one (certificate required)" in str(
        found
    )


async def test_a_broker_that_closes_and_does_not_show_why_is_away() -> None:
    async def closed(**_: Any) -> None:
        raise ConnectionResetError(104, "reset")

    for protocol in ("PLAINTEXT", "SASL_PLAINTEXT"):
        tried = Tried("127.0.0.1", 1, protocol, None, closed)
        found = await why(ConnectionResetError(104, "reset"), tried)
        assert explain(found, brokers=["k:1"], group="g")[0] == "BrokerUnreachable"
