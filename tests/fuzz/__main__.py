"""A coverage-guided fuzzer on one of the parsers; what it finds is kept in ``tests/fuzz/found``
and read again by every test run.

    python -m tests.fuzz schedules|connections|callers [RUNS]      after pip install atheris
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from tests.fuzz.corpus import keep, kept

INSTRUMENTED = {
    "schedules": ["triggerhub_cron"],
    "connections": ["triggerhub_http", "triggerhub.cloudevents", "uvicorn.protocols"],
    "callers": ["triggerhub_http", "jwt"],
}


def guided(name: str, options: list[str]) -> None:
    """One run of libFuzzer: it does not come back. What it takes is in ``options``."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        read = import_module(f"tests.fuzz.{name}").reading()

    def once(data: bytes) -> None:
        read(data)

    atheris.Setup([os.environ["AGAIN"], "-max_len=1000", "-timeout=60", *options], once)
    atheris.Fuzz()


def main(name: str, runs: int) -> int:
    """Begin with what is known, and add to it what shows something new."""
    try:
        import_module("atheris")
    except ModuleNotFoundError:
        print("the fuzzer is not there: pip install atheris")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        known, new = Path(folder, "known"), Path(folder, "new")
        for place, inputs in (
            (known, kept(name)),
            (new, import_module(f"tests.fuzz.{name}").seeds()),
        ):
            place.mkdir()
            for number, data in enumerate(inputs):
                (place / f"{number:05}").write_bytes(data)
        begin = Path(folder, "again")  # libFuzzer begins itself anew, by one word
        begin.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz --guided {name} "$@"\n')
        begin.chmod(0o700)
        os.environ["AGAIN"] = str(begin)
        outcome = subprocess.run(
            [begin, f"-runs={runs}", f"-artifact_prefix={folder}/failed-", str(new), str(known)]
        ).returncode
        for failed in Path(folder).glob("failed-*"):
            print("failed:", failed.read_bytes())
            (known / failed.name).write_bytes(failed.read_bytes())
        if not outcome:
            subprocess.run([begin, "-merge=1", str(known), str(new)], check=True)
        keep(name, [one.read_bytes() for one in sorted(known.iterdir())])
    return outcome


if __name__ == "__main__":
    if sys.argv[1] == "--guided":
        guided(sys.argv[2], sys.argv[3:])
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000))
