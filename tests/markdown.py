"""Reads the project's documents: their code blocks, tables, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.core import TyperGroup

from triggerhub.connector import KeyRef, Reference

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (\w+): (\S+) -->\n+\Z")
_TABLE = re.compile(r"\n*((?:\|.*\n)+)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of code."""

    page: str
    line: int
    language: str
    text: str
    mark: tuple[str, str]
    """What a comment just before it says: ``("file", "examples/…")``; else empty texts."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> dict[str, str]:
    """The text of every document by its path."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(found)}


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages."""
    found = []
    for page, text in pages().items():
        for match in _FENCE.finditer(text):
            if match[2] in languages:
                before = _MARK.search(text, 0, match.start())
                mark = (before[1], before[2]) if before else ("", "")
                line = text.count("\n", 0, match.start()) + 1
                code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
                found.append(Block(page, line, match[2], code, mark))
    return found


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text)


def commands(block: Block) -> Iterator[str]:
    """What one would type: in ``console`` blocks the lines after ``$``, else every line."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if line.startswith("$ "):
                yield line[2:]
        elif line.strip() and not line.startswith("#"):
            yield line


def table_after(page: str, mark: str) -> list[list[str]]:
    """The rows (without the titles) of the table that follows ``<!-- mark -->``."""
    text = pages()[page]
    place = text.index(f"<!-- {mark} -->") + len(f"<!-- {mark} -->")
    found = _TABLE.match(text, place)
    assert found, f"{page}: no table follows {mark}"
    return rows(found[1])


def rows(table: str) -> list[list[str]]:
    """The cells of a table's rows, without titles and rule."""
    lines = table.strip().splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def slugs(text: str) -> set[str]:
    """The anchors that headings get."""
    titles = re.findall(r"^#+ +(.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def field_table(model: type[BaseModel], at: str) -> str:
    """A model's fields as a table: name on the wire, what it takes, default, meaning. ``at`` is
    where the model stands in a manifest: what is itself a mapping links to the heading of its
    own place (``spec.delivery.retry``)."""
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    said = {info.alias or name: info.description for name, info in model.model_fields.items()}
    lines = ["| Field | Takes | Default | Meaning |", "|---|---|---|---|"]
    for name, shape in schema["properties"].items():
        default = "required" if name in required else _shown(shape.get("default"))
        takes = _takes(shape, schema.get("$defs", {}), f"{at}.{name}")
        cells = (f"`{name}`", takes, default, (said[name] or "").replace("<", "\\<"))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None or value in ([], (), {}, ""):
        return "none"
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value)
    if isinstance(value, dict):
        return "see there"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _takes(shape: dict[str, Any], defs: dict[str, Any], place: str) -> str:
    if "anyOf" in shape:
        options = (o for o in shape["anyOf"] if o != {"type": "null"})
        return " or ".join(dict.fromkeys(_takes(option, defs, place) for option in options))
    if "$ref" in shape:
        target = defs[shape["$ref"].rpartition("/")[2]]
        if target.get("title") == Reference.__name__:
            return "[reference](concepts.md#secrets-and-configmaps)"
        if target.get("title") == KeyRef.__name__:
            return "[name and key](concepts.md#secrets-and-configmaps)"
        if "properties" in target:
            return f"[mapping](#{place.replace('.', '').lower()})"
        return _takes(target, defs, place)
    if "enum" in shape:
        return ", ".join(f"`{choice}`" for choice in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    kind = shape.get("type", "")
    if kind == "array":
        return f"list of {_takes(shape.get('items', {}), defs, place)}"
    if kind == "object":
        values = shape.get("additionalProperties", {})
        for of_names in shape.get("patternProperties", {}).values():
            values = of_names
        return f"mapping of names to {_takes(values, defs, place)}"
    if kind == "string" and "ns|us" in shape.get("pattern", ""):
        return "duration"
    if kind == "integer" and "minimum" in shape:
        bound = f"to {shape['maximum']}" if "maximum" in shape else "or more"
        return f"{shape['minimum']} {bound}"
    words = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false"}
    return words.get(kind, "any JSON")


def leaves(command: object, path: str = "") -> Iterator[str]:
    """The names of all commands below one: ``bindings``, ``dlq list``."""
    if isinstance(command, TyperGroup):
        for name, found in command.commands.items():
            yield from leaves(found, f"{path} {name}".strip())
    else:
        yield path
