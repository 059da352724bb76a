"""`triggerhub inbox`: what was accepted and is not delivered yet."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.failure import Failure
from triggerhub.cli.output import Form, FormOption, document, plural, table
from triggerhub.cli.reading import DataOption, StoreOption, offline, read

_BOUND = {True: "yes", False: "no", None: "-"}


def list_(
    data: DataOption = None,
    store: StoreOption = "",
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """What waits in inboxes: of each binding the events, their bytes, and whether it is bound.

    \b
    Examples:
      triggerhub inbox list
      triggerhub inbox list --data .triggerhub
    """
    found = read(
        lambda: Hub(admin, admin_token_file).get("/v1/inboxes")["inboxes"],
        lambda folder, url: offline().inboxes_in(folder, url),
        data,
        store,
        admin,
    )
    if output is not Form.TABLE:
        document(found, output)
    elif not found:
        print("all inboxes are empty")
    else:
        table(
            ("BINDING", "BOUND", "EVENTS", "BYTES"),
            [
                (
                    inbox["binding"],
                    _BOUND[inbox["bound"]],
                    str(inbox["events"]),
                    str(inbox["bytes"]),
                )
                for inbox in found
            ],
        )


def purge(
    binding: Annotated[str, typer.Argument(metavar="BINDING", help="As list shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """Delete for good what waits for a binding that is gone.

    \b
    Examples:
      triggerhub inbox purge shop.orders.handle
      triggerhub inbox purge shop.orders.handle --yes
    """
    asks = sys.stdin.isatty() and not yes
    if asks and not typer.confirm(f"Delete all that waits for {binding} for good?"):
        raise Failure("nothing was deleted")
    path = f"/v1/inboxes/{quote(binding, safe='')}"
    answer = Hub(admin, admin_token_file).call("DELETE", path, patience=300.0)
    if output is not Form.TABLE:
        document(answer, output)
    else:
        print(f"{plural(answer['deleted'], 'event')} deleted")
