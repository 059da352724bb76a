"""Gets helm, built once; run as a module, it does so at once and says what takes so long."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from integration.servers import cached, get_now, say, unavailable

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
    say("helm", f"building {HELM} from source: once, 2 to 5 minutes")
    done = subprocess.run(
        ["go", "install", "-ldflags=-s -w", f"{_MODULE}@v{HELM}"],
        capture_output=True, text=True, timeout=1800, check=False,
        env=os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0"},
    )  # fmt: skip
    if done.returncode != 0:
        unavailable(f"go install {_MODULE} failed: {done.stderr[-1500:]}\n{_GO}")


if __name__ == "__main__":
    get_now("helm", helm_program)
