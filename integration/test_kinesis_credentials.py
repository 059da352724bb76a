"""As whom a stream is read."""

from __future__ import annotations

from uuid import uuid4

import pytest
from aiohttp import web

from integration.fakes import listening
from integration.kinesis_proxy import Call, faults
from integration.kinesis_servers import KEY_ID, REGION, SECRET, Kinesis, Moto
from integration.kinesis_tools import create_stream, put
from triggerhub.connector import Installation
from triggerhub_kinesis import KinesisConnector, KinesisSource


async def test_a_role_is_taken_on_with_the_keys_of_the_chain(
    kinesis: Kinesis, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    stream = f"s{uuid4().hex}"
    await create_stream(kinesis.endpoint, stream)
    await put(kinesis.endpoint, stream, ("k", b"x"))
    signed: list[tuple[str, bool]] = []

    async def note(call: Call) -> web.Response | None:
        headers = call.request.headers
        key = headers["authorization"].partition("Credential=")[2].partition("/")[0]
        signed.append((key, "x-amz-security-token" in headers))
        return None

    with faults(kinesis.endpoint) as aws:
        aws.inject(note)
        source = KinesisSource.model_validate(
            {
                "stream": stream, "endpoint": aws.endpoint, "region": REGION,
                "startFrom": "TrimHorizon",
                "assumeRole": {"roleARN": "arn:aws:iam::123456789012:role/reader"},
            }
        )  # fmt: skip
        async with listening(KinesisConnector(Installation()), source) as running:
            await running.accepted(1)
        [event] = running.emit.accepted
    assert event.data == b"x"
    assert event.time is not None
    # Temporary keys, which STS gave, not those of the chain.
    assert {key[:4] for key, _ in signed} == {"ASIA"}
    assert all(token for _, token in signed)
