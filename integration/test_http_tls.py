"""TLS at a real hub of several processes: certificates that change under way, and callers that are
known by theirs."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import trustme

from integration.function import Function, answering
from integration.hub import Hub, function, running, trigger
from integration.test_workers import pids, received_by

AUTHORITY = trustme.CA()
ONE, TWO = (AUTHORITY.issue_cert("127.0.0.1", common_name=name) for name in ("one", "two"))
MANY = 12
"""Connections that come together: each of two workers takes some."""


class Client:
    """A kept connection."""

    def __init__(self, hub: Hub, own: trustme.LeafCert | None = None) -> None:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        if own is not None:
            own.configure_cert(context)
        host, _, port = hub.listen.partition(":")
        self.connection = HTTPSConnection(host, int(port), timeout=60.0, context=context)
        self.connection.connect()
        shown: Any = self.connection.sock.getpeercert()
        self.shown = dict(part for parts in shown["subject"] for part in parts)["commonName"]

    def ask(self, path: str = "/") -> int:
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status


@contextmanager
def clients(hub: Hub, own: trustme.LeafCert | None = None) -> Iterator[list[Client]]:
    made: list[Client] = []
    try:
        with ThreadPoolExecutor(MANY) as pool:
            made += pool.map(lambda _: Client(hub, own), range(MANY))
        yield made
    finally:
        for one in made:
            one.connection.close()


def write(place: Path, content: bytes) -> None:
    """At once, as whoever renews certificates should."""
    new = place.with_suffix(".new")
    new.write_bytes(content)
    new.replace(place)


@contextmanager
def secured(folder: Path, *options: str) -> Iterator[tuple[Hub, Function]]:
    """A hub of two workers that listens by TLS, on what lies in ``folder/pem``."""
    pem = folder / "pem"
    write(pem, ONE.private_key_and_cert_chain_pem.bytes())
    own = ("--tls-certificate", str(pem), "--tls-key", str(pem), "--workers", "2")
    with answering() as told, running(folder, *own, *options, start=False) as hub:
        hub.write("f.yaml", function("f", told.url))
        hub.write("any.yaml", trigger("HTTPTrigger", "any", "f", {"path": "/"}))
        hub.start()
        hub.wait(lambda: hub.condition("any") == "True Ready", "the trigger")
        yield hub, told


def test_a_new_certificate_is_shown_by_each_worker_and_no_connection_is_cut(
    tmp_path: Path,
) -> None:
    over = threading.Event()

    def load(one: Client) -> int:
        count = 0
        while not over.is_set():
            assert one.ask() == 200
            count += 1
        return count

    def show(hub: Hub, name: str) -> bool:
        with clients(hub) as made:
            assert all(one.ask() == 200 for one in made)
            return {one.shown for one in made} == {name}

    def said(hub: Hub) -> str:
        return str(hub.conditions("any")["Connected"])

    pem = tmp_path / "pem"
    with secured(tmp_path) as (hub, _):
        with clients(hub) as kept, ThreadPoolExecutor(MANY) as pool:
            told = [pool.submit(load, one) for one in kept]
            try:
                hub.wait(lambda: all(received_by(hub, worker) for worker in (1, 2)), "both workers")
                write(pem, TWO.private_key_and_cert_chain_pem.bytes())
                hub.wait(lambda: show(hub, "two"), "the new certificate, everywhere")
                write(pem, b"".join(one.bytes() for one in ONE.cert_chain_pems))
                hub.wait(lambda: "CertificateNotRenewed" in said(hub), "word of what lacks its key")
                assert "pem: expected" in said(hub)
                assert show(hub, "two")
            finally:
                over.set()
            assert all(one.result() > 1 for one in told)

        # One that is killed now has no certificate to begin with; the other one serves.
        os.kill(pids(hub)[1], signal.SIGKILL)
        hub.wait(lambda: "pem: expected" in hub.said().rpartition("SIGKILL")[2], "its reason")
        assert show(hub, "two")
        write(pem, ONE.private_key_and_cert_chain_pem.bytes())
        hub.wait(lambda: show(hub, "one") and hub.ready(), "the certificate after that", 60)
        hub.wait(lambda: "CertificateNotRenewed" not in said(hub), "an end of the trouble")
        assert hub.stop() == 0
        assert "PRIVATE" not in hub.said()
        assert "Traceback" not in hub.said()


def test_callers_are_known_by_certificates_at_each_worker_and_authorities_change(
    tmp_path: Path,
) -> None:
    before, after = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca"
    write(ca, before.cert_pem.bytes())
    orders, other = (before.issue_cert(name) for name in ("orders.example", "other.example"))
    source = {"path": "/in", "auth": {"clientCertificate": {"names": ["DNS:orders.example"]}}}

    def all_of(hub: Hub, own: trustme.LeafCert | None, path: str = "/in") -> set[int | str]:
        """Statuses, or the names of errors."""
        try:
            with clients(hub, own) as made:
                return {one.ask(path) for one in made}
        except (ssl.SSLError, ConnectionError) as error:
            return {type(error).__name__}

    with secured(tmp_path, "--tls-client-ca", str(ca)) as (hub, told):
        hub.write("in.yaml", trigger("HTTPTrigger", "in", "f", source))
        hub.wait(lambda: hub.condition("in") == "True Ready", "the trigger")
        assert all_of(hub, orders) == {200}
        assert {call.headers["triggerhub-caller"] for call in told.calls} == {"DNS:orders.example"}
        assert all(received_by(hub, number) for number in (1, 2))
        assert all_of(hub, other) == {403}
        assert all_of(hub, None) == {403}
        assert all_of(hub, None, "/") == {200}
        assert not {200, 403} & all_of(hub, trustme.CA().issue_cert("orders.example"))

        with clients(hub, orders) as kept, clients(hub) as anonymous:
            assert {one.ask("/in") for one in kept} == {200}
            write(ca, after.cert_pem.bytes())
            for one in kept:
                one.connection.sock.settimeout(30)
                assert one.connection.sock.recv(1) == b"", "it ends by itself"
            assert {one.ask("/") for one in anonymous} == {200}
        assert not {200, 403} & all_of(hub, orders)
        assert all_of(hub, after.issue_cert("orders.example")) == {200}
        assert hub.stop() == 0
        assert "Traceback" not in hub.said()
