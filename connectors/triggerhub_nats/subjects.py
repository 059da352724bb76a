"""Subjects: how they look, and which of them a pattern means."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from triggerhub.fields import Text

# White space and control characters end a word of the protocol; the others have a meaning of
# their own in a subject.
_PLAIN = r"[^\x00-\x20\x7f.*>]"
_SUBJECT = Text(
    rf"(({_PLAIN}+|\*)\.)*({_PLAIN}+|\*|>)",
    "a subject: words between dots such as orders.created, orders.* or orders.>",
    255,
    readable=False,
)
# JetStream's own requests, its inboxes: whoever may write triggers is not to speak for the hub.
_WRITTEN = "a subject without wildcards such as orders.dead, none that begins with $ or _INBOX."
_PLACE = Text(rf"({_PLAIN}+\.)*{_PLAIN}+", _WRITTEN, 255, never=r"^(\$|_INBOX\.)", readable=False)
_NO_DOLLAR = _PLAIN.replace("[^", "[^$")
# Below what may also be of another type an API server takes no rules.
_PLACE_WITHOUT_RULES = Text(rf"{_NO_DOLLAR}{_PLAIN}*(\.{_PLAIN}+)*", _WRITTEN, 255)

Subject = Annotated[str, _SUBJECT]
WrittenSubject = Annotated[str, _PLACE]
"""One that the hub publishes to."""
AnsweredSubject = Annotated[str, _PLACE_WITHOUT_RULES, AfterValidator(_PLACE.check)]
"""The same, in a choice."""


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject, without wildcards, is among those that a pattern means."""
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(found) >= len(wanted) and _fits(wanted[:-1], found)
    return len(found) == len(wanted) and _fits(wanted, found)


def _fits(wanted: list[str], found: list[str]) -> bool:
    return all(one in ("*", other) for one, other in zip(wanted, found, strict=False))


def covered(pattern: str, subject: str) -> str:
    """CEL: of ``covers``. What is between wildcards stands between quotes of RE2."""
    form = f"{pattern}.replace('*', '\\\\E[^.]+\\\\Q').replace('>', '\\\\E.+\\\\Q')"
    return f"{subject}.matches('^\\\\Q' + {form} + '\\\\E$')"


def covered_cheaply(pattern: str, subject: str) -> str:
    """CEL: the same where ``pattern`` has no ``*``; else it never is. ``covered``, said of each of
    a long list, is too dear for an API server."""
    rest = f"{pattern}.substring(0, {pattern}.size() - 1)"
    return f"({pattern} == {subject} || {pattern}.endsWith('>') && {subject}.startsWith({rest}))"
