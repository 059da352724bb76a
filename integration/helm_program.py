"""Gets helm, built once; run as a module, it does so at once and says what takes so long."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from integration.golang import built
from integration.servers import get_now

HELM = "3.22.0"
_PACKAGE = "helm.sh/helm/v3/cmd/helm"
_GO = "Go builds helm, once: install Go, or helm 3"


def helm_program() -> Path:
    """The program, version 3: what is on the PATH, else built from source."""
    found = shutil.which("helm")
    if found is not None and _fits(found):
        return Path(found)
    return built("helm", _PACKAGE, HELM, takes="2 to 5 minutes", hint=_GO)


def _fits(program: str) -> bool:
    said = subprocess.run(
        [program, "version", "--short"], capture_output=True, text=True, timeout=30, check=False
    )
    return re.match(r"v3\.", said.stdout) is not None


if __name__ == "__main__":
    get_now("helm", helm_program)
