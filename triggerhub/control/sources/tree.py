"""What lies in the watched folders now: manifest files, and the folders to watch for changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".yaml", ".yml", ".json")

Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes, modification time in nanoseconds: the same, the same content."""


def stamp_of(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class Tree:
    """One look at the roots. Paths are as the user named them, with what lies below added."""

    files: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    """Manifest files: their stamp, and the folder that they may read code from."""
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Readable folders whose entries matter, as absolute paths: device and inode."""
    troubles: dict[str, str] = field(default_factory=dict)
    """What could not be looked at, and why. Nothing is known of what lies below it."""

    def unknown(self, path: str) -> bool:
        """True for a path at or below a trouble."""
        if not self.troubles:
            return False
        return any(part in self.troubles for part in (path, *map(str, Path(path).parents)))

    def watch(self, folder: str) -> None:
        """Add a folder to those that matter, or the nearest one above it that exists."""
        folder = os.path.abspath(folder)
        while folder not in self.folders:
            try:
                status = os.stat(folder)
            except OSError:
                above = os.path.dirname(folder)
                if above == folder:
                    return
                folder = above
            else:
                if os.access(folder, os.R_OK):
                    self.folders[folder] = (status.st_dev, status.st_ino)
                return


def look(roots: Sequence[str]) -> Tree:
    """Walk the roots. Hidden files and folders are left out; symbolic links are followed."""
    tree = Tree()
    walked: set[tuple[int, int]] = set()
    for root in roots:
        # The root may be renamed or replaced; only its parent's entries tell.
        tree.watch(os.path.dirname(os.path.abspath(root)))
        try:
            status = os.stat(root)
        except OSError as error:
            tree.troubles[root] = _why(error)
            continue
        if stat.S_ISDIR(status.st_mode):
            _walk(root, root, tree, walked)
        elif os.path.abspath(root) not in map(os.path.abspath, tree.files):
            _file(root, os.path.dirname(root) or ".", tree, link=os.path.islink(root))
    return tree


def _walk(folder: str, root: str, tree: Tree, walked: set[tuple[int, int]]) -> None:
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in walked:
            return  # a link back up, or one folder named twice
        walked.add(identity)
        entries = sorted(_visible(folder), key=lambda entry: entry.name)
        tree.folders[os.path.abspath(folder)] = identity
    except OSError as error:
        tree.troubles[folder] = _why(error)
        return
    for entry in entries:
        if entry.name.endswith(SUFFIXES):
            _file(entry.path, root, tree, link=entry.is_symlink())
        elif entry.is_dir():
            _walk(entry.path, root, tree, walked)


def _visible(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield entry


def _file(path: str, root: str, tree: Tree, *, link: bool) -> None:
    try:
        if link:
            # The link's target changes where the target lies.
            tree.watch(os.path.dirname(os.path.realpath(path)))
        status = os.stat(path)
    except OSError as error:
        tree.troubles[path] = _why(error)
        return
    if stat.S_ISREG(status.st_mode):
        tree.files[path] = (stamp_of(status), root)
    else:
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        tree.troubles[path] = f"it is {kind}"


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
