"""`triggerhub dlq`: dead letters."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.evidence import evidence
from triggerhub.cli.failure import Failure
from triggerhub.cli.output import Form, FormOption, ago, document, plain, plural, table
from triggerhub.cli.reading import DataOption, StoreOption, offline, read

_PAGE = 200

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Dead letters by id.")]
OfTrigger = Annotated[
    str, typer.Option("--trigger", metavar="NAME", help="NAME or NAMESPACE/NAME.")
]
OfFunction = Annotated[str, typer.Option("--function", metavar="NAME", help="Of this function.")]
ForReason = Annotated[
    str,
    typer.Option(
        "--reason", metavar="WORD", help="Rejected, AttemptsExhausted, Expired, Undecodable."
    ),
]
OlderThan = Annotated[
    str, typer.Option("--older-than", metavar="DURATION", help="Stored so long ago: 24h, 30m.")
]
All = Annotated[bool, typer.Option("--all", help="Every dead letter there is.")]


def list_(
    trigger: OfTrigger = "",
    function: OfFunction = "",
    reason: ForReason = "",
    older_than: OlderThan = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the oldest first.")] = 100,
    data: DataOption = None,
    store: StoreOption = "",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Dead letters, the oldest first.

    \b
    Examples:
      triggerhub dlq list --trigger shop/orders
      triggerhub dlq list --reason Rejected --older-than 24h -o json
      triggerhub dlq list --data .triggerhub
      triggerhub dlq list --store nats://nats.example:4222
    """
    shape = _selection((), trigger, function, reason, older_than)
    found, more = read(
        lambda: _listed_by_hub(Hub(admin, admin_token_file), shape, limit),
        lambda folder, url: offline().listed_in(folder, url, shape, limit),
        data,
        store,
        admin,
    )
    if output is not Form.TABLE:
        document(found, output)
    elif not found:
        print("no dead letters" + (" that match" if shape else ""))
    else:
        table(
            ("ID", "TRIGGER", "FUNCTION", "REASON", "TRIES", "AGE", "DETAIL"),
            [
                (
                    letter["id"],
                    f"{letter['namespace']}/{letter['trigger']}",
                    letter["function"],
                    letter["reason"],
                    str(letter["attempts"]),
                    ago(letter["lastTime"]),
                    letter["detail"],
                )
                for letter in found
            ],
        )
        if more:
            print(f"… and more than these {limit}; see them with --limit")


def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID")],
    data: DataOption = None,
    store: StoreOption = "",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """One dead letter: the evidence, the event and its data.

    With -o json or yaml all bytes are there, in base64.

    \b
    Examples:
      triggerhub dlq show 01JD0M3M6Q4V7Y9XH4W2N8K5TZ
      triggerhub dlq show 01JD0M3M6Q4V7Y9XH4W2N8K5TZ -o json | jq -r .event.data_base64 | base64 -d
    """
    letter = read(
        lambda: Hub(admin, admin_token_file).get(f"/v1/dead-letters/{quote(letter_id, safe='')}"),
        lambda folder, url: offline().shown_from(folder, url, letter_id),
        data,
        store,
        admin,
    )
    if output is not Form.TABLE:
        document(letter, output)
        return
    for line in evidence(letter):
        print(line)


def redrive(
    ids: Ids = None,
    trigger: OfTrigger = "",
    function: OfFunction = "",
    reason: ForReason = "",
    older_than: OlderThan = "",
    everything: All = False,
    timeout: Annotated[
        str, typer.Option(help="What has no outcome by then stays a dead letter.")
    ] = "30s",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Send dead letters again along their bindings; those accepted are deleted.

    The exit code is 0 when all were accepted.

    \b
    Examples:
      triggerhub dlq redrive 01JD0M3M6Q4V7Y9XH4W2N8K5TZ
      triggerhub dlq redrive --trigger shop/orders --reason Rejected
      triggerhub dlq redrive --all --timeout 5m
    """
    from triggerhub.durations import seconds

    body = _selected("redrive", ids, trigger, function, reason, older_than, everything)
    try:
        patience = seconds(timeout) + 15.0
    except ValueError as error:
        raise Failure(f"--timeout: {error}", 2) from None
    body["timeout"] = timeout
    hub = Hub(admin, admin_token_file)
    answers = hub.lines("POST", "/v1/dead-letters/redrive", body, patience=patience)
    told: list[dict[str, Any]] = []
    for line in answers:
        if "error" in line:
            raise Failure(str(line["message"]))
        told.append(line)
        if output is Form.TABLE:
            detail = f": {line['detail']}" if line["detail"] else ""
            print(plain(f"{line['id']}  {line['outcome']}{detail}"), flush=True)
    counts = Counter(line["outcome"] for line in told)
    if output is not Form.TABLE:
        document(told, output)
    elif not told:
        print("no dead letters that match")
    else:
        print(
            f"{plural(len(told), 'dead letter')}: {counts['accepted']} accepted, "
            f"{counts['dead']} dead again, {counts['kept']} kept as they were"
        )
    if counts["accepted"] < len(told):
        raise typer.Exit(1)


def purge(
    ids: Ids = None,
    trigger: OfTrigger = "",
    function: OfFunction = "",
    reason: ForReason = "",
    older_than: OlderThan = "",
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Delete dead letters for good.

    \b
    Examples:
      triggerhub dlq purge --older-than 720h
      triggerhub dlq purge --trigger shop/orders --reason Undecodable --yes
    """
    body = _selected("purge", ids, trigger, function, reason, older_than, everything)
    if sys.stdin.isatty() and not yes:
        which = "all dead letters" if everything else "the dead letters that match"
        if not typer.confirm(f"Delete {which} for good?"):
            raise Failure("nothing was deleted")
    answer = Hub(admin, admin_token_file).call("DELETE", "/v1/dead-letters", body, patience=300.0)
    if output is not Form.TABLE:
        document(answer, output)
    else:
        print(f"{plural(answer['deleted'], 'dead letter')} deleted")
        if answer["elsewhere"]:
            print(
                f"{answer['elsewhere']} of them only from the hub's list: they stay in the system "
                "that they were laid down in, for as long as that keeps them"
            )


def _selection(
    ids: tuple[str, ...], trigger: str, function: str, reason: str, older_than: str
) -> dict[str, Any]:
    given = {
        "ids": list(ids),
        "trigger": trigger,
        "function": function,
        "reason": reason,
        "olderThan": older_than,
    }
    return {name: value for name, value in given.items() if value}


def _selected(
    verb: str,
    ids: list[str] | None,
    trigger: str,
    function: str,
    reason: str,
    older_than: str,
    everything: bool,
) -> dict[str, Any]:
    shape = _selection(tuple(ids or ()), trigger, function, reason, older_than)
    if everything and shape:
        raise Failure("--all goes with no other choice of dead letters", 2)
    if not everything and not shape:
        raise Failure(f"say which dead letters to {verb}: ids, --trigger …, or --all", 2)
    return {"all": True} if everything else shape


def _listed_by_hub(hub: Hub, shape: dict[str, Any], limit: int) -> tuple[list[Any], bool]:
    found: list[Any] = []
    after = ""
    while len(found) < limit:
        query = shape | {"limit": min(_PAGE, limit - len(found)), "after": after}
        answer = hub.get(f"/v1/dead-letters?{urlencode(query)}")
        found += answer["deadLetters"]
        after = answer["next"]
        if not after:
            return found, False
    query = shape | {"limit": 1, "after": after}
    return found, bool(hub.get(f"/v1/dead-letters?{urlencode(query)}")["deadLetters"])
