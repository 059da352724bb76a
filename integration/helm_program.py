"""Gets helm, built once; run as a module, it does so at once and says what takes so long."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from integration.servers import cached, unavailable

HELM = "3.22.0"
_MODULE = "helm.sh/helm/v3/cmd/helm"
_GO = "Go builds helm, once: install Go, or helm 3"


def helm_program() -> Path:
    """The program, version 3: what is on the PATH, else built from source."""
    found = shutil.which("helm")
    if found is not None and _fits(found):
        return Path(found)
    return cached(f"helm-{HELM}", _build) / "helm"


def _fits(program: str) -> bool:
    said = subprocess.run(
        [program, "version", "--short"], capture_output=True, text=True, timeout=30, check=False
    )
    return re.match(r"v3\.", said.stdout) is not None


def _build(folder: Path) -> None:
    if shutil.which("go") is None:
        unavailable(_GO)
    _say(f"building {HELM} from source: once, 2 to 5 minutes")
    done = subprocess.run(
        ["go", "install", "-ldflags=-s -w", f"{_MODULE}@v{HELM}"],
        capture_output=True, text=True, timeout=1800, check=False,
        env=os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0"},
    )  # fmt: skip
    if done.returncode != 0:
        unavailable(f"go install {_MODULE} failed: {done.stderr[-1500:]}\n{_GO}")


def _say(line: str) -> None:
    print(f"helm: {line} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(helm_program())
    except pytest.skip.Exception as missing:
        _say(f"{missing.msg}; the tests that need it are skipped")
    except pytest.fail.Exception as missing:
        sys.exit(str(missing.msg))
