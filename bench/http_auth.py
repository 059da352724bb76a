"""What it costs to ask a caller: requests of 256 bytes to one hub, in alternation without and with
a bearer token, a password, a signature, a JWT.

    python -m bench.http_auth [--rounds 3] [--seconds 3]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import bcrypt
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bench.http import CONNECTIONS, Figure, Server, measure
from bench.measure import Row, machine
from bench.sink import nginx_sink
from integration.hub import function, running, trigger
from integration.servers import free_port

_BODY = b"x" * 256
_KEYS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


def kept() -> dict[str, str]:
    """What the Secret holds."""
    jwks = [
        json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key())) | {"kid": name}
        for name, key in _KEYS.items()
    ]
    return {
        "tokens": f"bench sha256:{hashlib.sha256(b'token').hexdigest()}\n",
        "users": f"bench:{bcrypt.hashpw(b'secret', bcrypt.gensalt(10)).decode()}\n",
        "hook": "secret\n",
        "jwks": json.dumps({"keys": jwks}),
    }


def ways() -> dict[str, tuple[dict[str, Any], str]]:
    """By name: what is asked, and the header field of who may call."""

    def of(key: str) -> dict[str, Any]:
        return {"secretRef": {"name": "bench", "key": key}}

    made = hmac.digest(b"secret", _BODY, "sha256").hex()
    found: dict[str, tuple[dict[str, Any], str]] = {
        "nothing": ({}, ""),
        "bearer": ({"auth": {"bearer": of("tokens")}}, "authorization: Bearer token"),
        "basic": (
            {"auth": {"basic": of("users")}},
            f"authorization: Basic {base64.b64encode(b'bench:secret').decode()}",
        ),
        "HMAC": (
            {"signature": {"preset": "GitHub"} | of("hook")},
            f"x-hub-signature-256: sha256={made}",
        ),
    }
    for name, key in _KEYS.items():
        spec = {"issuer": "bench", "audiences": ["hub"], "algorithms": [name], "jwks": of("jwks")}
        claims = {"iss": "bench", "aud": "hub", "sub": "bench", "exp": int(time.time()) + 86400}
        token = jwt.encode(claims, key, name, headers={"kid": name})
        found[f"JWT {name}"] = ({"auth": {"jwt": spec}}, f"authorization: Bearer {token}")
    return found


def main(rounds: int = 3, seconds: int = 3) -> list[Row]:
    print(f"      {machine()}")
    asked = ways()
    with (
        nginx_sink(free_port()) as sink,
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bench"}}
        hub.write(
            "all.yaml",
            function("sink", sink),
            secret | {"stringData": kept()},
            *(
                trigger("HTTPTrigger", f"t{at}", "sink", {"path": f"/{at}"} | source,
                        inFlight=2 * CONNECTIONS)
                for at, (source, _) in enumerate(asked.values())
            ),
        )  # fmt: skip
        for at in range(len(asked)):
            hub.wait(
                lambda at=at: hub.conditions(f"t{at}").get("Ready", {}).get("status") == "True",  # type: ignore[misc]
                "served route",
            )
        servers = {
            name: Server(f"http://{hub.listen}/{at}", hub.cpu) for at, name in enumerate(asked)
        }
        figures: dict[str, list[Figure]] = {name: [] for name in servers}
        for turn in range(rounds + 1):
            for name, server in servers.items():
                figure = measure(server, seconds if turn else 1, post=True, field=asked[name][1])
                if turn:
                    figures[name].append(figure)
    cost = {name: statistics.median(one.cpu for one in taken) for name, taken in figures.items()}
    rows = []
    for name, taken in figures.items():
        rate = statistics.median(one.rate for one in taken)
        more = cost[name] - cost["nothing"]
        said = f"{cost[name]:.0f} us CPU a request ({more:+.0f}), {rate:.0f}/s"
        rows.append(Row(f"HTTP, synchronous, POST, asked for: {name}", said, "", True))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    chosen = parser.parse_args()
    for row in main(chosen.rounds, chosen.seconds):
        print(row)
