"""`triggerhub bindings`."""

from __future__ import annotations

from typing import Any

from triggerhub.cli.client import DEFAULT_ADMIN, AdminOption, Hub, TokenOption
from triggerhub.cli.output import (
    Form,
    FormOption,
    document,
    lag_text,
    number_text,
    seconds_text,
    table,
)

TITLES = ("TRIGGER", "KIND", "FUNCTION", "STATE", "RATE", "IN-FLIGHT", "LAG", "DEAD", "LAST ERROR")


def bindings(
    output: FormOption = Form.TABLE,
    admin: AdminOption = DEFAULT_ADMIN,
    admin_token_file: TokenOption = None,
) -> None:
    """What is bound: trigger, function, state, rate, lag, last error.

    RATE is events per second, LAG what waits in the source or the inbox (json and yaml tell them
    apart, and say in which partition), DEAD the dead letters kept.

    \b
    Examples:
      triggerhub bindings
      triggerhub bindings -o json | jq '.[] | select(.state != "Ready")'
    """
    found = Hub(admin, admin_token_file).get("/v1/bindings")["bindings"]
    if output is not Form.TABLE:
        document(found, output)
    elif not found:
        print("no triggers: the hub runs, but its manifests hold none")
    else:
        table(TITLES, [_row(binding) for binding in found])


def _row(binding: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{binding['namespace']}/{binding['trigger']}",
        binding["kind"].removesuffix("Trigger"),
        binding["function"] or "-",
        binding["state"],
        number_text(binding["rate"]),
        number_text(binding["inFlight"]),
        lag_text(binding["lag"], binding["inbox"]),
        number_text(binding["deadLetters"]),
        trouble(binding),
    )


def trouble(binding: dict[str, Any]) -> str:
    """What is wrong now, else the last attempt that failed and how long ago."""
    if binding["state"] not in ("Ready", "Paused") or binding["reason"] == "LagGrowing":
        return str(binding["message"] or binding["reason"])
    if not binding["lastError"]:
        return ""
    age = binding["lastErrorAge"]
    when = "" if age is None else f" ({seconds_text(age)} ago)"
    return f"{binding['lastError']}{when}"
