"""The command line: one module a command group."""

from __future__ import annotations

from typing import Annotated

import typer

from triggerhub import __version__
from triggerhub.cli import cron as cron_commands
from triggerhub.cli import dlq as dlq_commands
from triggerhub.cli import inbox as inbox_commands
from triggerhub.cli.bindings import bindings
from triggerhub.cli.events import emit, why
from triggerhub.cli.failure import Commands
from triggerhub.cli.manifests import connectors, crds, validate
from triggerhub.cli.replay import replay
from triggerhub.cli.run import run

app = typer.Typer(
    name="triggerhub",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
dlq = typer.Typer(
    name="dlq",
    help="Dead letters: list, show, redrive, purge.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
inbox = typer.Typer(
    name="inbox",
    help="What was accepted and is not delivered yet: list, purge.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cron = typer.Typer(
    name="cron",
    help="Schedules: next.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"triggerhub {__version__}")
        raise typer.Exit


@app.callback()
def triggerhub(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Every event of every source reaches its function, or is kept.

    \b
    Begin with:
      triggerhub validate -f manifests/
      triggerhub run -f manifests/
    """


app.command(short_help="Run a hub until it is told to stop.")(run)
app.command(short_help="Every fault of the manifests.")(validate)
app.command(short_help="Which kinds of triggers are installed.")(connectors)
app.command(short_help="The kinds as CustomResourceDefinitions.")(crds)
app.command(short_help="What is bound, and how it goes.")(bindings)
app.command(short_help="Send a test event through a trigger.")(emit)
app.command(short_help="The story of one event.")(why)
app.command(short_help="Send what is past once more.")(replay)
cron.command("next", short_help="What a trigger will send next, and why.")(cron_commands.next_)
app.add_typer(cron)
dlq.command("list", short_help="Dead letters, the oldest first.")(dlq_commands.list_)
dlq.command("show", short_help="One dead letter, with its data.")(dlq_commands.show)
dlq.command("redrive", short_help="Send dead letters again.")(dlq_commands.redrive)
dlq.command("purge", short_help="Delete dead letters for good.")(dlq_commands.purge)
app.add_typer(dlq)
inbox.command("list", short_help="What waits, by binding.")(inbox_commands.list_)
inbox.command("purge", short_help="Delete what waits for a binding that is gone.")(
    inbox_commands.purge
)
app.add_typer(inbox)
