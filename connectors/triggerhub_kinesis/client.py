"""How AWS is reached: region, endpoint, as whom; and clients, shared by who reaches it alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from triggerhub.connector import SpecError, Subscription
from triggerhub.credentials import text
from triggerhub_kinesis.source import ENDPOINT_URL, KinesisSource, Role

ENDPOINT = "TRIGGERHUB_KINESIS_ENDPOINT"

_CONNECT_WITHIN = 5.0
_ANSWER_WITHIN = 15.0
_CONNECTIONS = 64
"""Of one client: calls that go on at once."""
_WHERE = "spec.source.credentials"


@dataclass(frozen=True, slots=True)
class Access:
    """What tells one client from another. Its ``repr`` shows no secret."""

    region: str | None
    """None: the AWS chain knows, or nobody."""
    endpoint: str | None
    keys: tuple[str, str, str | None] | None = field(repr=False)
    """Id, secret and session token; None: the AWS chain."""
    role: Role | None


def access_of(subscription: Subscription[KinesisSource], default_endpoint: str) -> Access:
    """Raises SpecError, with a sentence that shows no secret, for what cannot be one."""
    source = subscription.source
    region = source.region
    if source.stream_arn is not None:
        region = source.stream_arn.split(":")[3]
    endpoint = source.endpoint
    if endpoint is None and default_endpoint:
        try:
            endpoint = ENDPOINT_URL.read(default_endpoint)
        except ValueError as error:
            raise SpecError(f"{ENDPOINT}: {error}") from None
    keys = None
    if (given := source.credentials) is not None:
        token = given.session_token
        keys = (
            text(f"{_WHERE}.accessKeyId", given.access_key_id, subscription),
            text(f"{_WHERE}.secretAccessKey", given.secret_access_key, subscription),
            None if token is None else text(f"{_WHERE}.sessionToken", token, subscription),
        )
    return Access(region, endpoint, keys, source.assume_role)


class Client:
    """One client of aiobotocore's, as far as this connector goes. Its methods raise what botocore
    raises (``problems.explain`` says it in words): nothing is tried again inside."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """One request, e.g. ``get_records``. Arguments that are None are left out."""
        given = {name: value for name, value in arguments.items() if value is not None}
        answer: Mapping[str, Any] = await getattr(self._client, operation)(**given)
        return answer


class Clients:
    """Makes them, and closes one when nobody has it any more."""

    def __init__(self) -> None:
        self._loader: Any = None
        self._open: dict[Access, _Shared] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def of(self, access: Access) -> AsyncIterator[Client]:
        """Raises what botocore raises for a region that is unknown, or credentials that are
        nowhere."""
        async with self._lock:
            shared = self._open.get(access)
            if shared is None:
                shared = await self._make(access)
                self._open[access] = shared
            shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del self._open[access]
                await shared.stack.aclose()

    async def _make(self, access: Access) -> _Shared:
        if self._loader is None:
            self._loader = await asyncio.to_thread(_read_models)
        session = _session_of(access, self._loader)
        stack = AsyncExitStack()
        made = await stack.enter_async_context(
            session.create_client("kinesis", **_settings(access))
        )
        return _Shared(Client(made), stack)


@dataclass(slots=True)
class _Shared:
    client: Client
    stack: AsyncExitStack
    users: int = 0


def _read_models() -> Any:
    """What botocore reads for a client: large files, once for all, and not on the event loop."""
    from aiobotocore.session import get_session

    loader = get_session().get_component("data_loader")
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("kinesis", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
    return loader


def _session(loader: Any) -> Any:
    from aiobotocore.session import get_session

    session = get_session()
    session.register_component("data_loader", loader)
    # botocore's own way to a time of each record takes two thirds of the work of reading it.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return session


def _moment(value: Any) -> datetime:
    """Kinesis gives seconds since the epoch, STS a text."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    from botocore.utils import parse_timestamp

    moment: datetime = parse_timestamp(value)
    return moment


def _session_of(access: Access, loader: Any) -> Any:
    from aiobotocore.credentials import AioDeferredRefreshableCredentials

    session = _session(loader)
    if access.keys is not None:
        session.set_credentials(*access.keys)
    if access.role is None:
        return session
    outer = _session(loader)
    # What the profile of a configuration file does; there is no public way to do it without one.
    outer._credentials = AioDeferredRefreshableCredentials(
        refresh_using=partial(_assume, session, access), method="assume-role"
    )
    return outer


async def _assume(session: Any, access: Access) -> dict[str, str]:
    """Credentials of the role, as botocore's refresh wants them. Raises what botocore raises."""
    role = access.role
    assert role is not None
    asked = {"RoleArn": role.role_arn, "RoleSessionName": role.session_name or "triggerhub"}
    if role.external_id is not None:
        asked["ExternalId"] = role.external_id
    async with session.create_client("sts", region_name=access.region) as sts:
        given = (await sts.assume_role(**asked))["Credentials"]
    return {
        "access_key": given["AccessKeyId"],
        "secret_key": given["SecretAccessKey"],
        "token": given["SessionToken"],
        "expiry_time": given["Expiration"].isoformat(),
    }


def _settings(access: Access) -> dict[str, Any]:
    from aiobotocore.config import AioConfig

    return {
        "region_name": access.region,
        "endpoint_url": access.endpoint,
        "config": AioConfig(
            connect_timeout=_CONNECT_WITHIN,
            read_timeout=_ANSWER_WITHIN,
            max_pool_connections=_CONNECTIONS,
            # Who calls waits, and says why.
            retries={"total_max_attempts": 1},
        ),
    }
