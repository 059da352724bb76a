"""Requests that say who sends them: whom the hub lets in, a second reading of the rules, written
after what senders and RFCs say, lets in, too; the others are answered 4xx, and nothing worse. A
fuzzer makes them up (``python -m tests.fuzz callers``).

An input is text: its first byte chooses a trigger; then come header fields, a line each, an empty
line, and the body. As nobody guesses a signature, ``MARKS`` in fields stand for what a sender that
knows the secrets would write, and ``<{…}.{…}>`` for a token with this head and these claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import bcrypt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.fuzz.connections import STAYS, Connections

Fields = Sequence[tuple[str, bytes]]
"""Names in lower case."""

SECRETS = (b"the new one", b"the old one", b"nobody's")
"""Two that are good at once, and one that is not."""
SECONDS = 300
TOKEN, PASSWORD = b"open sesame", b"pass:word"
SHARED = b"an open secret, use another one!"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _keys() -> bytes:
    numbers = PRIVATE.public_key().public_numbers()
    x, y = (_coded(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    curve = {"kty": "EC", "crv": "P-256", "kid": "2", "x": x, "y": y}
    shared = {"kty": "oct", "kid": "1", "k": _coded(SHARED)}
    return json.dumps({"keys": [shared, curve]}).encode()


def _jwt(*algorithms: str) -> dict[str, Any]:
    return {"auth": {"jwt": {"issuer": "us", "audiences": ["hub", "two"], "jwks": {"env": "KEYS"},
                             "algorithms": list(algorithms)}}}  # fmt: skip


def _signature(**more: Any) -> dict[str, Any]:
    return {"signature": {"env": "SECRETS", **more}}


TRIGGERS: dict[str, dict[str, Any]] = {
    "github": _signature(preset="GitHub"),
    "stripe": _signature(preset="Stripe"),
    "slack": _signature(preset="Slack"),
    "standard": {"signature": {"env": "CODED", "preset": "StandardWebhooks"}},
    "timed": _signature(hmac={"header": "X-Sig", "algorithm": "SHA512", "encoding": "Base64",
                              "timestampHeader": "X-Time", "signed": "a{timestamp}b{body}"}),
    "plain": _signature(hmac={"header": "X-Sig", "algorithm": "SHA1", "prefix": "p="},
                        replayWindow="1s"),
    "bearer": {"auth": {"bearer": {"env": "TOKENS"}}},
    "key": {"auth": {"apiKey": {"keys": {"env": "TOKENS"}}}},
    "basic": {"auth": {"basic": {"env": "PASSWORDS"}}},
    "shared": _jwt("HS256"),
    "curve": _jwt("ES256"),
    "both": {"auth": {"bearer": {"env": "TOKENS"}, **_jwt("ES256", "HS256")["auth"]},
             **_signature(preset="GitHub")},
}  # fmt: skip
NAMES = tuple(TRIGGERS)


def _signed(name: str, now: int, body: bytes) -> tuple[str, bytes]:
    """How the sender signs, and what."""
    return {
        "stripe": ("sha256", b"%d.%b" % (now, body)),
        "slack": ("sha256", b"v0:%d:%b" % (now, body)),
        "standard": ("sha256", b"msg_1.%d.%b" % (now, body)),
        "timed": ("sha512", b"a%db%b" % (now, body)),
        "plain": ("sha1", body),
    }.get(name, ("sha256", body))


def written(name: str, text: bytes, now: int, body: bytes) -> bytes:
    """Fields with what their ``MARKS`` stand for; signed is the time that is named."""
    signed = now
    for mark, off in (b"<now>", 0), (b"<late>", -2 * SECONDS), (b"<soon>", 2 * SECONDS):
        if mark in text:
            signed = now + off
            text = text.replace(mark, b"%d" % signed)
    digest, what = _signed(name, signed, body)
    for number, secret in enumerate(SECRETS):
        made = hmac.new(secret, what, digest).digest()
        text = text.replace(b"<hex%d>" % number, made.hex().encode())
        text = text.replace(b"<b64%d>" % number, base64.b64encode(made))
    return _TOKEN.sub(_token, text)


MARKS = ("<now>", "<late>", "<soon>", "<hex0>", "<hex1>", "<hex2>", "<b640>", "<b641>", "<b642>")
_TOKEN = re.compile(rb"<(\{[^\r\n]*?\})\.(\{[^\r\n]*?\})>")


def _token(found: re.Match[bytes]) -> bytes:
    """Signed as its head says: by the curve, by the public key as if it were a secret, where that
    is named, and else by the secret."""
    said = b".".join(_coded(part).encode() for part in found.groups())
    if b"ES256" in found[1]:
        pair = utils.decode_dss_signature(PRIVATE.sign(said, ec.ECDSA(hashes.SHA256())))
        made = b"".join(number.to_bytes(32, "big") for number in pair)
    else:
        made = hmac.digest(PUBLIC if b"public" in found[1] else SHARED, said, "sha256")
    return said + b"." + _coded(made).encode()


# The second reading: who is to be let in.


def _one(fields: Fields, name: str) -> bytes:
    (value,) = (value for found, value in fields if found == name)
    return value


def _timely(text: bytes, now: float) -> bool:
    return re.fullmatch(rb"\d+", text) is not None and abs(now - int(text)) <= SECONDS + 5


def _by_secret(what: bytes, digest: str, found: Sequence[bytes], keys: Sequence[bytes]) -> bool:
    return any(hmac.new(key, what, digest).digest() in found for key in keys)


def github(fields: Fields, body: bytes, now: float) -> bool:
    scheme, _, digits = _one(fields, "x-hub-signature-256").partition(b"=")
    found = bytes.fromhex(digits.decode())
    return scheme == b"sha256" and _by_secret(body, "sha256", [found], SECRETS[:2])


def stripe(fields: Fields, body: bytes, now: float) -> bool:
    parts = [part.split(b"=", 1) for part in _one(fields, "stripe-signature").split(b",")]
    parts = [part for part in parts if len(part) == 2]
    (moment,) = (part[1].strip() for part in parts if part[0].strip() == b"t")
    found = [bytes.fromhex(part[1].decode()) for part in parts if part[0].strip() == b"v1"
             and re.fullmatch(rb"\s*[0-9a-fA-F]{64}\s*", part[1])]  # fmt: skip
    return _timely(moment, now) and _by_secret(moment + b"." + body, "sha256", found, SECRETS[:2])


def slack(fields: Fields, body: bytes, now: float) -> bool:
    moment = _one(fields, "x-slack-request-timestamp")
    version, _, digits = _one(fields, "x-slack-signature").partition(b"=")
    found = [bytes.fromhex(digits.decode())]
    what = b":".join((version, moment, body))
    return (
        version == b"v0" and _timely(moment, now) and _by_secret(what, "sha256", found, SECRETS[:2])
    )


def standard(fields: Fields, body: bytes, now: float) -> bool:
    moment = _one(fields, "webhook-timestamp")
    what = b".".join((_one(fields, "webhook-id"), moment, body))
    given = _one(fields, "webhook-signature").split(b" ")
    wanted = [b"v1," + base64.b64encode(hmac.digest(key, what, "sha256")) for key in SECRETS[:2]]
    return _timely(moment, now) and not set(wanted).isdisjoint(one.strip() for one in given)


def timed(fields: Fields, body: bytes, now: float) -> bool:
    moment = _one(fields, "x-time")
    found = [base64.b64decode(_one(fields, "x-sig"))]
    what = b"a" + moment + b"b" + body
    return _timely(moment, now) and _by_secret(what, "sha512", found, SECRETS[:2])


def plain(fields: Fields, body: bytes, now: float) -> bool:
    start, _, digits = _one(fields, "x-sig").partition(b"=")
    return start == b"p" and _by_secret(body, "sha1", [bytes.fromhex(digits.decode())], SECRETS[:2])


def _credentials(fields: Fields, scheme: str) -> bytes:
    named, _, rest = _one(fields, "authorization").partition(b" ")
    assert named.decode().lower() == scheme
    return rest.strip()


def bearer(fields: Fields, body: bytes, now: float) -> bool:
    return _credentials(fields, "bearer") == TOKEN


def key(fields: Fields, body: bytes, now: float) -> bool:
    return _one(fields, "x-api-key") == TOKEN


def basic(fields: Fields, body: bytes, now: float) -> bool:
    return base64.b64decode(_credentials(fields, "basic")) == b"ali:" + PASSWORD


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _jws(algorithm: str, fields: Fields, now: float) -> bool:
    head, claims, signature = _credentials(fields, "bearer").split(b".")
    told, said = json.loads(_decoded(head)), json.loads(_decoded(claims))
    if told["alg"] != algorithm or "crit" in told:
        return False
    what, made = head + b"." + claims, _decoded(signature)
    if algorithm == "HS256":
        right = told.get("kid") in (None, "1") and made == hmac.digest(SHARED, what, "sha256")
    else:
        right = told.get("kid") in (None, "2") and len(made) == 64
        pair = (int.from_bytes(made[at : at + 32], "big") for at in (0, 32))
        signed = utils.encode_dss_signature(*pair)
        PRIVATE.public_key().verify(signed, what, ec.ECDSA(hashes.SHA256()))
    audience = said["aud"] if isinstance(said["aud"], list) else [said["aud"]]
    return (
        right
        and said["iss"] == "us"
        and not {"hub", "two"}.isdisjoint(audience)
        and float(said["exp"]) > now - 35
        and all(float(said.get(claim, 0)) < now + 35 for claim in ("nbf", "iat"))
    )


def shared(fields: Fields, body: bytes, now: float) -> bool:
    return _jws("HS256", fields, now)


def curve(fields: Fields, body: bytes, now: float) -> bool:
    return _jws("ES256", fields, now)


def both(fields: Fields, body: bytes, now: float) -> bool:
    callers = (bearer, shared, curve)
    return _is(github, fields, body, now) and any(_is(one, fields, body, now) for one in callers)


REFERENCE: dict[str, Callable[[Fields, bytes, float], bool]] = {
    "github": github, "stripe": stripe, "slack": slack, "standard": standard, "timed": timed,
    "plain": plain, "bearer": bearer, "key": key, "basic": basic, "shared": shared, "curve": curve,
    "both": both,
}  # fmt: skip


def _is(rule: Callable[[Fields, bytes, float], bool], *request: Any) -> bool:
    """What a rule stumbles over is nobody's."""
    try:
        return rule(*request)
    except (ValueError, KeyError, IndexError, TypeError, AssertionError, InvalidSignature,
            OverflowError, AttributeError, RecursionError):  # fmt: skip
        return False


class Callers(Connections):
    """A hub with ``TRIGGERS``."""

    def __init__(self) -> None:
        token = b"ci sha256:" + hashlib.sha256(TOKEN).hexdigest().encode()
        values = {
            "SECRETS": b"\n".join(SECRETS[:2]),
            "CODED": b"\n".join(base64.b64encode(one) for one in SECRETS[:2]),
            "TOKENS": token,
            "PASSWORDS": b"ali:" + bcrypt.hashpw(PASSWORD, bcrypt.gensalt(4)),
            "KEYS": _keys(),
        }
        super().__init__(
            [{"path": f"/{name}", **trigger} for name, trigger in TRIGGERS.items()], values
        )

    def read(self, data: bytes) -> list[int]:
        """One input; its only answer's status."""
        name = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
        lines, _, body = data[1:].partition(b"\n\n")
        now = time.time()
        head = written(name, lines, int(now), body).replace(b"\r", b"").replace(b"\n", b"\r\n")
        framing = b"host: a\r\nconnection: close\r\ncontent-length: %d" % len(body)
        request = b"POST /%b HTTP/1.1\r\n%b\r\n%b\r\n\r\n" % (name.encode(), framing, head) + body
        found = super().read(bytes([STAYS]) + request)
        assert all(
            one in (100, 200, 202, 400, 401, 403, 408, 409, 413, 415, 431) for one in found
        ), found
        fields = [
            (one.decode("latin-1").lower(), value.strip(b" \t"))
            for one, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
        ]
        if not {200, 409}.isdisjoint(found):
            assert _is(REFERENCE[name], fields, body, now), ("let in", name, head, body)
        return found


HEAD, CLAIMS = '{"alg":"%s"%s}', '{"iss":"us","aud":"hub","exp":9999999999%s}'
ES256, HS256 = f"<{HEAD % ('ES256', '')}.{CLAIMS % ''}>", f"<{HEAD % ('HS256', '')}.{CLAIMS % ''}>"
STANDARD = "webhook-id: msg_1\nwebhook-timestamp: "
GOOD: tuple[tuple[str, str], ...] = (
    ("github", "x-hub-signature-256: sha256=<hex1>"),
    ("stripe", "stripe-signature: t=<now>,v1=<hex2>,v1=<hex1>,v0=<hex2>"),
    ("slack", "x-slack-signature: v0=<hex0>\nx-slack-request-timestamp: <now>"),
    ("standard", STANDARD + "<now>\nwebhook-signature: v1,<b642> v1,<b641>"),
    ("timed", "x-sig: <b640>\nx-time: <now>"),
    ("plain", "x-sig: p=<hex1>"),
    ("bearer", "authorization: Bearer open sesame"),
    ("key", "x-api-key: open sesame"),
    ("basic", "authorization: basic YWxpOnBhc3M6d29yZA=="),
    ("shared", f"authorization: bearer {HS256}"),
    ("curve", f"authorization: Bearer {ES256}"),
    ("both", f"authorization: Bearer {ES256}\nx-hub-signature-256: sha256=<hex0>"),
)  # fmt: skip
BAD: tuple[tuple[str, str], ...] = (
    ("github", "x-hub-signature-256: sha256=<hex2>"),
    ("stripe", "stripe-signature: t=<late>,v1=<hex0>"),
    ("standard", STANDARD.replace("_", ".") + "<soon>\nwebhook-signature: v1a,<b640>"),
    ("timed", "x-sig: <b640>\nx-sig: <b641>\nx-time: -1"),
    ("slack", "x-slack-signature: v0=<hex0>\nx-slack-request-timestamp: <late>"),
    ("plain", "x-sig: p=<hex2>\nx-sig: p=<hex1>"),
    ("basic", "authorization: basic YWxpOnBhc3M6d29yZAA="),
    ("basic", "authorization: basic YWxpOnBhc3M="),
    ("curve", "authorization: bearer <" + HEAD % ("HS256", ',"x":"public"') + f".{CLAIMS % ''}>"),
    ("curve", "authorization: bearer <" + HEAD % ("none", "") + f".{CLAIMS % ''}>"),
    ("shared", "authorization: bearer <" + HEAD % ("HS256", ',"crit":["x"],"kid":"1"')
               + "." + CLAIMS % ',"nbf":1e30,"sub":7' + ">"),
    ("both", "authorization: Basic x\nx-hub-signature-256: sha256=<hex0>\ncontent-encoding: gzip"),
)  # fmt: skip


def inputs(requests: Sequence[tuple[str, str]]) -> list[bytes]:
    return [bytes([NAMES.index(name)]) + f"{fields}\n\nbody".encode() for name, fields in requests]


def seeds() -> list[bytes]:
    """Where a fuzzer begins."""
    return inputs(GOOD + BAD)


def reading() -> Callable[[bytes], object]:
    return Callers().__enter__().read
