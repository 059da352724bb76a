"""One message of a stream by its sequence, without a consumer."""

from __future__ import annotations

from base64 import b64decode

from triggerhub.nats.client import Client, Refusal

_NO_MESSAGE = 10037
_STREAM_NOT_FOUND = 10059


async def message_at(client: Client, stream: str, sequence: int) -> tuple[bytes, bytes] | None:
    """Headers, as a block, and data. None: there is none of that sequence any more, or no such
    stream. Raises what ``Client.ask`` does."""
    try:
        found = await client.ask(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    except Refusal as refusal:
        if refusal.number in (_NO_MESSAGE, _STREAM_NOT_FOUND):
            return None
        raise
    message = found["message"]
    return b64decode(message.get("hdrs") or b""), b64decode(message.get("data") or b"")
