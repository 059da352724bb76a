"""What spec.source of a NATSTrigger says, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from triggerhub.connector import Installation, SpecError
from triggerhub.testing.fakes import subscription
from triggerhub_nats import NATSConnector, NATSSource
from triggerhub_nats.consumer import durable_of


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "found none of stream, subject, subjects, expected at least one"),
        ({"subject": "a", "durable": "d", "confirmAcks": True},
         "found durable and confirmAcks, expected them only with stream"),
        ({"subject": "a", "startFrom": "All"}, "found startFrom, expected them only with stream"),
        ({"stream": "s", "durable": True},
         "found durable: true, expected them only without stream"),
        ({"subject": "a", "durable": True, "reply": True},
         "found both durable: true and reply: true, expected at most one of them"),
        ({"stream": "s", "reply": True}, "found reply, expected them only without stream"),
        ({"subject": "a", "subjects": ["b"]}, "found both subject and subjects"),
        ({"subject": "a", "security": {"token": {"env": "T"}, "nkey": {"env": "N"}}},
         "found token and nkey, expected at most one of user, token, nkey, credentials"),
        ({"subject": "a", "security": {}}, "found none of tls, user, token, nkey, credentials"),
        ({"subject": "a..b"}, "expected a subject: words between dots"),
        ({"subject": "a", "servers": ["http://a:1"]}, "expected host:port such as nats.example"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(body: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        NATSSource.model_validate(body)
    assert expected in str(raised.value)


def test_durables_of_different_bindings_differ_and_have_no_dots() -> None:
    source = NATSSource.model_validate({"stream": "s"})
    one = subscription(source, name="shop.a-b.c")
    other = subscription(source, name="shop.a.b-c")
    assert durable_of(one) == "triggerhub_shop_a-b_c"
    assert durable_of(one) != durable_of(other)
    named = NATSSource.model_validate({"stream": "s", "durable": "mine"})
    assert durable_of(subscription(named)) == "mine"


async def test_servers_of_the_installation_that_cannot_be_one_are_told() -> None:
    environ = {"TRIGGERHUB_NATS_SERVERS": "nats://a:4222, http://b"}
    source = NATSSource.model_validate({"subject": "a"})
    async with NATSConnector(Installation(environ=environ)) as connector:
        task = connector.listen(subscription(source))
        error: Exception | None = None
        try:
            await task
        except SpecError as found:
            error = found
    assert "TRIGGERHUB_NATS_SERVERS: found 'http://b', expected host:port" in str(error)
