"""`triggerhub cron`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.failure import Failure
from triggerhub.cli.manifests import Paths
from triggerhub.cli.output import Form, FormOption, document, plain, seconds_text, table


def next_(
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="NAME or NAMESPACE/NAME.")],
    number: Annotated[int, typer.Option("--number", "-n", help="So many, up to 1000.")] = 10,
    after: Annotated[
        str, typer.Option(metavar="TIME", help="Later than this RFC 3339 time; default: now.")
    ] = "",
    filename: Paths = None,
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """What a trigger will send next, and why: which schedule, what the clocks, excluded days and
    jitter do to it.

    With -f from manifests, and no hub is asked.

    \b
    Examples:
      triggerhub cron next nightly
      triggerhub cron next shop/nightly -n 3 -f manifests/ --after 2026-10-24T00:00:00Z
      triggerhub cron next nightly -o json | jq -r '.upcoming[].sent'
    """
    query = {"n": str(number)} | ({"after": after} if after else {})
    if filename:
        told = _read(trigger, query, filename)
    else:
        path = f"/v1/triggers/{quote(trigger, safe='')}/upcoming?{urlencode(query)}"
        told = Hub(admin, admin_token_file).get(path)
    if output is not Form.TABLE:
        document(told, output)
    else:
        _show(told)


def _read(name: str, query: dict[str, str], filename: list[Path]) -> dict[str, Any]:
    from triggerhub.connector import Installation
    from triggerhub.control.foretelling import NotForetold, asked, find_trigger, foretold, upcoming
    from triggerhub.control.plugins import installed_kinds
    from triggerhub.control.sources.files import FolderSource

    kinds = installed_kinds()
    faults: list[str] = []
    try:
        after, number = asked(query, datetime.now(UTC))
        snapshot = FolderSource(filename, kinds).load()
        faults = [str(fault) for fault in snapshot.faults]
        found = find_trigger(name, snapshot.triggers)
        factory = kinds[found.kind].factory
        assert factory is not None  # else it had no source
        events = upcoming(found, factory(Installation()), after, number)
    except NotForetold as error:
        # It may be one that could not be read.
        about = [fault for fault in faults if f"/{name.rpartition('/')[2]}:" in fault]
        raise Failure(plain(about[0] if about and not error.there else error)) from None
    except (ValueError, OSError) as error:
        raise Failure(str(error)) from None
    return foretold(found, events)


def _show(told: dict[str, Any]) -> None:
    events = told["upcoming"]
    if told["paused"]:
        print(f"{plain(told['trigger'])} is paused: nothing is sent until it goes on")
    if not events:
        print("nothing is due any more")
        return
    now = datetime.now(UTC)
    dues = [datetime.fromisoformat(event["due"]) for event in events]
    local = [datetime.fromisoformat(event["sent"]).astimezone() for event in events]
    here = "local" if any(moment.utcoffset() for moment in local) else "UTC"
    columns = {
        f"DUE ({plain(events[0]['zone'])})": _times(dues),
        f"SENT ({here})": _times(local),
        "IN": [_away(moment, now) for moment in local],
        "SCHEDULE": [", ".join(event["why"]) for event in events],
        "NOTE": ["; ".join(event["notes"]) for event in events],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    table(list(shown), list(zip(*shown.values(), strict=True)))


def _times(moments: list[datetime]) -> list[str]:
    """Local times with their offset, which tells apart what a change of the clocks repeats."""
    seconds = ":%S" if any(moment.second for moment in moments) else ""
    zoned = any(moment.utcoffset() for moment in moments)
    offsets = [f" {moment.isoformat()[-6:]}" if zoned else "" for moment in moments]
    return [f"{m:%a %Y-%m-%d %H:%M{seconds}}{o}" for m, o in zip(moments, offsets, strict=True)]


def _away(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    return seconds_text(seconds) if seconds >= 0 else ""
