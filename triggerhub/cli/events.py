"""`triggerhub emit` and `triggerhub why`: the story of one event."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.failure import Failure
from triggerhub.cli.output import Form, FormOption, document, plain, plural, seconds_text

_SHOWN = 6
"""Of so many attempts at each end are lines printed; those in between are counted."""


def emit(
    trigger: Annotated[
        str, typer.Argument(help="NAME, NAMESPACE/NAME, or a binding's whole name.")
    ],
    data: Annotated[str, typer.Option(help="The data; @FILE reads a file, - standard input.")] = "",
    content_type: Annotated[
        str, typer.Option(help="Default: application/json for JSON, else text/plain.")
    ] = "",
    subject: Annotated[str, typer.Option(help="The CloudEvents attribute.")] = "",
    key: Annotated[str, typer.Option(help="What order means for it.")] = "",
    type_: Annotated[
        str, typer.Option("--type", help="The CloudEvents attribute; default dev.triggerhub.emit.")
    ] = "",
    extension: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A CloudEvents extension; may be repeated."),
    ] = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for the outcome.")] = "10s",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Send a test event through a trigger's binding and print what became of it.

    The exit code is 0 when the function accepted it.

    \b
    Examples:
      triggerhub emit orders --data '{"order": 7}'
      triggerhub emit shop/orders --data @order.json --key customer-12
      date | triggerhub emit shop.orders.handle-order --data -
    """
    given = {"contentType": content_type, "subject": subject, "key": key, "type": type_}
    body: dict[str, Any] = {name: text for name, text in given.items() if text}
    body |= _data(data, typed=bool(content_type))
    if extension:
        body["extensions"] = dict(_extension(text) for text in extension)
    body["timeout"] = timeout
    path = f"/v1/bindings/{quote(trigger, safe='')}/emit"
    patience = _patience(timeout)
    answer = Hub(admin, admin_token_file).call("POST", path, body, patience=patience)
    outcome = answer["outcome"]
    if output is not Form.TABLE:
        document(answer, output)
    else:
        if "delivery" in answer:
            tell([answer["delivery"]])
        if outcome == "under way":
            print(f"It goes on. Look again with: triggerhub why {plain(answer['id'])}")
    if outcome != "accepted":
        raise typer.Exit(1)


def why(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    source: Annotated[str, typer.Option(help="Its source, where several share the id.")] = "",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """One event: where it came from, each attempt with status and time, where it ended.

    Known are the latest thousand deliveries of each binding, and for a day every event that was
    rejected, filtered, dead-lettered or needed more than one attempt.

    \b
    Examples:
      triggerhub why 0:1841
      triggerhub why 0:1841 --source /kafka/orders
    """
    query = urlencode({"id": event_id} | ({"source": source} if source else {}))
    found = Hub(admin, admin_token_file).get(f"/v1/events?{query}")["deliveries"]
    if output is not Form.TABLE:
        document(found, output)
    else:
        tell(found)


def tell(deliveries: list[dict[str, Any]]) -> None:
    """Print deliveries (newest first) as stories in time order."""
    last = None
    for delivery in reversed(deliveries):
        event = delivery["source"], delivery["id"], delivery["type"]
        if event != last:
            if last is not None:
                print()
            print(plain(f"Event {event[1]} from {event[0]}"))
            print(plain(f"Type  {event[2]}"))
            print(f"Times are UTC; {delivery['received'][:10]}.")
            last = event
        print()
        for line in _story(delivery):
            print(plain(line))


def _story(delivery: dict[str, Any]) -> Iterator[str]:
    namespace, trigger, function = delivery["binding"].split(".", 2)
    yield f"Trigger {namespace}/{trigger}, function {function}"
    yield f"  {_clock(delivery['received'])}  received"
    attempts = delivery["attempts"]
    hidden = len(attempts) - 2 * _SHOWN
    for index, attempt in enumerate(attempts):
        if hidden > 1 and _SHOWN <= index < len(attempts) - _SHOWN:
            if index == _SHOWN:
                yield f"  {'':12}  … {plural(hidden, 'attempt')} more (-o json shows all)"
            continue
        status = "" if attempt["status"] is None else f"status {attempt['status']}"
        said = ": ".join(part for part in (status, attempt["error"]) if part)
        took = seconds_text(attempt["seconds"])
        yield f"  {_clock(attempt['time'])}  attempt {attempt['number']}: {said}, after {took}"
    ended = delivery["ended"]
    if ended is None:
        yield f"  {'now':12}  {delivery['detail'] or 'under way'}"
        return
    took = seconds_text(_seconds(delivery["received"], ended))
    yield f"  {_clock(ended)}  {_end(delivery)}, {took} after it came"
    letter = delivery["deadLetter"]
    if letter:
        yield ""
        yield f"  It is kept as dead letter {letter}."
        yield f"  Look at it:     triggerhub dlq show {letter}"
        yield f"  Send it again:  triggerhub dlq redrive {letter}"


def _end(delivery: dict[str, Any]) -> str:
    words = {"dead": "dead letter", "accepted": "accepted", "filtered": "filtered out",
             "dropped": "dropped"}  # fmt: skip
    settled = words.get(delivery["settled"], "ended without an outcome")
    detail = str(delivery["detail"])
    if not detail or detail.startswith(settled):
        return detail or settled
    return f"{settled}: {detail}"


def _clock(moment: str) -> str:
    return moment[11:23]


def _seconds(earlier: str, later: str) -> float:
    span = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    return span.total_seconds()


def _data(text: str, *, typed: bool) -> dict[str, Any]:
    """The request's fields for the data: bytes go as they are."""
    try:
        if text == "-":
            raw = sys.stdin.buffer.read()
        elif text.startswith("@"):
            raw = Path(text[1:]).read_bytes()
        else:
            raw = text.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise Failure(f"--data: {text[1:]} cannot be read: {error.strerror}") from None
    if not raw:
        return {}
    shape: dict[str, Any] = {"data_base64": b64encode(raw).decode()}
    if not typed:
        shape["contentType"] = _guessed(raw)
    return shape


def _guessed(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    if text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return "text/plain; charset=utf-8"
        return "application/json"
    return "text/plain; charset=utf-8"


def _extension(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Failure(f"--extension: found {text!r}, expected NAME=VALUE", 2)
    return name, value


def _patience(timeout: str) -> float:
    from triggerhub.durations import seconds

    try:
        return seconds(timeout) + 15.0
    except ValueError as error:
        raise Failure(f"--timeout: {error}", 2) from None
