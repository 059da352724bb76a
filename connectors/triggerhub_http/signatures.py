"""Signatures of senders (RFC 2104): what their header fields state, and whether it is true.

Each preset follows what its sender says of itself: GitHub, "Validating webhook deliveries";
Stripe, "Verify webhook signatures manually"; Slack, "Verifying requests from Slack"; Standard
Webhooks, its specification, "Webhook headers" and "Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from triggerhub.connector import Subscription
from triggerhub.credentials import unfit
from triggerhub_http.security import HMAC, Signature
from triggerhub_http.tokens import lines

_MOST_STATED = 16
_MOST_SECRETS = 8
_SECONDS = re.compile(rb"[0-9]{1,12}")

Fields = Mapping[bytes, bytes]
"""Header fields by name in lower case."""


class Unsigned(Exception):  # noqa: N818 - a fact about the request
    """A request without the signature that it should have: ``reason`` and one sentence that shows
    nothing of what it should have been."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Stated:
    """What the header fields of one request state."""

    signatures: list[bytes]
    before: bytes = b""
    """What is signed before the body."""
    time: bytes = b""
    """When, in digits; empty: the sender does not say."""


Read = Callable[[Fields], Stated]
"""Raises Unsigned."""


class Signatures:
    """Of one sender."""

    def __init__(self, where: str, spec: Signature, subscription: Subscription[Any]) -> None:
        """``where``: the place of ``spec`` in the manifest. Raises SpecError, with a sentence that
        shows no secret."""
        found = [line.encode() for _, line in lines(where, spec, subscription)]
        if len(found) > _MOST_SECRETS:
            raise unfit(where, spec, f"at most {_MOST_SECRETS} secrets, a line each,")
        self._digest = "sha256"
        if spec.hmac is not None:
            self._digest = spec.hmac.algorithm.lower()
            self._read, self.needs = _by_fields(spec.hmac)
        else:
            assert spec.preset is not None
            self._read, self.needs = _PRESETS[spec.preset]
        if spec.preset == "StandardWebhooks":
            found = [_raw(secret) for secret in found]
            if b"" in found:
                raise unfit(where, spec, "secrets such as whsec_MfKQ9r8GKYqrTwj… in base64")
        self._secrets = found
        self._tolerance = spec.tolerance
        self._window = spec.replay_window

    needs: frozenset[bytes]
    """The header fields that it reads, in lower case."""

    def read(self, fields: Fields, now: float) -> Stated:
        """What a request states, while its body is not there yet. ``now``: seconds since the
        epoch. Raises Unsigned for what could not be right whatever the body."""
        stated = self._read(fields)
        if len(stated.signatures) > _MOST_STATED:
            message = f"found {len(stated.signatures)} signatures, expected at most {_MOST_STATED}"
            raise Unsigned("BadSignature", message)
        if stated.time:
            if not _SECONDS.fullmatch(stated.time):
                raise Unsigned("BadSignature", "the time of signing is no number of seconds")
            off = now - int(stated.time)
            if abs(off) > self._tolerance:
                past = f"{abs(off):.0f} s {'ago' if off > 0 else 'ahead'}"
                message = f"it was signed {past}, expected at most {self._tolerance:g} s"
                raise Unsigned("StaleSignature", message)
        return stated

    def verify(self, stated: Stated, body: bytes) -> bytes:
        """The signature that is right. In constant time: each is compared with each. Raises
        Unsigned."""
        right = b""
        for secret in self._secrets:
            made = hmac.new(secret, stated.before, self._digest)
            made.update(body)
            wanted = made.digest()
            for signature in stated.signatures:
                if hmac.compare_digest(signature, wanted):
                    right = wanted
        if not right:
            raise Unsigned("BadSignature", "the signature is not that of this body")
        return right

    def spent_until(self, stated: Stated, now: float) -> float:
        """Until when the signature is not to be taken again, in seconds since the epoch; 0: it may
        be."""
        if self._window is not None:
            return now + self._window
        return int(stated.time) + self._tolerance if stated.time else 0.0


def _one(fields: Fields, name: bytes) -> bytes:
    value = fields.get(name, b"").strip()
    if not value:
        raise Unsigned("NoSignature", f"found no field {name.decode()}, expected a signed request")
    return value


def _hex(value: bytes) -> bytes:
    try:
        return binascii.unhexlify(value)
    except ValueError:
        raise Unsigned("BadSignature", "the signature is not hexadecimal") from None


def _base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise Unsigned("BadSignature", "the signature is not base64") from None


def _by_fields(spec: HMAC) -> tuple[Read, frozenset[bytes]]:
    """One signature in one field, and the time perhaps in another."""
    header, prefix = spec.header.lower().encode(), spec.prefix.encode()
    clock = (spec.timestamp_header or "").lower().encode()
    signed = spec.signed or ("{timestamp}.{body}" if clock else "{body}")
    first, _, last = signed.removesuffix("{body}").encode().partition(b"{timestamp}")
    decode = _hex if spec.encoding == "Hex" else _base64

    def read(fields: Fields) -> Stated:
        value = _one(fields, header)
        if not value.startswith(prefix):
            message = f"the signature does not begin with {prefix.decode()}"
            raise Unsigned("BadSignature", message)
        moment = _one(fields, clock) if clock else b""
        return Stated([decode(value[len(prefix) :])], first + moment + last, moment)

    return read, frozenset({header, clock} - {b""})


def _stripe(fields: Fields) -> Stated:
    """``t=1492774577,v1=5257a8…,v1=…,v0=…``"""
    pairs = [part.partition(b"=")[::2] for part in _one(fields, b"stripe-signature").split(b",")]
    times = [value.strip() for name, value in pairs if name.strip() == b"t"]
    found = [value.strip() for name, value in pairs if name.strip() == b"v1"]
    if len(times) != 1 or not times[0] or not found:
        raise Unsigned("BadSignature", "found no t=…,v1=… in stripe-signature")
    return Stated(_those_of(_hex, found), times[0] + b".", times[0])


def _standard(fields: Fields) -> Stated:
    """``v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,… v1a,…``"""
    identity, moment = _one(fields, b"webhook-id"), _one(fields, b"webhook-timestamp")
    each = _one(fields, b"webhook-signature").split()
    found = [one.removeprefix(b"v1,") for one in each if one.startswith(b"v1,")]
    if not found or b"." in identity:
        raise Unsigned("BadSignature", "found no v1,… in webhook-signature")
    return Stated(_those_of(_base64, found), b"%b.%b." % (identity, moment), moment)


def _those_of(decode: Callable[[bytes], bytes], found: list[bytes]) -> list[bytes]:
    """Of several, one that cannot be read does not spoil the others."""
    made = []
    for one in found:
        try:
            made.append(decode(one))
        except Unsigned:
            continue
    return made


def _raw(secret: bytes) -> bytes:
    """The bytes of a secret of Standard Webhooks; none: it is not one."""
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except ValueError:
        return b""


_PRESETS: Mapping[str, tuple[Read, frozenset[bytes]]] = {
    "GitHub": _by_fields(HMAC(header="X-Hub-Signature-256", prefix="sha256=")),
    "Slack": _by_fields(
        HMAC.model_validate(
            {"header": "X-Slack-Signature", "prefix": "v0=", "signed": "v0:{timestamp}:{body}",
             "timestampHeader": "X-Slack-Request-Timestamp"}
        )
    ),
    "Stripe": (_stripe, frozenset({b"stripe-signature"})),
    "StandardWebhooks": (
        _standard, frozenset({b"webhook-id", b"webhook-timestamp", b"webhook-signature"}),
    ),
}  # fmt: skip


class Replays:
    """Signatures that are not to be taken again: those that are answered 2xx, and those under way.
    In this process, and no more than so many."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._until: dict[bytes, float] = {}
        self._sweep_at = 1024

    def __len__(self) -> int:
        return len(self._until)

    def enter(self, signature: bytes, now: float) -> bool:
        """It is under way from now on; False: it was taken before."""
        if self._until.get(signature, 0.0) > now:
            return False
        if len(self._until) >= self._sweep_at:
            self._sweep(now)
        self._until[signature] = float("inf")
        return True

    def leave(self, signature: bytes, until: float) -> None:
        """It is under way no longer, and not to be taken before ``until``; 0: it may be."""
        if until:
            self._until[signature] = until
        else:
            self._until.pop(signature, None)

    def _sweep(self, now: float) -> None:
        """Forget what has passed; where that is not enough, the oldest."""
        kept = [(one, until) for one, until in self._until.items() if until > now]
        self._until = dict(kept[-self._most // 2 :] if len(kept) >= self._most else kept)
        self._sweep_at = min(self._most, max(1024, 2 * len(self._until)))
