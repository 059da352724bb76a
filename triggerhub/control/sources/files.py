"""Manifests from folders and files, watched for changes; no cluster."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from triggerhub.control.decoding import decode
from triggerhub.control.faults import Fault, dotted, shown
from triggerhub.control.places import FieldPath
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import Function, Manifest, Resource, Snapshot, Where
from triggerhub.control.sources.documents import Document, DocumentError, decoded, documents
from triggerhub.control.sources.ledger import Ledger, Page, slot_of
from triggerhub.control.sources.tree import SUFFIXES, Stamp, Tree, look, stamp_of
from triggerhub.control.sources.watching import wakes
from triggerhub.control.values import decode_values, kind_meant

MAX_FILE = 16 * 1024 * 1024
MAX_CODE = 10 * 1024 * 1024
"""Bytes of all the ``files`` of one function."""

_FRESH = 2_000_000_000
"""Nanoseconds: a file this young may change again without a change of its stamp, because some
file systems count whole seconds."""


@dataclass(slots=True)
class _File:
    """One manifest file as it was last read."""

    page: Page
    stamp: Stamp | None = None
    """None: it could not be read; try again."""
    digest: bytes = b""
    fresh: bool = False
    code: dict[str, Stamp | None] = field(default_factory=dict)
    """Files that its functions' code comes from; None for one that is not there."""


class FolderSource:
    """Manifests of some folders (with what lies below them) and files.

    What a file held stands as long as the file has a fault; what is no longer in a file without
    faults is gone. Raises FileNotFoundError when a path does not exist.
    """

    def __init__(
        self, paths: Sequence[Path], kinds: Mapping[str, Kind], *, polling: bool = False
    ) -> None:
        """``polling``: look every second instead of asking the system for changes."""
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such file or folder, expected manifests")
        self._roots = list(dict.fromkeys(str(path) for path in paths))
        self._kinds = kinds
        self._polling = polling
        self._files: dict[str, _File] = {}
        self._ledger = Ledger()
        self._settled: Snapshot | None = None
        self._ranks = count()
        self._tree = Tree()

    def load(self) -> Snapshot:
        """Look once, now. Reads only what changed since the last look."""
        tree = self._tree = look(self._roots)
        vanished = [p for p in self._files if p not in tree.files and not tree.unknown(p)]
        for path in vanished:
            del self._files[path]
        changed = bool(vanished)
        # Of two new files with one name in them, the older file has it.
        for path, (stamp, root) in sorted(tree.files.items(), key=lambda f: (f[1][0][3], f[0])):
            known = self._files.get(path)
            if known is None or self._stale(known, stamp):
                file = self._files[path] = self._read(path, root, known)
                changed = changed or known is None or file.page is not known.page
        for file in self._files.values():
            for path in file.code:
                tree.watch(os.path.dirname(os.path.realpath(path)))
        if changed or self._settled is None:
            pages = {path: file.page for path, file in self._files.items()}
            self._settled = self._ledger.settle(pages)
        return replace(self._settled, faults=(*self._troubles(tree), *self._settled.faults))

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """The first at once, then one after each change that makes a difference."""
        last: Snapshot | None = None
        waking = wakes(lambda: self._tree.folders, self._matters, polling=self._polling)
        async with aclosing(waking):
            async for _ in waking:
                snapshot = await asyncio.to_thread(self.load)
                if snapshot != last:
                    last = snapshot
                    yield snapshot

    def _matters(self, path: str) -> bool:
        name = os.path.basename(path)
        return (
            name.endswith(SUFFIXES)
            or any(os.path.basename(root) == name for root in self._roots)
            or any(os.path.basename(p) == name for f in self._files.values() for p in f.code)
        )

    def _troubles(self, tree: Tree) -> Iterator[Fault]:
        for path, why in sorted(tree.troubles.items()):
            holds = any(Path(path) in (Path(p), *Path(p).parents) for p in self._files)
            hint = "what it held before stays as it was" if holds else ""
            yield Fault(file=path, found=f"cannot be read: {why}", hint=hint)

    def _stale(self, file: _File, stamp: Stamp) -> bool:
        return (
            file.fresh
            or file.stamp != stamp
            or any(_stamp_at(path) != seen for path, seen in file.code.items())
        )

    def _read(self, path: str, root: str, known: _File | None) -> _File:
        now = time.time_ns()
        page = Page(rank=known.page.rank if known else next(self._ranks))
        try:
            content, stamp = _content(path, MAX_FILE)
        except OSError as error:
            page.faults = (Fault(path, found=f"cannot be read: {error.strerror or error}"),)
            file = _File(page)
        else:
            file = _File(page, stamp, _digest(content), now - stamp[3] < _FRESH)
            if known is not None and known.digest == file.digest and not known.code:
                # Only its stamp changed, or it was too young for that to tell.
                file.page = known.page
                return file
            if not content and known is not None and (known.page.good or known.page.kept):
                said = "it is empty, as if saved half"
                page.faults = (Fault(path, 1, found=said, expected=""),)
            else:
                reader = _Reader(path, root, stamp, file, self._kinds)
                reader.read(content)
        if known is not None:
            page.follow(known.page)
        return file


class _Reader:
    """Fills one file's page from its content."""

    def __init__(
        self, path: str, root: str, stamp: Stamp, file: _File, kinds: Mapping[str, Kind]
    ) -> None:
        self._path = path
        self._root = os.path.realpath(root)
        self._folder = Path(path).parent
        self._stamp = stamp
        self._created = datetime.fromtimestamp(stamp[3] / 1e9, UTC)
        self._file = file
        self._kinds = kinds
        self._faults: list[Fault] = []

    def read(self, content: bytes) -> None:
        for ordinal, document in enumerate(_documents(content, self._path)):
            if isinstance(document, DocumentError):
                self._fault(document.line, dotted(document.path), str(document))
            elif document.data is not None:
                self._document(document, ordinal)
        self._file.page.faults = tuple(self._faults)

    def _document(self, document: Document, ordinal: int) -> None:
        data = document.data
        if not isinstance(data, dict):
            self._fault(document.line(), "", shown(data), "a mapping")
        elif data.get("kind") != "List":
            self._object(data, document, ordinal, ())
        elif not isinstance(data.get("items"), list):
            self._fault(document.line(("items",)), "items", shown(data.get("items")), "a list")
        else:
            for number, item in enumerate(data["items"]):
                at: FieldPath = ("items", number)
                if isinstance(item, dict):
                    self._object(item, document, ordinal, at)
                else:
                    self._fault(document.line(at), dotted(at), shown(item), "a mapping")

    def _object(
        self, data: Mapping[str, Any], document: Document, ordinal: int, at: FieldPath
    ) -> None:
        where = Where(self._path, self._folder, lambda path: document.line(at + path))
        manifest = Manifest.read(data, where=where, created=self._created)
        kind = kind_meant(manifest)
        value: Resource | tuple[Fault, ...]
        value = decode_values(manifest, kind) if kind else decode(manifest, self._kinds)
        if isinstance(value, Function):
            value = self._with_code(value, manifest)
        if isinstance(value, tuple):
            self._faults += value
            return
        slot, named = slot_of(value), ("metadata", "name")
        there = self._file.page.good.get(slot)
        if there is not None:
            found = f"the name of {there} at {self._path}:{there.where.line(named)}"
            self._faults.append(manifest.fault(named, found=found, expected="a name of its own"))
            return
        lines = _Lines(self._path, self._stamp, ordinal, at, where.line(), where.line(named))
        self._file.page.good[slot] = replace(value, where=replace(where, locate=lines))

    def _with_code(self, function: Function, manifest: Manifest) -> Function | tuple[Fault, ...]:
        """The function with its ``files`` read."""
        code = function.spec.code
        if code is None or code.files is None:
            return function
        contents: dict[str, bytes] = {}
        faults = []
        left = MAX_CODE
        for name, relative in code.files.items():
            path = os.path.normpath(self._folder / relative)
            try:
                contents[name] = self._code(path, left)
            except OSError as error:
                at = ("spec", "code", "files", name)
                found = f"{relative} ({error.strerror or error})"
                expected = "a file beside the manifest or below it"
                faults.append(manifest.fault(at, found=found, expected=expected))
            else:
                left -= len(contents[name])
        return tuple(faults) or replace(function, code_files=contents)

    def _code(self, path: str, limit: int) -> bytes:
        real = os.path.realpath(path)
        if not Path(real).is_relative_to(self._root):
            raise OSError(f"it is outside of {self._root}")
        self._file.code[path] = None
        content, stamp = _content(path, limit)
        self._file.code[path] = stamp
        self._file.fresh = self._file.fresh or time.time_ns() - stamp[3] < _FRESH
        return content

    def _fault(self, line: int, path: str, found: str, expected: str = "") -> None:
        self._faults.append(Fault(self._path, line, "", path, found, expected))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines of an object whose nodes are no longer kept: read again when somebody asks."""

    path: str
    stamp: Stamp
    ordinal: int
    at: FieldPath
    first: int
    named: int

    def __call__(self, path: FieldPath) -> int:
        if path == ("metadata", "name"):
            return self.named
        if not path:
            return self.first
        try:
            content, stamp = _content(self.path, MAX_FILE)
        except OSError:
            return self.first
        if stamp == self.stamp:
            for ordinal, document in enumerate(_documents(content, self.path)):
                if ordinal == self.ordinal and isinstance(document, Document):
                    return document.line(self.at + path)
        return self.first


def _documents(content: bytes, path: str) -> Iterator[Document | DocumentError]:
    try:
        text = decoded(content)
    except DocumentError as error:
        yield error
        return
    if path.endswith(".json") and not text.strip():
        return
    yield from documents(text, as_json=path.endswith(".json"))


def _content(path: str, limit: int) -> tuple[bytes, Stamp]:
    """Raises OSError, also for what is no regular file or larger than ``limit`` bytes."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("no regular file")  # opening a named pipe would wait for a writer
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"larger than {limit} bytes")
    return content, stamp_of(status)


def _stamp_at(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
