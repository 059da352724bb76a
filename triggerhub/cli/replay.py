"""`triggerhub replay`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.failure import Failure
from triggerhub.cli.output import (
    Form,
    FormOption,
    number_text,
    plain,
    plural,
    seconds_text,
    yaml_text,
)

_PATIENCE = 60.0
_EVERY = 5.0
"""Seconds between two lines where there is no terminal."""

Told = dict[str, Any]
Show = Callable[[Told], None]


def replay(
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="NAME or NAMESPACE/NAME.")],
    since: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHEN",
            help="An RFC 3339 time, a duration before now (2h), or a position in the source: "
            "for Kafka Earliest or PARTITION:OFFSET,… as in the events' ids.",
        ),
    ],
    until: Annotated[
        str,
        typer.Option("--to", metavar="WHEN", help="The same; what lies there is left out."),
    ] = "now",
    function: Annotated[
        str, typer.Option("--function", metavar="NAME", help="Of several, only to this one.")
    ] = "",
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="At most so many events a second.")
    ] = None,
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Send what is past once more along a trigger's binding, beside the live stream.

    The trigger's position stays as it is. Ctrl-C ends the replay; it says how to go on.

    \b
    Examples:
      triggerhub replay shop/orders --from 2h
      triggerhub replay orders --from 2026-01-31T08:00:00Z --to 2026-01-31T09:00:00Z --rate 100
      triggerhub replay orders --from 0:1520,1:1498 --to 0:1600,1:1600 -o json
    """
    asked = {"from": since, "to": until, "function": function, "rate": rate}
    body = {name: value for name, value in asked.items() if value not in (None, "")}
    hub = Hub(admin, admin_token_file)
    path = f"/v1/bindings/{quote(trigger)}/replay"
    told: Told = {}
    why = "the hub broke off"
    try:
        with _shown(output) as show:
            for line in hub.lines("POST", path, body, patience=_PATIENCE):
                told |= line  # one that tells of an error may know nothing else any more
                show(told)
        if told.get("ended"):
            _sum_up(told, output)
            return
        if "error" in told:
            why = str(told["message"])
    except KeyboardInterrupt:
        why = "stopped"
    except Failure as failure:
        if not told:
            raise
        why = str(failure)
    raise Failure(_broken_off(why, told, trigger, body, admin), 130 if why == "stopped" else 1)


def _sum_up(told: Told, output: Form) -> None:
    if not told["size"]:
        note = f"; {told['note']}" if told["note"] else ""
        raise Failure(plain(f"nothing lies in that window{note}"))
    if output is not Form.TABLE:
        return
    print(plain(_events(told)))
    if told["note"]:
        print(plain(told["note"]))


def _broken_off(why: str, told: Told, trigger: str, body: Told, admin: str) -> str:
    """One sentence, and where there is something to go on from, the command that does."""
    if not told.get("from"):
        return plain(why)
    namespace, name, function = told["binding"].split(".", 2)
    words = ["triggerhub", "replay", f"{namespace}/{name}", "--function", function]
    words += ["--from", told["from"], "--to", told["to"]]
    words += ["--rate", f"{body['rate']:g}"] if "rate" in body else []
    words += ["--admin", admin] if admin != DEFAULT_ADMIN else []
    return f"{plain(why)}; {_events(told)}, {_share(told):.0f} %; go on with: {shlex.join(words)}"


def _share(told: Told) -> float:
    return 100.0 * told["done"] / told["size"] if told["size"] else 100.0


def _events(told: Told) -> str:
    """``1520 events: 1518 accepted, 2 dead``."""
    outcomes = told["events"]
    parts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    number = sum(outcomes.values())
    return f"{plural(number, 'event')}: {parts}" if number else "no event"


@contextmanager
def _shown(output: Form) -> Iterator[Show]:
    if output is Form.JSON:
        yield lambda told: print(json.dumps(told, ensure_ascii=False), flush=True)
    elif output is Form.YAML:
        yield lambda told: print(f"---\n{yaml_text(told)}", end="", flush=True)
    elif sys.stdout.isatty():
        with _on_a_terminal() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """Now and then a line, and at once where something is in the way."""

    def __init__(self) -> None:
        self._last = self._begun = time.monotonic()
        self._trouble = ""

    def __call__(self, told: Told) -> None:
        now = time.monotonic()
        if told.get("size") is None or told.get("ended") or "error" in told:
            return
        if told["trouble"] == self._trouble and now - self._last < _EVERY:
            return
        self._last, self._trouble = now, told["trouble"]
        print(plain(_progress(told, now - self._begun)), flush=True)


def _progress(told: Told, seconds: float) -> str:
    sent = sum(told["events"].values())
    text = f"{plural(sent, 'event')}, {_share(told):.0f} %"
    if told["done"] and seconds:
        left = (told["size"] - told["done"]) * seconds / told["done"]
        text += f", {number_text(sent / seconds)}/s, {seconds_text(left)} left"
    return f"{text}: {told['trouble']}" if told["trouble"] else text


@contextmanager
def _on_a_terminal() -> Iterator[Show]:
    # It is large, and only shown to people.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    begun = time.monotonic()
    columns = (
        TextColumn("{task.fields[sent]} events"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(), transient=True) as progress:
        task = progress.add_task("", total=None, sent=0, rate="-")
        trouble = ""

        def show(told: Told) -> None:
            nonlocal trouble
            if told.get("size") is None:
                return
            sent = sum(told["events"].values())
            per_second = number_text(sent / max(0.001, time.monotonic() - begun))
            progress.update(
                task, total=told["size"], completed=told["done"], sent=sent, rate=per_second
            )
            if told["trouble"] != trouble:
                trouble = told["trouble"]
                progress.console.print(Text(plain(trouble) if trouble else "it goes on"))

        yield show
