"""A durable consumer that nobody listens to: its position moved, or it removed."""

from __future__ import annotations

import asyncio
from typing import Any

from triggerhub.connector import Problem, Subscription
from triggerhub.nats.client import Client, Refusal
from triggerhub.nats.problems import explain_jetstream
from triggerhub_nats.consumer import Unusable, bind, delete, durable_of, find, note_of
from triggerhub_nats.source import NATSSource
from triggerhub_nats.writing import PROBLEMS

_PAUSE = 1.0


class PositionError(Exception):
    """It is not done; says why."""


async def seek(client: Client, subscription: Subscription[NATSSource]) -> None:
    """Do the seek of ``source``, and report it. Raises ``PositionError``, with a sentence."""
    source = subscription.source
    assert source.seek is not None
    awaited = False
    try:
        while isinstance(found := await _look(client, subscription), Problem):
            # It is read from its first message when it comes: that is written down then.
            awaited = True
            subscription.report.disconnected(*found)
            await asyncio.sleep(_PAUSE)
        if found is not None and not note_of(found).done(source.seek.id):
            _check_unheard(found)
        consumer = await bind(client, subscription, None, awaited=awaited)
    except Unusable as unusable:
        raise PositionError(unusable.problem.text) from unusable
    except PROBLEMS as error:
        raise PositionError(_why(error, subscription).text) from error
    if (told := consumer.note.told) is not None:
        subscription.report.sought(told)


async def delete_consumer(client: Client, subscription: Subscription[NATSSource]) -> None:
    """No error where it, or its stream, is not there. Raises ``PositionError``, with a sentence."""
    stream = subscription.source.stream
    try:
        found = None if stream is None else await _look(client, subscription)
        if stream is not None and found is not None and not isinstance(found, Problem):
            _check_unheard(found)
            await delete(client, stream, found["name"])
    except PROBLEMS as error:
        raise PositionError(_why(error, subscription).text) from error


async def _look(client: Client, subscription: Subscription[NATSSource]) -> Any:
    """The consumer, as the server shows it; None where there is none; a Problem where there is no
    stream. Raises what ``Client.ask`` does. The server then forgets who asked it for messages and
    does not listen any more."""
    stream = subscription.source.stream
    assert stream is not None
    try:
        return await find(client, stream, durable_of(subscription))
    except Refusal as error:
        problem = _why(error, subscription)
        if problem.reason == "StreamNotFound":
            return problem
        raise


def _check_unheard(found: Any) -> None:
    if found["num_waiting"]:
        where = f"consumer {found['name']} of stream {found['stream_name']}"
        raise PositionError(f"{where} still has listeners")


def _why(error: Exception, subscription: Subscription[NATSSource]) -> Problem:
    return explain_jetstream(error, subscription.source.stream or "")
