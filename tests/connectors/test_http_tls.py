"""TLS at the listener, on the event loop that the hub runs on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from tests.connectors.test_http_connector import Client, Rig, get, hub, post
from tests.delivery.test_transport import on_both_loops
from triggerhub.connector import SpecError
from triggerhub.testing.fakes import subscription
from triggerhub.tls import Files
from triggerhub_http.clients import ClientCertificate, Clients, Identity
from triggerhub_http.source import HTTPSource

AUTHORITY = trustme.CA()
ONE, TWO = (AUTHORITY.issue_cert("localhost", common_name=name) for name in ("one", "two"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triggerhub_http.certificates._LOOK", 0.05)


def put(folder: Path, pair: trustme.LeafCert, **more: bytes) -> None:
    """As Kubernetes does: a new folder, and one link that is replaced."""
    new = folder / os.urandom(4).hex()
    new.mkdir()
    (new / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
    (new / "tls.key").write_bytes(pair.private_key_pem.bytes())
    for name, content in more.items():
        (new / name).write_bytes(content)
    link = folder / "next"
    link.symlink_to(new.name)
    link.rename(folder / "data")


def files(folder: Path, **more: Any) -> Files:
    data = folder / "data"
    return Files(certificate=data / "tls.crt", key=data / "tls.key", **more)


@asynccontextmanager
async def secured(folder: Path, patience: float = 30.0, **more: Any) -> AsyncIterator[Rig]:
    put(folder, ONE)
    async with hub(tls=files(folder, **more), patience=patience) as rig:
        yield rig


def client_context(pair: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if pair is not None:
        pair.configure_cert(context)
    return context


async def client(
    rig: Rig, pair: trustme.LeafCert | None = None, speaks: Sequence[str] = ()
) -> Client:
    port, context = rig.connector.port, client_context(pair)
    if speaks:
        context.set_alpn_protocols(speaks)
    made = Client(*await asyncio.open_connection("localhost", port, ssl=context))
    rig.clients.append(made)
    return made


def shown(to: Client) -> str:
    """The common name of the server's certificate."""
    subject = to.writer.get_extra_info("peercert")["subject"]
    return str(dict(part for parts in subject for part in parts)["commonName"])


async def renewed(rig: Rig, name: str) -> Client:
    async with asyncio.timeout(20):
        while shown(one := await client(rig)) != name:
            one.writer.close()
    return one


@on_both_loops
async def test_requests_come_by_tls_and_the_function_is_told_so(tmp_path: Path) -> None:
    async with secured(tmp_path) as rig:
        function = await rig.serve()
        one = await client(rig)
        one.send(post("/in", "x" * 500_000), get("/again"))
        assert (await one.reply())[2].endswith(b"x" * 1000)
        assert (await one.reply())[0] == 200
        for event in function.events:
            assert event.request is not None
            assert dict(event.request.headers)[b"x-forwarded-proto"] == b"https"
        assert one.writer.get_extra_info("ssl_object").version() == "TLSv1.3"


def test_a_new_certificate_is_shown_and_no_request_is_lost(tmp_path: Path) -> None:
    """asyncio's own loop may drop a connection that it has just accepted for a server that ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(renewing(tmp_path))


async def renewing(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def load(one: Client) -> int:
        count = 0
        while not over.is_set():
            one.send(get())
            assert (await one.reply())[0] == 200
            count += 1
        return count

    async def knock(rig: Rig) -> int:
        count = 0
        while not over.is_set():
            one = await client(rig)
            one.send(get("/", "connection: close"))
            assert (await one.reply())[0] == 200
            one.writer.close()
            rig.clients.remove(one)
            count += 1
        return count

    async with secured(tmp_path) as rig:
        await rig.serve()
        old = [await client(rig) for _ in range(8)]
        async with asyncio.TaskGroup() as tasks:
            told = [tasks.create_task(load(one)) for one in old]
            told += [tasks.create_task(knock(rig)) for _ in range(2)]
            for pair, name in ((TWO, "two"), (ONE, "one"), (TWO, "two")):
                put(tmp_path, pair)
                await renewed(rig, name)
            over.set()
        assert all(one.result() > 1 for one in told)
        assert {shown(one) for one in old} == {"one"}


@on_both_loops
async def test_a_pair_that_is_not_right_is_told_and_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with secured(tmp_path) as rig:
        listening = rig.listen()
        await listening.report.until("connected")
        put(tmp_path, TWO, **{"tls.key": ONE.private_key_pem.bytes()})
        said = await listening.report.until("connected CertificateNotRenewed")
        assert said.endswith("tls.key: expected the key of the certificate, found something else")
        assert "CertificateNotRenewed" not in caplog.text
        assert caplog.text.count("the certificate stays the one of before") == 1
        one = await client(rig)
        assert shown(one) == "one"
        (tmp_path / "data" / "tls.crt").unlink()
        async with asyncio.timeout(10):
            while not listening.report.state.endswith("No such file or directory"):
                await asyncio.sleep(0.02)
        assert shown(await client(rig)) == "one"
        put(tmp_path, TWO)
        await renewed(rig, "two")
        async with asyncio.timeout(10):
            while listening.report.state != "connected":
                await asyncio.sleep(0.02)
        one.send(get())
        assert (await one.reply())[0] == 200
    assert "PRIVATE" not in caplog.text


@on_both_loops
async def test_whoever_speaks_no_tls_is_cut_off_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with secured(tmp_path) as rig:
        await rig.serve()
        for said in (get(), "\x16\x03\x01\x02\x00\x01", "\0" * 20_000):
            plain = await rig.client()
            plain.send(said)
            if said[0] == "\x16":
                plain.writer.write_eof()
            async with asyncio.timeout(10):
                with suppress(ConnectionError):
                    assert b"HTTP" not in await plain.reader.read()
        one = await client(rig)
        one.send(get())
        assert (await one.reply())[0] == 200
    assert caplog.text == ""


@on_both_loops
async def test_a_handshake_has_a_time_limit_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with secured(tmp_path, patience=0.5) as rig:
        await rig.serve()
        for said in ("", "\x16\x03\x01"):
            plain = await rig.client()
            plain.send(said)
            assert await plain.closed()
        one = await client(rig)
        one.send("GET / HT")
        assert (await one.reply())[0] == 408
    async with asyncio.timeout(20), secured(tmp_path, patience=600.0) as rig:
        await rig.serve()
        plain = await rig.client()
        plain.send("\x16\x03\x01")
        await renewed(rig, "one")


@on_both_loops
async def test_a_client_that_can_http_2_gets_http_1_1_and_one_that_insists_a_400(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as rig:
        await rig.serve()
        one = await client(rig, speaks=["h2", "http/1.1"])
        assert one.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        one.send(get())
        assert (await one.reply())[0] == 200
        one = await client(rig, speaks=["h2"])
        one.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0")
        assert (await one.reply())[0] == 400
        assert await one.closed()


@on_both_loops
async def test_what_is_refused_gets_its_answer_and_an_end_by_tls(tmp_path: Path) -> None:
    async with secured(tmp_path) as rig:
        await rig.serve({"maxBodySize": "10"})
        for said, status in (("nonsense\r\n\r\n", 400), (get("/", "x: " + "y" * 100_000), 431)):
            one = await client(rig)
            one.send(said)
            assert (await one.reply())[0] == status
            assert await one.closed()
        one = await client(rig)
        one.send(post("/", "x" * 200_000))
        assert (await one.reply())[0] == 413
        assert await one.closed()


@on_both_loops
async def test_a_client_may_show_a_certificate_and_only_a_good_one(tmp_path: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    clients = trustme.CA()
    ca = tmp_path / "ca"
    ca.write_bytes(clients.cert_pem.bytes())
    async with secured(tmp_path, client_ca=ca) as rig:
        await rig.serve()
        for pair in (None, clients.issue_cert("a.example")):
            one = await client(rig, pair)
            one.send(get())
            assert (await one.reply())[0] == 200
        expired = clients.issue_cert("a.example", not_after=past)
        for pair in (expired, AUTHORITY.issue_cert("a.example")):
            one = await client(rig, pair)
            one.send(get())
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await one.reply()


def test_files_that_are_not_right_are_told_at_the_start(tmp_path: Path) -> None:
    put(tmp_path, ONE, ca=b"no")
    good = files(tmp_path)
    good.context(good.read())
    bad = files(tmp_path, client_ca=tmp_path / "data" / "ca")
    pems = bad.read()
    with pytest.raises(OSError, match=r"ca: expected certificates in PEM form, found"):
        bad.context(pems)
    with pytest.raises(OSError, match=r"nowhere: No such file"):
        files(tmp_path, client_ca=tmp_path / "nowhere").read()


@on_both_loops
async def test_a_trigger_lets_in_by_certificate_and_tells_whose(tmp_path: Path) -> None:
    clients, others = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca"
    ca.write_bytes(clients.cert_pem.bytes())
    good = clients.issue_cert("Orders.example", "spare.example")
    named = clients.issue_cert(common_name="spare.example")
    asks = {"auth": {"clientCertificate": {"names": ["DNS:orders.EXAMPLE", "CN:ops"]}}}
    async with secured(tmp_path, client_ca=ca) as rig:
        function = await rig.serve(asks | {"path": "/some"})
        await rig.serve({"path": "/any", "auth": {"clientCertificate": {}}}, name="any")
        either = asks["auth"] | {"bearer": {"env": "K"}}
        token = b"ci sha256:" + hashlib.sha256(b"token").hexdigest().encode()
        both = rig.listen({"path": "/or", "auth": either}, name="or", values={"K": token})
        await both.report.until("connected")
        for pair, path, expected in (
            (good, "/some", (200, "")),
            (good, "/any", (200, "")),
            (good, "/or", (200, "")),
            (named, "/any", (200, "")),
            (named, "/some", (403, "BadCredentials")),
            (named, "/or", (401, "BadCredentials")),
            (None, "/some", (403, "NoCredentials")),
            (None, "/any", (403, "NoCredentials")),
            (None, "/or", (401, "NoCredentials")),
        ):
            one = await client(rig, pair)
            one.send(get(path, "triggerhub-caller: root"))
            status, _, body = await one.reply()
            told = "" if status == 200 else json.loads(body)["error"]
            assert (status, told) == expected, (path, body)
        one = await client(rig)
        one.send(get("/or", "authorization: Bearer token"))
        assert (await one.reply())[0] == 200
        request = function.events[0].request
        assert request is not None
        assert dict(request.headers)[b"triggerhub-caller"] == b"DNS:orders.example"

        kept = await client(rig, good)
        kept.send(get("/some"))
        assert (await kept.reply())[0] == 200
        anonymous = await client(rig)
        ca.write_bytes(others.cert_pem.bytes())
        assert await kept.closed()
        anonymous.send(get("/any"))
        assert (await anonymous.reply())[0] == 403
        one = await client(rig, good)
        one.send(get("/some"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await one.reply()


@on_both_loops
async def test_a_trigger_that_wants_what_the_hub_does_not_ask_for_says_so(tmp_path: Path) -> None:
    async with secured(tmp_path) as rig:
        wanting = subscription(
            source=HTTPSource.model_validate({"auth": {"clientCertificate": {}}})
        )
        with pytest.raises(SpecError, match="needs a hub with --tls-client-ca"):
            await rig.connector.listen(wanting)


def test_a_certificate_that_expires_meanwhile_is_nobodys() -> None:
    shown = Identity(("CN:a",), 100.0)
    assert Clients(ClientCertificate()).holder(shown, 99.0) == "CN:a"
    assert Clients(ClientCertificate()).holder(shown, 101.0) is None
    assert Clients(ClientCertificate()).holder(Identity((), 100.0), 99.0) == ""
