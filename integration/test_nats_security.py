"""TLS, logins and rights of a real nats-server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats as nats_py
import nkeys
import pytest
import trustme

from integration.fakes import Listening, listening
from integration.nats_servers import Nats
from triggerhub.connector import Installation, Reference, SpecError
from triggerhub_nats import NATSConnector, NATSSource

Serve = Callable[..., Nats]


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers with settings."""
    with ExitStack() as started:

        def start(settings: str, jetstream: bool = True) -> Nats:
            server = Nats(tmp_path_factory.mktemp("nats"), settings, jetstream=jetstream)
            return started.enter_context(server.started())

        yield start


@asynccontextmanager
async def listen(
    server: str, security: dict[str, Any], secrets: dict[str, bytes] | None = None, **spec: Any
) -> AsyncIterator[Listening]:
    values = {Reference(env=name): value for name, value in (secrets or {}).items()}
    body = {"servers": [server], "subject": "orders.>"} | spec
    if security:
        body["security"] = security
    async with (
        NATSConnector(Installation()) as connector,
        listening(connector, NATSSource.model_validate(body), values=values) as running,
    ):
        yield running


def ref(name: str) -> dict[str, str]:
    return {"env": name}


def key_pair(prefix: int) -> tuple[str, str]:
    """Public key and seed of a new NKey: 20 << 3 is a user's, 0 an account's, 14 << 3 an
    operator's."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    pair = nkeys.from_seed(bytearray(seed))
    return pair.public_key.decode(), seed.decode()


USER, ACCOUNT, OPERATOR = 20 << 3, 0, 14 << 3


def jwt(issuer: tuple[str, str], subject: str, kind: str, **claims: Any) -> str:
    """A NATS JWT, version 2."""

    def coded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body: dict[str, Any] = {
        "iat": 1_700_000_000, "iss": issuer[0], "sub": subject, "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }  # fmt: skip
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    head = coded(b'{"typ":"JWT","alg":"ed25519-nkey"}')
    signed = f"{head}.{coded(json.dumps(body).encode())}"
    return f"{signed}.{coded(nkeys.from_seed(bytearray(issuer[1].encode())).sign(signed.encode()))}"


async def test_a_user_with_a_password(serve: Serve) -> None:
    server = serve('authorization { user: shop, password: "s3cret" }').server
    login = {"user": {"name": "shop", "password": ref("P")}}
    async with listen(server, login, {"P": b"s3cret\n"}) as running:
        await running.connected()
    async with listen(server, login, {"P": b"wrong"}) as running:
        await running.state("AuthenticationFailed", ends=True)
    assert "Authorization Violation" in running.report.messages[-1]
    assert "wrong" not in running.report.messages[-1]


async def test_a_login_that_is_missing_is_told(serve: Serve) -> None:
    server = serve("authorization { token: t0ken }").server
    async with listen(server, {}) as running:
        await running.state("AuthenticationFailed", ends=True)


async def test_a_token(serve: Serve) -> None:
    server = serve("authorization { token: t0ken }").server
    async with listen(server, {"token": ref("T")}, {"T": b"t0ken"}) as running:
        await running.connected()


async def test_an_nkey(serve: Serve) -> None:
    public, seed = key_pair(USER)
    server = serve(f"authorization {{ users: [{{nkey: {public}}}] }}").server
    async with listen(server, {"nkey": ref("S")}, {"S": seed.encode() + b"\n"}) as running:
        await running.connected()


async def test_a_credentials_file(serve: Serve) -> None:
    operator, account, user = key_pair(OPERATOR), key_pair(ACCOUNT), key_pair(USER)
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1,
              "payload": -1, "wildcards": True}  # fmt: skip
    of_operator = jwt(operator, operator[0], "operator")
    of_account = jwt(operator, account[0], "account", limits=limits)
    of_user = jwt(account, user[0], "user", subs=-1, data=-1, payload=-1)
    server = serve(
        f"operator: {of_operator}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account[0]}: {of_account} }}",
        jetstream=False,  # it would want a system account
    ).server
    file = (
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user[1]}\n------END USER NKEY SEED------\n"
    )
    async with listen(server, {"credentials": ref("C")}, {"C": file.encode()}) as running:
        await running.connected()


@pytest.mark.parametrize(
    ("security", "secret", "expected"),
    [
        ({"nkey": ref("S")}, b"SUAB", "nkey: expected the seed of a user's NKey"),
        ({"credentials": ref("S")}, b"-----BEGIN NATS USER JWT-----\na.b.c\n", "credentials: exp"),
        ({"token": ref("S")}, b"\xff", "token: expected UTF-8 text"),
        ({"tls": {"ca": ref("S")}}, b"no PEM", "tls.ca: expected certificates in PEM form"),
    ],
)
async def test_a_secret_that_cannot_be_one_is_told_without_showing_it(
    nats: Nats, security: dict[str, Any], secret: bytes, expected: str
) -> None:
    async with listen(nats.server, security, {"S": secret}) as running:
        await asyncio.wait([running.task])
        error = running.task.exception()
    assert isinstance(error, SpecError)
    assert str(error).startswith(f"spec.source.security.{expected}")
    assert "SUAB" not in str(error)


class TestTLS:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def tls(self, authority: trustme.CA, tmp_path: Path) -> str:
        """The part of a server's settings that encrypts."""
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(tmp_path / "server.pem")
        )
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        file = tmp_path / "server.pem"
        return f'cert_file: "{file}", key_file: "{file}", ca_file: "{tmp_path / "ca.pem"}"'

    async def test_a_server_of_a_trusted_authority(
        self, serve: Serve, authority: trustme.CA, tls: str
    ) -> None:
        server = serve(f"tls {{ {tls} }}").server
        pem = authority.cert_pem.bytes()
        async with listen(server, {"tls": {"ca": ref("CA")}}, {"CA": pem}) as running:
            await running.connected()
        async with listen(f"tls://{server}", {}) as running:
            await running.state("TLSFailed", ends=True)
        assert "certificate is refused" in running.report.messages[-1]

    async def test_a_client_certificate(
        self, serve: Serve, authority: trustme.CA, tls: str
    ) -> None:
        server = serve(f"tls {{ {tls}, verify: true }}").server
        own = authority.issue_cert("hub")
        secrets = {
            "CA": authority.cert_pem.bytes(),
            "CERT": own.cert_chain_pems[0].bytes(),
            "KEY": own.private_key_pem.bytes(),
        }
        pair = {"ca": ref("CA"), "certificate": ref("CERT"), "key": ref("KEY")}
        async with listen(server, {"tls": pair}, secrets) as running:
            await running.connected()
        async with listen(server, {"tls": {"ca": ref("CA")}}, secrets) as running:
            await running.state("TLSFailed", ends=True)

    async def test_nothing_is_said_to_a_server_that_does_not_encrypt(self, serve: Serve) -> None:
        server = serve("authorization { token: t0ken }").server
        security = {"tls": {}, "token": ref("T")}
        async with listen(server, security, {"T": b"t0ken"}) as running:
            await running.state("TLSFailed", ends=True)
        assert "speaks no TLS, so nothing was sent" in running.report.messages[-1]


async def test_rights_that_are_missing_are_told(serve: Serve) -> None:
    server = serve(
        "authorization { users: [{ user: u, password: p, permissions: "
        '{ subscribe: ["_INBOX.>", "orders.new"], publish: ["x"] } }] }'
    ).server
    login, secrets = {"user": {"name": "u", "password": ref("P")}}, {"P": b"p"}
    async with listen(server, login, secrets) as running:
        await running.state("NotAuthorized")
    assert "orders.>" in running.report.messages[-1]
    async with listen(server, login, secrets, subject=None, stream="s") as running:
        await running.state("NotAuthorized")
    assert "$js.api" in running.report.messages[-1].lower()
    async with listen(server, login, secrets, subject="orders.new") as running:
        await running.connected()


async def test_a_password_that_is_no_longer_good_is_told_and_healed(serve: Serve) -> None:
    nats = serve('authorization { user: shop, password: "s3cret" }')
    login = {"user": {"name": "shop", "password": ref("P")}}
    async with listen(nats.server, login, {"P": b"s3cret"}) as running:
        await running.connected()
        nats.stop()
        nats.configure('authorization { user: shop, password: "other" }')
        nats.start()
        await running.state("AuthenticationFailed")
        nats.stop()
        nats.configure('authorization { user: shop, password: "s3cret" }')
        nats.start()
        await running.connected()
        client = await nats_py.connect(nats.server, user="shop", password="s3cret")
        await client.publish("orders.x", b"1")
        await client.close()
        await running.accepted(1)
