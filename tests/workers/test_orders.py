"""What a worker is told arrives as it was meant."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from triggerhub.settings import Settings
from triggerhub.tls import Files
from triggerhub.workers.orders import Orders, read, written


def test_every_setting_arrives() -> None:
    settings = Settings(
        paths=(Path("a"), Path("/b c")),
        namespace="shop",
        kubeconfig=Path("k"),
        context="c",
        data=Path("/d"),
        store="nats://s",
        listen="[::1]:0",
        tls=Files(certificate=Path("c"), key=Path("/k"), client_ca=Path("a")),
        admin="unix:/d/1.sock",
        admin_token_file=Path("t"),
        worker=2,
        sockets=(7, 8),
        grace=1.5,
    )
    plain = Settings(paths=())
    same = [f.name for f in fields(Settings) if getattr(settings, f.name) == getattr(plain, f.name)]
    assert same == []
    orders = Orders(settings, lock=5, debug=True)
    line = written(orders)
    assert line.count(b"\n") == 1
    assert read(line) == orders
    assert orders.descriptors == (5, 7, 8)
    assert read(written(Orders(plain, 3))) == Orders(plain, 3)
    files = Files(certificate=Path("c"), key=Path("k"))
    some = Orders(Settings(paths=(), tls=files), 3)
    assert read(written(some)) == some
