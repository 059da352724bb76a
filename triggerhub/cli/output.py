"""How answers look: tables fit for a terminal, JSON, YAML; and words for times and numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

_LEAST = 8
_GAP = "  "
_NUMBER = re.compile(r"-|[0-9]+(\.[0-9]+)?")


class Form(StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormOption = Annotated[Form, typer.Option("--output", "-o", help="How to print the answer.")]


def document(value: Any, form: Form) -> None:
    """Print plain data as JSON or YAML."""
    if form is Form.JSON:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        print(yaml_text(value), end="")


def yaml_text(value: Any) -> str:
    """Plain data as YAML, with a line end."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, cut to the terminal's width (not at all into a file or pipe).
    Columns whose cells are all numbers stand to the right."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(len(row[i]) for row in cells)]) for i, title in enumerate(titles)]
    _shrink(widths, titles)
    right = [all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(titles))]
    for row in [list(titles), *cells]:
        line = _GAP.join(
            fitted(cell, width).rjust(width) if to_right else fitted(cell, width).ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        print(line.rstrip())


def fitted(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def plain(text: object) -> str:
    """One line without control characters: what a function answered must not steer a
    terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)
    )


def columns() -> int:
    """How wide the output may be; 0 where it does not matter."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size((100, 24)).columns
    return 0


def seconds_text(seconds: float) -> str:
    """A span of time in at most five characters or so: ``0.4 ms``, ``12 ms``, ``1.5 s``,
    ``3 min``, ``2 h``, ``5 d``."""
    if seconds < 1:
        thousandths = seconds * 1000
        return f"{thousandths:.1f} ms" if thousandths < 10 else f"{thousandths:.0f} ms"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if size == 1 and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def ago(moment: str) -> str:
    """How long an RFC 3339 time is past."""
    then = datetime.fromisoformat(moment)
    return seconds_text(max(0.0, (datetime.now(UTC) - then).total_seconds()))


def lag_text(lag: float | None, inbox: int) -> str:
    """What waits in the source and in the hub's inbox."""
    return number_text((lag or 0) + inbox if inbox else lag)


def number_text(value: float | None) -> str:
    """A count or a rate: ``-`` where there is none, no false precision."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}"


def plural(number: int, thing: str) -> str:
    """``1 trigger``, ``2 triggers``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _shrink(widths: list[int], titles: Sequence[str]) -> None:
    room = columns()
    if not room:
        return
    spare = room - len(_GAP) * (len(widths) - 1)
    least = [max(min(len(title), width), min(_LEAST, width)) for title, width in zip(
        titles, widths, strict=True)]  # fmt: skip
    while sum(widths) > spare:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not wide:
            return
        widths[max(wide, key=lambda i: widths[i])] -= 1
