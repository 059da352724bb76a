"""How a command fails: one plain sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

from typer.core import TyperGroup


class Failure(Exception):  # noqa: N818 - the user's fact, not the program's error
    """What to tell the user, and the exit code: 1, or 2 for wrong usage."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


class Commands(TyperGroup):
    """The program: every command fails in the same way."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # What a terminal cannot show is spelled out instead of ending the command.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().main(*args, **kwargs)
        except Failure as failure:
            print(f"triggerhub: {failure}", file=sys.stderr)
            sys.exit(failure.code)
        except BrokenPipeError:
            # Whoever read our output has had enough. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
