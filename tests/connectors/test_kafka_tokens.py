"""SASL OAUTHBEARER of a KafkaTrigger: what may be written, and where its tokens come from.

integration/test_kafka_oauth.py has the broker that takes them, and the authorization server.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from triggerhub.connector import Installation, Reference, SpecError
from triggerhub.control.references import references
from triggerhub.testing.fakes import RecordingReport, subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.access import Accesses
from triggerhub_kafka.certificates import Contexts
from triggerhub_kafka.problems import ExtraMissingError

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
