from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.connector import SourceModel
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import Snapshot
from triggerhub.control.sources.files import FolderSource


class Source(SourceModel):
    topic: str = "orders"


class Connector:
    kind = "TestTrigger"
    source = Source


class OtherConnector(Connector):
    kind = "OtherTrigger"


KINDS = {
    "TestTrigger": Kind("TestTrigger", lambda: Connector),
    "OtherTrigger": Kind("OtherTrigger", lambda: OtherConnector),
}


def trigger(
    name: str, topic: str = "orders", *, kind: str = "TestTrigger", label: str = "a"
) -> str:
    return (
        f"apiVersion: triggerhub.dev/v1alpha1\nkind: {kind}\n"
        f"metadata: {{name: {name}, labels: {{l: {label}}}}}\n"
        f"spec:\n  function: {{name: f}}\n  source: {{topic: {topic}}}\n"
    )


def function(name: str, spec: str = "url: http://h/") -> str:
    return (
        f"apiVersion: triggerhub.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\n"
        f"spec: {{{spec}}}\n"
    )


def secret(name: str, password: str = "x", *, kind: str = "Secret") -> str:
    field = "stringData" if kind == "Secret" else "data"
    return (
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"
        f"{field}:\n  password: {password}\n"
    )


FILES = "code: {runtime: python, handler: main.handle, files: {main.py: ./src/main.py}}"


def join(*parts: str) -> str:
    return "---\n".join(parts)


def source(*paths: Path) -> FolderSource:
    return FolderSource(paths, KINDS)


def names(snapshot: Snapshot) -> list[str]:
    return [f.name for f in snapshot.functions] + [t.name for t in snapshot.triggers]


def topics(snapshot: Snapshot) -> dict[str, str]:
    found = {}
    for value in snapshot.triggers:
        assert isinstance(value.source, Source)
        found[value.name] = value.source.topic
    return found


def values(snapshot: Snapshot) -> dict[str, bytes]:
    return {str(key): data["password"] for key, data in snapshot.values.items()}


def told(snapshot: Snapshot, folder: Path) -> list[str]:
    return [str(fault).replace(f"{folder}/", "") for fault in snapshot.faults]


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text(join(trigger("a"), function("f")))
    (tmp_path / "sub" / "b.yml").write_text(trigger("b"))
    (tmp_path / "sub" / "c.json").write_text(
        '{"apiVersion": "triggerhub.dev/v1alpha1", "kind": "List", "items": [{"apiVersion":'
        '"triggerhub.dev/v1alpha1", "kind": "TestTrigger", "metadata": {"name": "c"},'
        '"spec": {"function": {"name": "f"}, "source": {}}}]}'
    )
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / ".hidden.yaml").write_text("a: [")
    (tmp_path / "sub" / ".git" / "x.yaml").write_text("a: [")
    snapshot = source(tmp_path).load()
    assert snapshot.faults == ()
    assert sorted(names(snapshot)) == ["a", "b", "c", "f"]


def test_a_file_can_be_named_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "manifest").write_text(trigger("a"))
    (tmp_path / "other.yaml").write_text(trigger("b"))
    assert names(source(tmp_path / "manifest").load()) == ["a"]


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none: no such file or folder"):
        source(tmp_path / "none")


def test_one_bad_manifest_harms_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        join(trigger("a"), trigger("b").replace("topic:", "topik:"), "x: [\n", trigger("c"))
    )
    (tmp_path / "b.yaml").write_bytes(b"\xff\n")
    (tmp_path / "c.yaml").mkdir()
    (tmp_path / "d.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.yaml")
    (tmp_path / "f.yaml").write_text("- 1\n---\nkind: List\nitems: 3\n")
    snapshot = source(tmp_path).load()
    assert names(snapshot) == ["a", "c"]
    assert sorted(told(snapshot, tmp_path)) == [
        "a.yaml:13: TestTrigger default/b: spec.source.topik: unknown field (did you mean topic?)",
        "a.yaml:16: not YAML: did not find expected node content (while parsing a flow node)",
        "b.yaml:1: found byte 0xff, expected UTF-8",
        "c.yaml: cannot be read: it is a folder",
        "d.yaml: cannot be read: no such file or directory",
        "e.yaml: cannot be read: it is no regular file",
        "f.yaml:1: found a list, expected a mapping",
        "f.yaml:4: items: found 3 (a number), expected a list",
    ]


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("abc:-{}[]&*!|>'\"%@#,? \t\n\r\x85<", max_size=60).map(str.encode),
    )
)
def test_no_content_whatever_breaks_the_reading(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.yaml").write_bytes(content)
        (Path(folder) / "b.json").write_bytes(content)
        (Path(folder) / "c.yaml").write_text(trigger("c"))
        snapshot = source(Path(folder)).load()
        assert names(snapshot) == ["c"]
        assert all(fault.line for fault in snapshot.faults)


def test_the_line_of_any_field_can_be_asked_for_later(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(join(trigger("a"), trigger("b")))
    where = source(tmp_path).load().triggers[1].where
    assert where.line() == 8
    assert where.line(("spec", "source", "topic")) == 13
    (tmp_path / "a.yaml").unlink()
    assert where.line(("spec", "source", "topic")) == 8


def test_of_two_objects_with_one_name_the_older_stays(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text(trigger("a", "old"))
    os.utime(tmp_path / "z.yaml", (1_000_000, 1_000_000))
    (tmp_path / "a.yaml").write_text(join(trigger("a", "new"), function("a")))
    files = source(tmp_path)
    first = files.load()
    assert topics(first) == {"a": "old"}
    assert names(first) == ["a", "a"], "a function and a trigger may share a name"
    assert told(first, tmp_path) == [
        (
            "a.yaml:3: TestTrigger default/a: metadata.name: found the name of "
            "TestTrigger default/a at z.yaml:3, expected a name of its own"
        )
    ]
    (tmp_path / "0.yaml").write_text(trigger("a", "newest"))
    assert topics(files.load()) == {"a": "old"}
    (tmp_path / "z.yaml").unlink()
    (tmp_path / "0.yaml").unlink()
    third = files.load()
    assert topics(third) == {"a": "new"}
    assert third.faults == ()
    assert third.triggers[0].generation == 2
    assert third.triggers[0].created == first.triggers[0].created


def test_a_name_stays_with_its_holder_when_an_older_file_takes_it_up(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a"))
    files = source(tmp_path)
    files.load()
    (tmp_path / "b.yaml").write_text(trigger("b", "held"))
    files.load()
    (tmp_path / "a.yaml").write_text(join(trigger("a"), trigger("b", "taken")))
    snapshot = files.load()
    assert topics(snapshot) == {"a": "orders", "b": "held"}
    assert [str(fault).partition(":")[0] for fault in snapshot.faults] == [f"{tmp_path}/a.yaml"]


def test_triggers_of_two_kinds_cannot_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(join(trigger("a"), trigger("a", kind="OtherTrigger")))
    snapshot = source(tmp_path).load()
    assert [value.kind for value in snapshot.triggers] == ["TestTrigger"]
    assert told(snapshot, tmp_path) == [
        (
            "a.yaml:10: OtherTrigger default/a: metadata.name: found the name of "
            "TestTrigger default/a at a.yaml:3, expected a name of its own"
        )
    ]


def test_a_file_with_a_fault_keeps_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(join(trigger("a"), trigger("b"), trigger("c")))
    files = source(tmp_path)
    files.load()
    path.write_text(join(trigger("a", "new"), trigger("b").replace("topic", "topik")))
    for _ in range(2):
        snapshot = files.load()
        assert topics(snapshot) == {"a": "new", "b": "orders", "c": "orders"}
        assert len(snapshot.faults) == 1
    path.write_text("a: [")
    assert topics(files.load()) == {"a": "new", "b": "orders", "c": "orders"}
    path.write_text(join(trigger("a"), trigger("b")))
    snapshot = files.load()
    assert topics(snapshot) == {"a": "orders", "b": "orders"}
    assert snapshot.faults == ()
    assert [value.generation for value in snapshot.triggers] == [3, 1]
    path.write_text("a: [")
    assert topics(files.load()) == {"a": "orders", "b": "orders"}, "what was removed stays so"


def test_an_empty_file_is_taken_for_half_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    (tmp_path / "new.yaml").touch()
    path.write_text(trigger("a"))
    files = source(tmp_path)
    assert files.load().faults == ()
    path.write_text("")
    snapshot = files.load()
    assert names(snapshot) == ["a"]
    assert told(snapshot, tmp_path) == ["a.yaml:1: it is empty, as if saved half"]
    path.write_text("# nothing here any more\n")
    assert files.load() == Snapshot()


def test_a_deleted_file_removes_what_it_held(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a"))
    (tmp_path / "b.yaml").write_text("a: [")
    files = source(tmp_path)
    files.load()
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    assert files.load() == Snapshot()


def test_a_duplicate_does_not_take_over_while_its_holder_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a", "one"))
    files = source(tmp_path)
    files.load()
    (tmp_path / "b.yaml").write_text(trigger("a", "two"))
    (tmp_path / "a.yaml").write_text("a: [")
    snapshot = files.load()
    assert topics(snapshot) == {"a": "one"}
    assert len(snapshot.faults) == 2
    (tmp_path / "a.yaml").write_text("# moved to b\n")
    snapshot = files.load()
    assert topics(snapshot) == {"a": "two"}
    assert snapshot.faults == ()


def test_a_trigger_renamed_to_a_taken_name_keeps_its_last_good_version(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a", "one"))
    (tmp_path / "b.yaml").write_text(trigger("b", "two"))
    files = source(tmp_path)
    files.load()
    (tmp_path / "b.yaml").write_text(trigger("a", "three"))
    snapshot = files.load()
    assert topics(snapshot) == {"a": "one", "b": "two"}
    assert len(snapshot.faults) == 1
    (tmp_path / "b.yaml").write_text(trigger("c"))
    assert topics(files.load()) == {"a": "one", "c": "orders"}


def test_a_root_that_vanishes_keeps_what_it_held_until_it_is_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").write_text(trigger("a"))
    files = source(root)
    files.load()
    root.rename(tmp_path / "away")
    snapshot = files.load()
    assert names(snapshot) == ["a"]
    assert told(snapshot, tmp_path) == [
        "root: cannot be read: no such file or directory (what it held before stays as it was)"
    ]
    root.mkdir()
    assert files.load() == Snapshot()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_harms_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(trigger("a"))
    (tmp_path / "b.yaml").write_text(trigger("b"))
    files = source(tmp_path)
    files.load()
    path.write_text(trigger("a", "new"))
    path.chmod(0)
    snapshot = files.load()
    assert topics(snapshot) == {"a": "orders", "b": "orders"}
    assert told(snapshot, tmp_path) == ["a.yaml: cannot be read: Permission denied"]
    path.chmod(0o600)
    assert topics(files.load()) == {"a": "new", "b": "orders"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_folder_without_permission_harms_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "a.yaml").write_text(trigger("a"))
    async with watched(tmp_path) as watch:
        folder.chmod(0)
        await watch.until(lambda snapshot: len(snapshot.faults) == 1)
        (tmp_path / "b.yaml").write_text(trigger("b"))
        snapshot = await watch.shows(a="orders", b="orders")
        assert len(snapshot.faults) == 1
        folder.chmod(0o700)
        await watch.until(lambda snapshot: not snapshot.faults)
        (folder / "a.yaml").write_text(trigger("a", "new"))
        await watch.shows(a="new", b="orders")


def test_a_generation_counts_changes_of_the_spec_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(trigger("a"))
    files = source(tmp_path)
    created = files.load().triggers[0].created
    for text, generation in [
        (trigger("a", label="b"), 1),
        ("# moved down\n\n" + trigger("a", label="b"), 1),
        (trigger("a").replace("{topic: orders}", "{}"), 1),
        (trigger("a", "new"), 2),
        (trigger("a"), 3),
        (trigger("a", kind="OtherTrigger"), 1),
    ]:
        path.write_text(text)
        (value,) = files.load().triggers
        assert value.generation == generation
    assert value.created >= created


def test_an_object_keeps_its_age_when_it_moves_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a"))
    os.utime(tmp_path / "a.yaml", (1_000_000, 1_000_000))
    files = source(tmp_path)
    created = files.load().triggers[0].created
    assert created.timestamp() == 1_000_000
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").write_text(trigger("a"))
    assert files.load().triggers[0].created == created


def test_a_second_change_within_one_tick_of_the_file_system_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(trigger("a", "one"))
    files = source(tmp_path)
    files.load()
    tick = path.stat().st_mtime_ns
    path.write_text(trigger("a", "two"))
    os.utime(path, ns=(tick, tick))
    assert topics(files.load()) == {"a": "two"}


def test_secrets_and_config_maps_stand_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        join(trigger("a"), function("a"), secret("a"), secret("a", "z", kind="ConfigMap"))
    )
    (tmp_path / "b.json").write_text(
        '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Secret",'
        '"metadata": {"name": "b.c", "namespace": "shop"}, "data": {"password": "eg=="}}]}'
    )
    snapshot = source(tmp_path).load()
    assert snapshot.faults == ()
    assert values(snapshot) == {
        "Secret default/a": b"x", "ConfigMap default/a": b"z", "Secret shop/b.c": b"z"
    }  # fmt: skip


def test_a_secret_with_a_fault_keeps_what_it_held_and_its_values_are_never_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(join(secret("a", "hunter2"), secret("b", "hunter2")))
    files = source(tmp_path)
    files.load()
    for wrong, said in [
        (
            secret("a", "40962"),
            (
                "5: Secret default/a: stringData.password: found a number, expected a text "
                "(write it in quotes)"
            ),
        ),
        (secret("a", "!hunter2"), "5: found a tag (write a text with ! in quotes), expected plain"),
        (secret("a", "!hunter2 hunter2"), "5: found a tag (write a text with ! in quotes)"),
        (secret("a", "!!hunter2 x"), "5: found a tag (write a text with ! in quotes)"),
        (secret("a", "40962e40962"), "5: found a number that is infinite or none"),
        (secret("a", "40962" * 100), "5: found 500 digits, expected a number"),
        (secret("a", "*hunter2"), "5: not YAML: found undefined alias"),
        (secret("a", '"hunter2'), "6: not YAML: found unexpected end of stream"),
        (secret("a", "{hunter2}"), "5: Secret default/a: stringData.password: found a mapping"),
    ]:
        path.write_text(join(wrong, secret("b", "new")))
        snapshot = files.load()
        assert values(snapshot) == {"Secret default/a": b"hunter2", "Secret default/b": b"new"}
        (fault,) = told(snapshot, tmp_path)
        assert fault.startswith(f"a.yaml:{said}"), fault
        assert "hunter2" not in fault
        assert "40962" not in fault
    path.write_text(secret("b", "new"))
    assert values(files.load()) == {"Secret default/b": b"new"}
    path.unlink()
    assert files.load() == Snapshot()


def test_of_two_secrets_with_one_name_the_first_stays(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(join(secret("a", "one"), secret("a", "two")))
    files = source(tmp_path)
    snapshot = files.load()
    assert values(snapshot) == {"Secret default/a": b"one"}
    (tmp_path / "b.yaml").write_text(secret("a", "three"))
    assert told(files.load(), tmp_path) == [
        f"{where}: Secret default/a: metadata.name: found the name of Secret default/a at "
        "a.yaml:3, expected a name of its own"
        for where in ("a.yaml:9", "b.yaml:3")
    ]


def test_a_look_that_finds_nothing_new_makes_no_new_picture(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(join(trigger("a"), function("f"), "a: ["))
    (tmp_path / "b.yaml").write_text(trigger("b"))
    files = source(tmp_path)
    first, second = files.load(), files.load()
    assert second.triggers is first.triggers
    assert second == first
    (tmp_path / "b.yaml").write_text(trigger("c"))
    assert names(files.load()) == ["f", "a", "c"]
    (tmp_path / "b.yaml").unlink()
    assert names(files.load()) == ["f", "a"]


def test_triggers_come_oldest_first(tmp_path: Path) -> None:
    for number, name in enumerate(["c", "a", "b"]):
        path = tmp_path / f"{name}.yaml"
        path.write_text(trigger(name))
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    assert names(source(tmp_path).load()) == ["c", "a", "b"]


def test_code_files_are_part_of_their_function(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "f.yaml").write_text(function("f", FILES))
    code = tmp_path / "src" / "main.py"
    code.write_text("one")
    files = source(tmp_path)
    (first,) = files.load().functions
    assert first.code_files == {"main.py": b"one"}
    code.write_text("two")
    (second,) = files.load().functions
    assert second.code_files == {"main.py": b"two"}
    assert (first.generation, second.generation) == (1, 2)
    code.unlink()
    snapshot = files.load()
    assert snapshot.functions == (second,)
    assert told(snapshot, tmp_path) == [
        (
            'f.yaml:4: Function default/f: spec.code.files["main.py"]: found ./src/main.py '
            "(No such file or directory), expected a file beside the manifest or below it"
        )
    ]
    code.write_text("three")
    assert files.load().functions[0].code_files == {"main.py": b"three"}


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "src", "big"])
def test_code_outside_of_the_watched_folder_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "src").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    with (root / "big").open("wb") as big:
        big.truncate(10 * 1024 * 1024 + 1)
    (root / "f.yaml").write_text(function("f", FILES.replace("./src/main.py", path)))
    snapshot = source(root).load()
    assert snapshot.functions == ()
    assert len(snapshot.faults) == 1


def test_a_folder_linked_into_itself_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a"))
    (tmp_path / "loop").symlink_to(tmp_path)
    snapshot = source(tmp_path, tmp_path / "a.yaml").load()
    assert names(snapshot) == ["a"]
    assert snapshot.faults == ()


class Watched:
    """The latest snapshot of a source that is being watched."""

    def __init__(self) -> None:
        self.seen: list[Snapshot] = []
        self._new = asyncio.Event()

    async def follow(self, files: FolderSource) -> None:
        async for snapshot in files.snapshots():
            self.seen.append(snapshot)
            self._new.set()

    async def until(self, fits: Callable[[Snapshot], bool]) -> Snapshot:
        # Well below the backstop: what only the clock finds is too late.
        async with asyncio.timeout(3):
            while not self.seen or not fits(self.seen[-1]):
                self._new.clear()
                await self._new.wait()
        return self.seen[-1]

    async def shows(self, **topics_by_name: str) -> Snapshot:
        return await self.until(lambda snapshot: topics(snapshot) == topics_by_name)


@asynccontextmanager
async def watched(*paths: Path) -> AsyncIterator[Watched]:
    watch = Watched()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.follow(source(*paths)))
        await watch.until(lambda snapshot: True)
        yield watch
        task.cancel()


async def test_changes_are_seen_and_nothing_is_told_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(trigger("a"))
    async with watched(tmp_path) as watch:
        (tmp_path / "b.yaml").write_text(trigger("b"))
        await watch.shows(a="orders", b="orders")
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "b.yaml").touch()
        (tmp_path / "a.yaml").write_text(trigger("a", "new"))
        await watch.shows(a="new", b="orders")
        (tmp_path / "b.yaml").unlink()
        await watch.shows(a="new")
        assert all(one != two for one, two in zip(watch.seen, watch.seen[1:], strict=False))


async def test_a_changed_secret_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(secret("a", "old"))
    async with watched(tmp_path) as watch:
        (tmp_path / "a.yaml").write_text(secret("a", "new"))
        await watch.until(lambda snapshot: values(snapshot) == {"Secret default/a": b"new"})
        (tmp_path / "a.yaml").unlink()
        await watch.until(lambda snapshot: not snapshot.values)


async def test_an_editor_that_renames_over_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(trigger("a"))
    async with watched(path) as watch:
        for topic in ("one", "two"):
            (tmp_path / "a.yaml~").write_text(trigger("a", topic))
            (tmp_path / "a.yaml~").rename(path)
            await watch.shows(a=topic)


async def test_new_subfolders_are_seen_with_what_is_in_them(tmp_path: Path) -> None:
    async with watched(tmp_path) as watch:
        for _ in range(3):
            folder = tmp_path / "sub" / "deep"
            folder.mkdir(parents=True)
            (folder / "a.yaml").write_text(trigger("a"))
            await watch.shows(a="orders")
            (folder / "a.yaml").write_text(trigger("a", "new"))
            await watch.shows(a="new")
            shutil.rmtree(tmp_path / "sub")
            await watch.shows()


async def test_a_mounted_config_map_is_seen_to_change(tmp_path: Path) -> None:
    def release(name: str, topic: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(trigger("a", topic))
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    release("..one", "one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with watched(tmp_path) as watch:
        await watch.shows(a="one")
        release("..two", "two")
        shutil.rmtree(tmp_path / "..one")
        await watch.shows(a="two")
        release("..three", "three")
        await watch.shows(a="three")
        assert all(not snapshot.faults for snapshot in watch.seen)


async def test_a_watched_folder_may_be_deleted_and_come_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").write_text(trigger("a"))
    async with watched(root) as watch:
        for topic in ("one", "two"):
            shutil.rmtree(root)
            await watch.until(lambda snapshot: bool(snapshot.faults))
            root.mkdir()
            (root / "a.yaml").write_text(trigger("a", topic))
            await watch.until(lambda s, t=topic: topics(s) == {"a": t} and not s.faults)  # type: ignore[misc]
            (root / "a.yaml").write_text(trigger("a", f"{topic}-more"))
            await watch.shows(a=f"{topic}-more")


async def test_a_folder_replaced_in_one_go_is_watched_on(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    async with watched(tmp_path) as watch:
        for number in range(5):
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "a.yaml").write_text(trigger("a", f"t{number}"))
            await watch.shows(a=f"t{number}")
            (folder / "a.yaml").write_text(trigger("a", f"t{number}-more"))
            await watch.shows(a=f"t{number}-more")


async def test_a_change_of_code_is_seen(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "f.yaml").write_text(function("f", FILES))
    async with watched(tmp_path / "f.yaml") as watch:
        for code in (b"one", b"two"):
            (tmp_path / "src" / "main.py").write_bytes(code)
            await watch.until(
                lambda s, c=code: [f.code_files for f in s.functions] == [{"main.py": c}]  # type: ignore[misc]
            )


async def test_what_lies_behind_a_link_is_watched(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "a.yaml"
    target.write_text(trigger("a"))
    (root / "a.yaml").symlink_to(target)
    async with watched(root) as watch:
        target.write_text(trigger("a", "new"))
        await watch.shows(a="new")


async def test_polling_sees_changes_too(tmp_path: Path) -> None:
    watch = Watched()
    files = FolderSource([tmp_path], KINDS, polling=True)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.follow(files))
        await watch.shows()
        (tmp_path / "a.yaml").write_text(trigger("a"))
        await watch.shows(a="orders")
        task.cancel()
