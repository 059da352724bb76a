"""Gets the definitions of the Gateway API's kinds, once; run as a module, it does so at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from integration.servers import cached, get_now, say, unavailable

GATEWAY_API = "1.4.1"
_MODULE = "sigs.k8s.io/gateway-api"
_GO = "Go gets the Gateway API's definitions, once: install Go"


def gateway_crds() -> Path:
    """The folder with the CRDs of its standard channel that are needed here."""
    return cached(f"gateway-api-{GATEWAY_API}", _fill)


def _fill(folder: Path) -> None:
    if shutil.which("go") is None:
        unavailable(_GO)
    say("gateway-api", f"getting the definitions of {GATEWAY_API}: once, some seconds")
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{_MODULE}@v{GATEWAY_API}"],
        cwd=folder, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"GOFLAGS": "-mod=mod"},
    )  # fmt: skip
    if done.returncode != 0:
        unavailable(f"go mod download {_MODULE} failed: {done.stderr[-1500:]}\n{_GO}")
    module = Path(json.loads(done.stdout)["Dir"])
    for plural in ("gatewayclasses", "gateways", "httproutes", "referencegrants"):
        source = module / f"config/crd/standard/gateway.networking.k8s.io_{plural}.yaml"
        (folder / source.name).write_bytes(source.read_bytes())


if __name__ == "__main__":
    get_now("gateway-api", gateway_crds)
