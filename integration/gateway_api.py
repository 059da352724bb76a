"""Gets the definitions of the Gateway API's kinds, once; run as a module, it does so at once."""

from __future__ import annotations

import json
from pathlib import Path

from integration.golang import go, needs_go
from integration.servers import cached, get_now, say

GATEWAY_API = "1.4.1"
_MODULE = "sigs.k8s.io/gateway-api"
_GO = "Go gets the Gateway API's definitions, once: install Go"


def gateway_crds() -> Path:
    """The folder with the CRDs of its standard channel that are needed here."""
    return cached(f"gateway-api-{GATEWAY_API}", _fill)


def _fill(folder: Path) -> None:
    needs_go(_GO)
    say("gateway-api", f"getting the definitions of {GATEWAY_API}: once, some seconds")
    what = f"{_MODULE}@v{GATEWAY_API}"
    said = go(folder, "mod", "download", "-json", what, hint=_GO, GOFLAGS="-mod=mod")
    module = Path(json.loads(said)["Dir"])
    for plural in ("gatewayclasses", "gateways", "httproutes", "referencegrants"):
        source = module / f"config/crd/standard/gateway.networking.k8s.io_{plural}.yaml"
        (folder / source.name).write_bytes(source.read_bytes())


if __name__ == "__main__":
    get_now("gateway-api", gateway_crds)
