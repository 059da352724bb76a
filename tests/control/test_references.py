"""References in sources: what they stand for, what is missing, and who hears of a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fakes import MemoryStore, ScriptedFunction
from tests.plugins.triggerhub_echo import EchoConnector, EchoSource
from triggerhub.connector import Installation, Positions, Reference, SourceModel
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.control.reconciler import Reconciler
from triggerhub.control.references import references, resolve, wanted
from triggerhub.control.resources import ResourceKey, Snapshot, ValueKey
from triggerhub.control.sources.files import FolderSource
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.functions.absent import NoCode
from triggerhub.testing.fakes import MemoryPositions

CANARY = "hunter2"
KINDS = {"EchoTrigger": Kind("EchoTrigger", lambda: EchoConnector)}
KAFKA = ValueKey("Secret", "shop", "kafka")


class Login(SourceModel):
    user: Reference | None = None
    password: Reference


class Special(Reference):
    pass


class Plain(SourceModel):
    topics: tuple[str, ...] = ()


class Deep(SourceModel):
    plain: Plain = Plain()
    login: Login | None = None
    many: tuple[Reference, ...] = ()
    named: Mapping[str, Login] = {}
    special: Special | None = None
    inner: tuple[Deep, ...] = ()


def secret(name: str, key: str = "password") -> dict[str, Any]:
    return {"secretRef": {"name": name, "key": key}}


def of(name: str, key: str = "password") -> Reference:
    return Reference.model_validate(secret(name, key))


def test_references_are_found_however_deep() -> None:
    login = {"user": {"env": "KAFKA_USER"}, "password": secret("a")}
    source = Deep.model_validate(
        {
            "login": login,
            "many": (secret("b"), {"configMapRef": {"name": "c", "key": "k"}}),
            "named": {"x": {"password": secret("d")}},
            "special": secret("e"),
            "inner": ({"many": (secret("f"),)},),
        }
    )
    assert {str(reference) for reference in references(source)} == {
        "environment variable KAFKA_USER", "key k of ConfigMap c",
        *(f"key password of Secret {name}" for name in "abdef"),
    }  # fmt: skip
    assert set(wanted(source, "shop")) == {
        ValueKey("ConfigMap", "shop", "c"),
        *(ValueKey("Secret", "shop", name) for name in "abdef"),
    }
    assert not list(references(Plain(topics=("a",))))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"env": "A", **secret("a")},
        {"env": "1"},
        secret("My_Secret"),
        secret("a,metadata.name!=a"),
        secret(""),
        secret("a", ""),
        secret("a", "b c"),
    ],
    ids=str,
)
def test_a_reference_that_can_stand_for_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Reference.model_validate(wrong)


def test_what_references_stand_for_is_bytes() -> None:
    source = EchoSource(
        password=of("kafka"), also=(Reference(env="USER"), Reference(env="ODD"), of("kafka", "x"))
    )
    snapshot = Snapshot(values={KAFKA: {"password": b"\xff", "x": b""}})
    found, lacking = resolve(source, "shop", snapshot, {"USER": "bob", "ODD": "\udcff"})
    assert lacking == ""
    assert [found[one] for one in references(source)] == [b"\xff", b"bob", b"\xff", b""]


def test_all_that_is_missing_is_told_at_once() -> None:
    many = ValueKey("Secret", "shop", "many")
    empty = ValueKey("ConfigMap", "shop", "empty")
    refused = ValueKey("Secret", "shop", "refused")
    snapshot = Snapshot(
        values={
            KAFKA: {"password": CANARY.encode(), "user": CANARY.encode()},
            many: {f"k{n:02}": b"" for n in range(30)},
            empty: {},
        },
        unread={refused: "cannot list secrets in namespace shop: forbidden"},
    )
    source = EchoSource(
        password=of("none"),
        also=(
            of("kafka"), of("none"), of("kafka", "passwort"), of("many", "x"),
            Reference.model_validate({"configMapRef": {"name": "empty", "key": "k"}}),
            of("refused"), Reference(env="USER"),
        ),
    )  # fmt: skip
    names = ", ".join(f"k{n:02}" for n in range(10))
    told = [
        "Secret shop/none does not exist, expected it with the key password",
        "Secret shop/kafka has no key passwort: found password, user",
        f"Secret shop/many has no key x: found {names} and 20 more",
        "ConfigMap shop/empty has no key k: found none",
        "Secret shop/refused is not known: cannot list secrets in namespace shop: forbidden",
    ]
    folder = "the hub's environment has no variable USER: set it and restart the hub"
    assert resolve(source, "shop", snapshot, {})[1] == "; ".join([*told, folder])
    cluster = (
        "found env: USER, expected secretRef or configMapRef: in a cluster the hub's environment "
        "is not for manifests"
    )
    assert resolve(source, "shop", snapshot, None)[1] == "; ".join([*told, cluster])


class Store(MemoryStore):
    def positions(self, subscription: str) -> Positions:
        return MemoryPositions()


class Room:
    """A hub of a folder whose files are looked at when the test says so."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None) -> None:
        self.folder = folder
        self.files = FolderSource([folder], KINDS)
        self.function = ScriptedFunction()
        self.dispatcher = Dispatcher(self.function, store := Store())
        self.listeners = Listeners(KINDS, Installation(), self.dispatcher, store)
        self.reconciler = Reconciler(
            self, KINDS, self.dispatcher, self.listeners, NoCode(), Changes(), environ=environ
        )
        self._pictures: asyncio.Queue[Snapshot] = asyncio.Queue()

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        while True:
            yield await self._pictures.get()

    def write(self, name: str, *documents: str) -> None:
        (self.folder / name).write_text("\n---\n".join(documents))

    async def look(self, **changes: Any) -> None:
        """Take the folder up as it is now."""
        snapshot = self.files.load()
        assert not snapshot.faults, [str(fault) for fault in snapshot.faults]
        self._pictures.put_nowait(replace(snapshot, **changes))
        await asyncio.sleep(1)

    def echoed(self) -> dict[str, list[bytes]]:
        """What each trigger's listener was given, each time it began."""
        found: dict[str, list[bytes]] = {}
        for sent in self.function.sent:
            found.setdefault(sent.fields["ce-source"].removeprefix("/echo/"), []).append(sent.body)
        return found

    def condition(self, trigger: str, which: str = "Bound") -> str:
        status = self.reconciler.status_of("EchoTrigger", ResourceKey("default", trigger))
        assert status is not None
        (found,) = (c for c in status.conditions if c.type == which)
        return f"{found.status} {found.reason} {found.message}".strip()


@asynccontextmanager
async def hub(folder: Path, environ: Mapping[str, str] | None = None) -> AsyncIterator[Room]:
    room = Room(folder, environ)
    room.write("f.yaml", "{apiVersion: triggerhub.dev/v1alpha1, kind: Function, metadata: "
               "{name: f}, spec: {url: 'http://f.test/'}}")  # fmt: skip
    async with room.listeners, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(room.reconciler.run())
        yield room
        running.cancel()


def trigger(name: str, source: str) -> str:
    return (
        "{apiVersion: triggerhub.dev/v1alpha1, kind: EchoTrigger, metadata: "
        f"{{name: {name}}}, spec: {{function: {{name: f}}, source: {source}}}}}"
    )


def refers(name: str) -> str:
    return f"{{password: {{secretRef: {{name: {name}, key: password}}}}}}"


def kept(name: str, password: str, more: str = "x") -> str:
    return (
        f"{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, "
        f"stringData: {{password: {password}, more: {more}}}}}"
    )


@pytest.mark.looptime
async def test_a_changed_secret_reaches_those_alone_that_refer_to_it(tmp_path: Path) -> None:
    async with hub(tmp_path) as room:
        room.write("t.yaml", trigger("one", refers("a")), trigger("two", refers("b")),
                   trigger("three", refers("a")))  # fmt: skip
        room.write("s.yaml", kept("a", "old"), kept("b", "same"))
        await room.look()
        assert room.echoed() == {"one": [b"old"], "two": [b"same"], "three": [b"old"]}
        room.write("s.yaml", kept("a", "new"), kept("b", "same", "other"))
        await room.look()
        assert room.echoed() == {
            "one": [b"old", b"new"], "two": [b"same"], "three": [b"old", b"new"]
        }  # fmt: skip
        assert room.condition("one", "Ready") == "True Ready"


@pytest.mark.looptime
async def test_a_missing_secret_is_a_condition_until_it_is_there(tmp_path: Path) -> None:
    async with hub(tmp_path) as room:
        room.write("t.yaml", trigger("one", refers("a")), trigger("two", refers("b")))
        room.write("b.yaml", kept("b", "b"))
        await room.look()
        lost = "False ReferenceNotFound Secret default/a does not exist, expected it with the key"
        assert room.condition("one") == f"{lost} password"
        assert room.condition("one", "Ready") == room.condition("one")
        assert room.listeners.state("default.one.f") is None
        room.write("a.yaml", kept("a", "x").replace("password", "passwort"))
        await room.look()
        assert room.condition("one").endswith("has no key password: found more, passwort")
        room.write("a.yaml", kept("a", "secret"))
        await room.look()
        assert room.condition("one") == "True Bound f"
        assert room.echoed() == {"one": [b"secret"], "two": [b"b"]}
        (tmp_path / "a.yaml").unlink()
        await room.look()
        assert room.condition("one") == f"{lost} password"
        assert room.listeners.idle(["default.one.f"])
        room.write("a.yaml", kept("a", "again"))
        await room.look()
        assert room.echoed() == {"one": [b"secret", b"again"], "two": [b"b"]}


@pytest.mark.looptime
async def test_a_secret_that_cannot_be_read_harms_only_those_that_refer_to_it(
    tmp_path: Path,
) -> None:
    async with hub(tmp_path) as room:
        room.write("t.yaml", trigger("one", refers("a")), trigger("two", refers("b")))
        room.write("b.yaml", kept("b", "b"))
        await room.look(unread={ValueKey("Secret", "default", "a"): "cannot list secrets"})
        assert room.condition("one") == (
            "False ReferenceNotFound Secret default/a is not known: cannot list secrets"
        )
        assert room.condition("two", "Ready") == "True Ready"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("environ", "bound", "given"),
    [
        ({"PASSWORD": "x"}, "True Bound f", {"one": [b"x"]}),
        (
            {},
            (
                "False ReferenceNotFound the hub's environment has no variable PASSWORD: "
                "set it and restart the hub"
            ),
            {},
        ),
        (
            None,
            (
                "False ReferenceNotFound found env: PASSWORD, expected secretRef or "
                "configMapRef: in a cluster the hub's environment is not for manifests"
            ),
            {},
        ),
    ],
)
async def test_an_environment_variable_stands_for_its_value_in_a_folder_alone(
    tmp_path: Path, environ: Mapping[str, str] | None, bound: str, given: dict[str, list[bytes]]
) -> None:
    async with hub(tmp_path, environ) as room:
        room.write("t.yaml", trigger("one", "{password: {env: PASSWORD}}"))
        await room.look()
        assert room.condition("one") == bound
        assert room.echoed() == given


@pytest.mark.looptime
async def test_nothing_that_is_shown_of_the_hub_shows_a_value(tmp_path: Path) -> None:
    async with hub(tmp_path, {"PASSWORD": CANARY}) as room:
        variable = "{secretRef: {name: a, key: password}}, also: [{env: PASSWORD}]"
        room.write("t.yaml", trigger("one", f"{{password: {variable}}}"))
        room.write("s.yaml", kept("a", CANARY))
        await room.look()
        assert room.echoed() == {"one": [b"hunter2,hunter2"]}
        reconciler = room.reconciler
        (binding,) = reconciler.bindings
        state = room.listeners.state(binding.name)
        subscription = room.listeners.subscription(binding.listening, state)  # type: ignore[arg-type]
        told = [reconciler.snapshot, binding, binding.listening, subscription, state]
        for shown in (*told, reconciler.status()):
            assert CANARY not in repr(shown)
        with pytest.raises(LookupError, match="key other of Secret a is not there"):
            subscription.value(of("a", "other"))
