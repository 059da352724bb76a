"""Any text as a word of a subject, and back."""

from __future__ import annotations

import re

from triggerhub.store.codec import searchable

# What a key of a KV bucket may hold (ADR-8), without the dot and what escapes.
_OTHER = re.compile(rb"[^-_/A-Za-z0-9]")


def word(text: str) -> str:
    """Other bytes of its UTF-8 become ``=XX``; an empty text becomes ``=``."""
    plain = _OTHER.sub(lambda found: b"=%02X" % found[0][0], searchable(text).encode())
    return plain.decode() or "="


def text_of(word: str) -> str:
    """What ``word`` was made of."""
    if word == "=":
        return ""
    return re.sub(
        rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), word.encode()
    ).decode()
