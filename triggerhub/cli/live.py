"""The living picture of a running hub on a terminal."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from triggerhub import __version__
from triggerhub.admin.states import BindingView, FunctionView
from triggerhub.admin.view import View
from triggerhub.cli.output import lag_text, number_text, plain, plural, seconds_text
from triggerhub.settings import Settings
from triggerhub.telemetry import log_to_stderr

_EVERY = 0.4
_SPARING = 20.0
"""With thousands of bindings a picture costs: the next comes after so many times that."""
_SHOWN_FAULTS = 4
_SHOWN_FUNCTIONS = 3
_SHOWN_LINES = 6
_LEAST_ROWS = 3
_NOISE = frozenset({"timestamp", "level", "event", "exc_info", "exception"})
_LOUD = frozenset({"warning", "error", "critical", "exception"})
_COLOURS = {"Ready": "green", "Paused": "cyan", "Connecting": "yellow", "Stopping": "yellow"}

Line = MutableMapping[str, Any]


@asynccontextmanager
async def live(view: View, settings: Settings, lines: deque[Line]) -> AsyncIterator[None]:
    """Draw the hub a few times a second for as long as it is entered. ``lines``: what was
    logged meanwhile. Afterwards logging goes to stderr again."""
    console = Console()
    with Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as screen:
        async with asyncio.TaskGroup() as tasks:
            stop = asyncio.Event()
            tasks.create_task(_draw(screen, console, view, settings, lines, stop))
            try:
                yield
            finally:
                stop.set()
    log_to_stderr(json=False)
    under_way = sum(binding.in_flight for binding in view.bindings())
    if under_way:
        console.print(
            f"Stopping: {under_way} deliveries under way get up to {settings.grace:g} s to end. "
            "Ctrl-C ends at once; their sources would bring them again.",
            highlight=False,
        )


async def _draw(
    screen: Live,
    console: Console,
    view: View,
    settings: Settings,
    lines: deque[Line],
    stop: asyncio.Event,
) -> None:
    # Never cancelled: the thread would draw on what the terminal shows next.
    while not stop.is_set():
        began = time.perf_counter()
        picture = frame(view, settings, lines, console.width, console.height)
        pause = max(_EVERY, _SPARING * (time.perf_counter() - began))
        # A terminal that does not take its output must not stop the hub.
        await asyncio.to_thread(screen.update, picture, refresh=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


def frame(
    view: View, settings: Settings, lines: Sequence[Line] | deque[Line], width: int, height: int
) -> RenderableType:
    """One picture, exactly fit for so many columns and rows."""
    bindings = view.bindings()
    troubled = [f for f in view.functions() if f.reason != "Ready"]
    faults = view.faults()
    below: list[Text] = []
    if troubled:
        below += _section("FUNCTIONS", _functions(troubled))
    if faults:
        shown = [Text(plain(fault), style="red") for fault in faults[:_SHOWN_FAULTS]]
        below += _section("MANIFESTS", _and_more(shown, len(faults), "faults"))
    below += _log(lines, min(_SHOWN_LINES, max(2, height - 12 - len(below))))
    head = _head(view, settings, bindings)
    foot = _foot(bindings)
    # A small terminal keeps the head and some bindings.
    below = below[: max(0, height - len(head) - len(foot) - 1 - _LEAST_ROWS)]
    left = max(_LEAST_ROWS + 1, height - len(head) - len(below) - len(foot))
    table = _table(bindings, width, left)
    parts: list[RenderableType] = [*_cut(head, width), table, *_cut(below, width)]
    used = len(head) + len(table.rows) + 1 + len(below) + len(foot)
    parts += [Text("")] * max(0, height - used)
    return Group(*parts, *_cut(foot, width))


def _head(view: View, settings: Settings, bindings: Sequence[BindingView]) -> list[Text]:
    waiting = view.not_ready()
    ready = Text("starting", "yellow bold") if waiting else Text("ready", "green bold")
    up = seconds_text(time.time() - view.started)
    first = Text.assemble(("triggerhub ", "bold"), __version__, "  ", ready, f"  up {up}")
    if waiting:
        first.append(f"  waits for {plain(waiting[0])}", "yellow")
    rate = sum(binding.rate for binding in bindings)
    flying = sum(binding.in_flight for binding in bindings)
    letters = sum(view.letters.values())
    second = Text.assemble(
        f"{number_text(round(rate, 1))} events/s, {flying} in flight, ",
        (plural(letters, "dead letter"), "red" if letters else ""),
        f"   admin http://{view.address}   HTTP triggers {settings.listen}",
    )
    paths = ", ".join(str(path) for path in settings.paths)
    third = Text(f"manifests {plain(paths)}   data {settings.data}", "dim")
    return [first, second, third, Text("")]


def _foot(bindings: Sequence[BindingView]) -> list[Text]:
    tips = ["Ctrl-C stops", "triggerhub bindings"]
    if any(binding.dead_letters for binding in bindings):
        tips.append("triggerhub dlq list")
    elif ready := [binding for binding in bindings if binding.state == "Ready"]:
        tips.append(f"triggerhub emit {ready[0].namespace}/{ready[0].trigger} --data hello")
    return [Text("   ".join(tips), "dim")]


def _table(bindings: Sequence[BindingView], width: int, height: int) -> Table:
    """At most ``height`` lines: what is troubled, then what is busiest, first."""
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bold", pad_edge=False)
    wide = width >= 100
    for title in ("TRIGGER", "FUNCTION"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=width // 4)
    table.add_column("STATE", no_wrap=True)
    for title in ("RATE", "FLIGHT", "LAG", "DEAD") if wide else ("RATE", "FLIGHT", "DEAD"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("TROUBLE", no_wrap=True, overflow="ellipsis", ratio=1)
    if not bindings:
        table.add_row(Text("no triggers yet", "dim"))
        return table
    ordered = sorted(bindings, key=_urgency)
    fits = height - 1
    shown = ordered if len(ordered) <= fits else ordered[: max(1, fits - 1)]
    for binding in shown:
        cells = [
            Text(f"{binding.namespace}/{binding.trigger}"),
            Text(binding.function or "-"),
            Text(binding.state, _COLOURS.get(binding.state, "red")),
            Text(number_text(binding.rate)),
            Text(str(binding.in_flight)),
            *([Text(lag_text(binding.lag, binding.inbox))] if wide else []),
            Text(str(binding.dead_letters), "red" if binding.dead_letters else ""),
            _trouble(binding),
        ]
        table.add_row(*cells)
    if len(shown) < len(ordered):
        table.add_row(Text(f"… and {len(ordered) - len(shown):,} more".replace(",", " "), "dim"))
    return table


def _urgency(binding: BindingView) -> tuple[int, float, str, str]:
    calm = binding.state in ("Ready", "Paused")
    return (int(calm), -(binding.rate + binding.in_flight), binding.namespace, binding.trigger)


def _trouble(binding: BindingView) -> Text:
    if binding.state not in ("Ready", "Paused"):
        return Text(plain(binding.message or binding.reason), "red")
    if not binding.last_error:
        return Text("")
    age = binding.last_error_age
    when = "" if age is None else f", {seconds_text(age)} ago"
    return Text(plain(f"{binding.last_error}{when}"), "dim")


def _functions(troubled: Sequence[FunctionView]) -> list[Text]:
    shown = [
        Text.assemble(f"{f.namespace}/{f.name}  ", (f.reason, "yellow"), "  ", plain(f.message))
        for f in troubled[:_SHOWN_FUNCTIONS]
    ]
    return _and_more(shown, len(troubled), "functions in trouble")


def _log(lines: Sequence[Line] | deque[Line], room: int) -> list[Text]:
    """The latest warnings, and what the functions print."""
    if room < 2:
        return []
    kept = [
        line
        for line in tuple(lines)
        if line.get("level") in _LOUD or line.get("event") == "function.output"
    ][-(room - 1) :]
    return _section("LATEST", [_line(line) for line in kept]) if kept else []


def _line(line: Line) -> Text:
    clock = str(line.get("timestamp", ""))[11:19]
    if line.get("event") == "function.output":
        return Text.assemble((f"{clock} ", "dim"), f"{line.get('function')}: ",
                             plain(line.get("line", "")))  # fmt: skip
    fields = " ".join(f"{k}={plain(v)}" for k, v in line.items() if k not in _NOISE)
    return Text.assemble((f"{clock} ", "dim"), (str(line.get("event")), "yellow"), f" {fields}")


def _section(title: str, rows: Sequence[Text]) -> list[Text]:
    return [Text(""), Text(title, "bold"), *rows]


def _and_more(shown: list[Text], number: int, things: str) -> list[Text]:
    if number > len(shown):
        shown.append(Text(f"… {number} {things} in all", "dim"))
    return shown


def _cut(texts: Sequence[Text], width: int) -> list[Text]:
    for text in texts:
        text.no_wrap = True
        text.truncate(width, overflow="ellipsis")
    return list(texts)
