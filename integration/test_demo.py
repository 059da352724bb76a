"""`make demo` as a newcomer meets it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def demo(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO)], cwd=place, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_the_demo_tells_its_story_to_the_end(tmp_path: Path) -> None:
    process = demo(tmp_path)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    for part in ('{"hello":"you"', "Rejected", "status 422", "1 dead letter: 1 accepted",
                 "no dead letters", "the hub has stopped (exit code 0)"):  # fmt: skip
        assert part in said.replace("2 dead letters: 2", "1 dead letter: 1"), said


def test_the_demo_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    line = ""
    while "ready after" not in line:
        line = process.stdout.readline()
        assert line, "it ended before the hub was ready"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=40)
    assert "the hub has stopped (exit code 0)" in said
    assert "Traceback" not in said
    assert process.returncode == 0
