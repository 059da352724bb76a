"""A Dockerfile, as the steps that it tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_PAIR = re.compile(r'(\S+?)=("[^"]*"|\S*)')


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a stage: ``RUN``, ``COPY``, ``ENV``, …, and its words."""

    name: str
    text: str


@dataclass(slots=True)
class Stage:
    """What follows one ``FROM``."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)


def stages(path: Path, arguments: Mapping[str, str]) -> list[Stage]:
    """The stages of a Dockerfile in their order. ``arguments`` are build arguments, in place of
    the defaults of ``ARG``. Raises ValueError for an instruction that is not understood here."""
    found: list[Stage] = []
    outside: dict[str, str] = {}
    known = outside
    for name, text in _instructions(path.read_text()):
        if name == "ARG":
            key, _, default = text.partition("=")
            known[key] = arguments.get(key, default)
        elif name == "FROM":
            base, _, alias = substituted(text, outside).partition(" AS ")
            found.append(Stage(base.strip(), alias.strip() or str(len(found))))
            known = {}
        elif name == "RUN":
            # The shell fills variables in, and of arguments it gets them as its environment.
            found[-1].steps += [Step("ENV", f'{k}="{v}"') for k, v in known.items()]
            found[-1].steps.append(Step(name, text))
            known = {}
        elif name in ("COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "LABEL", "EXPOSE"):
            found[-1].steps.append(Step(name, substituted(text, known)))
        else:
            raise ValueError(f"{path}: {name} is not understood here")
    return found


def substituted(text: str, values: Mapping[str, str]) -> str:
    """With ``$NAME`` and ``${NAME}`` filled in where they are known."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], match[0]), text)


def pairs(text: str) -> dict[str, str]:
    """``A=1 B="two words"`` as a mapping."""
    return {match[1]: match[2].strip('"') for match in _PAIR.finditer(text)}


def words(text: str) -> list[str]:
    """The JSON form of ``ENTRYPOINT`` and ``CMD``."""
    found = json.loads(text)
    assert isinstance(found, list)
    return [str(word) for word in found]


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    whole = ""
    for line in lines:
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        whole = (whole + line).strip()
        if whole:
            name, _, rest = whole.partition(" ")
            yield name.upper(), " ".join(rest.split()) if name.upper() != "RUN" else rest.strip()
        whole = ""
