"""A function's code as a value: what to run, with which handler, packages and limits."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from triggerhub.event import EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One version of a function's code."""

    handler: str
    """``<module>.<function>``; the module may be a dotted path into ``files``."""
    files: Mapping[str, bytes]
    """Relative path, with forward slashes, to content."""
    requirements: tuple[str, ...] = ()
    """As in a requirements file, one each: ``requests==2.32``."""
    timeout: float = 25.0
    """Seconds that one call may take."""
    concurrency: int = 32
    """Calls that run at once; more wait."""
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY, repr=False)
    digest: str = field(init=False, repr=False, compare=False)
    """Stable hash of everything above: equal digests mean equal code."""

    def __post_init__(self) -> None:
        described = json.dumps(
            [
                self.handler,
                sorted((path, _sha256(content)) for path, content in self.files.items()),
                self.requirements,
                self.timeout,
                self.concurrency,
                sorted(self.env.items()),
            ]
        )
        object.__setattr__(self, "digest", _sha256(described.encode()))

    def problem(self) -> str:
        """One sentence why this can never run; empty when nothing is known against it."""
        module, _, function = self.handler.rpartition(".")
        if not module or not all(part.isidentifier() for part in (*module.split("."), function)):
            return f"handler is {self.handler!r}, expected <module>.<function>"
        for path in self.files:
            parts = PurePosixPath(path)
            if not path or parts.is_absolute() or ".." in parts.parts or "\\" in path:
                return f"file {path!r} is not a relative path that stays inside its folder"
        for requirement in self.requirements:
            # An option would reach the installer, and could name any index or file.
            if requirement.startswith("-") or not requirement.isprintable() or not requirement:
                return f"requirement {requirement!r} is not a package requirement"
        return ""

    def place(self, directory: Path) -> Path:
        """Write the files below ``directory``, in a folder of their own; returns that folder.

        Repeating it mends what is missing or changed there, and several processes may do so at
        once. Raises OSError.
        """
        listing = sorted((path, _sha256(content)) for path, content in self.files.items())
        folder = directory / _sha256(json.dumps(listing).encode())[:32]
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            target = folder / path
            if target.is_file() and target.read_bytes() == content:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=target.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, target)
        return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
