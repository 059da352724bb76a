"""As whom a stream is read, against an endpoint that has STS beside Kinesis."""

from __future__ import annotations

from typing import Any

import pytest

from integration import kinesis_tools as tools
from integration.fakes import listening
from integration.kinesis_servers import REGION, Moto
from integration.servers import free_port
from triggerhub.connector import Installation, Reference
from triggerhub_kinesis import KinesisConnector, KinesisSource

ROLE = "arn:aws:iam::123456789012:role/reader"
SECRET = {"secretRef": {"name": "aws", "key": "secret"}}
TOKEN = {"secretRef": {"name": "aws", "key": "token"}}
VALUES = {
    Reference.model_validate(SECRET): b"of-no-account\n",
    Reference.model_validate(TOKEN): b"a-token",
}


@pytest.fixture(autouse=True)
def no_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The AWS chain finds nothing."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.mark.parametrize(
    "fields",
    [
        {"sessionToken": TOKEN},
        {"assumeRole": {"roleARN": ROLE, "externalId": "hub", "sessionName": "orders"}},
        {"streamARN": True},
    ],
)
async def test_keys_a_token_a_role_and_an_arn_reach_the_stream(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    name = f"access-{'-'.join(fields)}"
    arn = await tools.create_stream(moto.endpoint, name)
    await tools.put(moto.endpoint, name, ("k", b"a"))
    keys = {"accessKeyId": "AKIA", "secretAccessKey": SECRET}
    body = {"endpoint": moto.endpoint, "startFrom": "TrimHorizon", "credentials": keys}
    if "streamARN" in fields:
        body |= {"streamARN": arn}
    else:
        body |= {"stream": name, "region": REGION}
    if "sessionToken" in fields:
        body["credentials"] = keys | fields
    elif "assumeRole" in fields:
        body |= fields
    source = KinesisSource.model_validate(body)
    async with listening(KinesisConnector(Installation()), source, values=VALUES) as running:
        await running.accepted(1)
    assert running.emit.data() == [b"a"]


async def test_without_a_region_and_without_credentials_the_trigger_says_so(moto: Moto) -> None:
    at = {"stream": "a", "endpoint": moto.endpoint}
    for body, reason in ((at, "NoRegion"), (at | {"region": REGION}, "NoCredentials")):
        source = KinesisSource.model_validate(body)
        async with listening(KinesisConnector(Installation()), source) as running:
            await running.state(reason, ends=True)


async def test_a_role_that_cannot_be_taken_on_is_told_and_nothing_is_read_without_it(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    await tools.create_stream(moto.endpoint, "role")
    source = KinesisSource.model_validate(
        {"stream": "role", "region": REGION, "endpoint": moto.endpoint,
         "credentials": {"accessKeyId": "AKIA", "secretAccessKey": SECRET},
         "assumeRole": {"roleARN": ROLE}}
    )  # fmt: skip
    async with listening(KinesisConnector(Installation()), source, values=VALUES) as running:
        await running.state("EndpointUnreachable", ends=True)
