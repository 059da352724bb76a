"""What the hub must be allowed is what docs/nats.md says: with it all goes, without it is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.fakes import FakeProgress, listening
from integration.nats_servers import Nats
from triggerhub.connector import Installation, Letter, NotTaken, Reference, Subscription, Unreadable
from triggerhub.event import Reply
from triggerhub.testing.fakes import subscription
from triggerhub_nats import NATSConnector, NATSSource, SubjectForLetters

_PAGE = Path(__file__).parents[1] / "docs" / "nats.md"
_VALUES = {Reference.model_validate({"env": "P"}): b"p"}
_DEAD = SubjectForLetters(subject="dead")
_HANDLED = {"subject": "handled"}
_STREAM, _DURABLE = "ORDERS", "triggerhub_shop_orders_f"


def rights() -> dict[str, list[str]]:
    """Of the page: what they are for, and the subjects to publish on."""
    section = (
        _PAGE.read_text().partition("## What the hub must be allowed")[2].partition("\n## ")[0]
    )
    found = {}
    for line in section.splitlines():
        if "`" in line and line.startswith("| "):
            what, _, subjects = line.strip("| ").partition(" | ")
            found[what] = [
                subject.replace("<stream>", _STREAM).replace("<durable>", _DURABLE)
                .replace("<its stream>", "DEAD")
                for subject in re.findall(r"`(\$JS[^`]*)`", subjects)
            ]  # fmt: skip
    return found


@contextmanager
def serving(folder: Path, **allowed: list[str]) -> Iterator[str]:
    """A server with a user of each name, who may publish on those subjects, and no more; who gives
    no name may do everything."""
    users = ["{ user: admin, password: p }"]
    for name, subjects in allowed.items():
        listed = ", ".join(f'"{subject}"' for subject in subjects)
        permissions = f'{{ subscribe: ["_INBOX.>"], publish: [{listed}] }}'
        users.append(f"{{ user: {name}, password: p, permissions: {permissions} }}")
    settings = f"authorization {{ users: [{', '.join(users)}] }}\nno_auth_user: admin"
    with Nats(folder, settings).started() as server:
        yield server.server


def bound(server: str, user: str, **fields: Any) -> Subscription[NATSSource]:
    source = NATSSource.model_validate({
        "stream": _STREAM, "servers": [server], "startFrom": "All",
        "security": {"user": {"name": user, "password": {"env": "P"}}}, **fields,
    })  # fmt: skip
    return replace(subscription(source, name="shop.orders.f"), values=_VALUES)


async def test_what_the_page_says_is_enough_and_what_is_missing_is_named(tmp_path: Path) -> None:
    said = rights()
    assert len(said) == 7
    everything = [*(subject for some in said.values() for subject in some), "dead", "handled"]
    letters = said["Dead letters, answers to a subject"]
    with serving(tmp_path, hub=everything, other=letters, poor=["dead", "handled"]) as server:
        await tools.create_stream(server, _STREAM, "orders.>")
        await tools.create_stream(server, "DEAD", "dead")
        await tools.publish(server, "orders.a", b"1", b"2", b"3")
        async with NATSConnector(Installation()) as connector:
            letter, laid = await all_goes(connector, partial(bound, server, "hub"))
            other, poor = partial(bound, server, "other"), partial(bound, server, "poor")
            answer = connector.reply(other(reply=_HANDLED), letter.event, Reply(200, (), b"x"))
            async with asyncio.TaskGroup() as tasks:
                for work, what in (
                    (connector.lay_down(other(), _DEAD, letter), '"dead"'),
                    (answer, '"handled"'),
                    (connector.lay_down(poor(), _DEAD, letter), "stream.names"),
                ):
                    tasks.create_task(named(work, what))
                tasks.create_task(unreadable(connector.read_back(other(), laid)))


async def all_goes(
    connector: NATSConnector, bound: Callable[..., Subscription[NATSSource]]
) -> tuple[Letter, Mapping[str, str]]:
    """All that a trigger may ask for. Returns a dead letter, and where it lies."""
    source = bound(seek={"id": "a", "to": "All"}).source
    async with listening(connector, source, name="shop.orders.f", values=_VALUES) as running:
        await running.accepted(3)
        event = running.emit.accepted[0]
    await connector.replay(bound(), "All", None, FakeProgress())
    assert event.origin is not None
    letter = Letter(id="1", event=event, origin=event.origin(), evidence={"reason": "Rejected"})
    laid = await connector.lay_down(bound(), _DEAD, letter)
    assert (await connector.read_back(bound(), laid)).data == b"1"
    await connector.reply(bound(reply=_HANDLED), event, Reply(200, (), b"to nobody"))
    await connector.seek(bound(seek={"id": "b", "to": "New"}))
    await connector.clean_up(bound())
    return letter, laid


async def named(work: Any, what: str) -> None:
    """It is not taken, because of a right, which is named."""
    with pytest.raises(NotTaken) as caught:
        await work
    assert caught.value.refused
    assert what in str(caught.value).lower()
    assert "grant the account that subject" in str(caught.value)


async def unreadable(work: Any) -> None:
    with pytest.raises(Unreadable, match=r"(?i)stream DEAD sequence 1: .*stream\.msg\.get\.dead"):
        await work
