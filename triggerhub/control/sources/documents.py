"""The documents of a YAML or JSON file: JSON types, and the line of everything in them.

Scalars mean what they mean to ``kubectl`` (YAML 1.1 booleans, octal ``010``, no dates, no
sexagesimals), so a manifest means the same in a folder as in a cluster. No error shows a value:
which of them are a Secret's is not known here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.cyaml import CBaseLoader
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from triggerhub.control.places import FieldPath

MAX_DOCUMENT = 1024 * 1024
"""Bytes, after aliases are expanded: about what a Kubernetes API server takes."""
MAX_DEPTH = 64

_PREFIX = "tag:yaml.org,2002:"
_STR, _INT, _FLOAT, _BOOL, _NULL, _MERGE, _MAP, _SEQ = (
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "merge", "map", "seq")
)
_TAGS = frozenset(
    {"binary", "bool", "float", "int", "map", "null", "omap", "pairs", "seq", "set", "timestamp"}
)
_WORDS: dict[str, bool | None] = {
    cased: meaning
    for word, meaning in (
        *((word, True) for word in ("y", "yes", "true", "on")),
        *((word, False) for word in ("n", "no", "false", "off")),
        ("null", None),
    )
    for cased in (word, word.capitalize(), word.upper())
}
_WORDS |= {"": None, "~": None}
_INTEGER = re.compile(r"[-+]?(0[bB][01_]+|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|[1-9][0-9_]*|0)")
_REAL = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_NUMERIC = frozenset("0123456789+-.")
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff"
)
_BOUNDARY = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|$)", re.MULTILINE)
_MEANINGLESS = re.compile(r"(?:[ \t]*(?:#[^\r\n]*)?(?:\r\n?|\n|$)|%[^\r\n]*(?:\r\n?|\n|$))*")
_SURROGATES = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)


class DocumentError(Exception):
    """A text that is no manifest: what is wrong, and on which line (counted from 1)."""

    def __init__(self, message: str, line: int, path: FieldPath = ()) -> None:
        super().__init__(message)
        self.line = line
        self.path = path


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its data, and the nodes that know the lines."""

    data: Any
    root: Node
    first: int
    """Lines of the file before the text that was parsed."""

    def line(self, path: FieldPath = ()) -> int:
        """The line of a field, or of the nearest thing around it."""
        node, line = self.root, self.root.start_mark.line
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return self.first + line + 1


def _child(node: Node, part: str | int) -> tuple[int, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line, item
    return None


def decoded(content: bytes) -> str:
    """The text of a file. Raises DocumentError: not UTF-8, or holds control characters."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DocumentError("found UTF-16, expected UTF-8", 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x}"
        raise DocumentError(f"found {found}, expected UTF-8", line) from None
    bad = _UNPRINTABLE.search(text)
    if bad:
        name = "a NUL character" if bad[0] == "\0" else f"the character U+{ord(bad[0]):04X}"
        line = text.count("\n", 0, bad.start()) + 1
        raise DocumentError(f"found {name}, expected printable text", line)
    return text


def documents(text: str, *, as_json: bool = False) -> Iterator[Document | DocumentError]:
    """Each document that is not empty, or what is wrong with it. An error in one leaves the
    others as they are: a line ``---`` ends a document wherever it stands (YAML 1.2.2, 9.1.1)."""
    if as_json:
        document = _json_document(text)
        if document is not None:
            yield document
        return
    start = 0
    for boundary in [*_BOUNDARY.finditer(text), None]:
        end = boundary.start() if boundary else len(text)
        part = text[start:end]
        body = part.removeprefix("---")
        if body and not _MEANINGLESS.fullmatch(body):
            document = _document(part, text.count("\n", 0, start))
            if document is not None:
                yield document
        # What follows "..." on its line can only be a comment.
        start = end if boundary is None or boundary[0] == "---" else boundary.end()


def _json_document(text: str) -> Document | DocumentError | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return DocumentError(f"not JSON: {error.msg}", error.lineno)
    except RecursionError:
        return DocumentError(f"nested deeper than {MAX_DEPTH}", 1)
    # YAML has JSON's escapes but not its pairs of surrogates.
    return _document(_SURROGATES.sub(_joined, text), 0)


def _joined(pair: re.Match[str]) -> str:
    units = bytes.fromhex(pair[2] + pair[3])
    return pair[1] + units.decode("utf-16-be")


def _document(text: str, first: int) -> Document | DocumentError | None:
    """None where there is nothing but what YAML takes for white space."""
    if len(text) > MAX_DOCUMENT:
        return DocumentError(f"larger than {MAX_DOCUMENT} bytes", first + 1)
    try:
        root = _Loader(text).get_single_node()
        if root is None:
            return None
        return Document(_Builder(first).value(root, 0), root, first)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first + 1 + (mark.line if mark else 0)
        return DocumentError(f"not YAML: {_plain(error, text)}", line)
    except yaml.YAMLError as error:
        return DocumentError(f"not YAML: {error}", first + 1)
    except DocumentError as error:
        return DocumentError(str(error), first + error.line, error.path)


def _plain(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.split("\n")
    if mark and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t"):
        return "found a tab, expected spaces"
    problem = error.problem or "it cannot be read"
    return f"{problem} ({error.context})" if error.context else problem


class _Loader(CBaseLoader):
    """libyaml's nodes, with tags by ``_tag`` and a bound on depth."""

    _depth = 0

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return _tag(value) if implicit[0] else _STR
        return _MAP if kind is MappingNode else _SEQ

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            line = current_node.start_mark.line + 1
            raise DocumentError(f"nested deeper than {MAX_DEPTH}", line)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _tag(value: str) -> str:
    """The tag of a plain scalar."""
    if value in _WORDS:
        return _NULL if _WORDS[value] is None else _BOOL
    if value[0] in _NUMERIC:
        if _INTEGER.fullmatch(value):
            return _INT
        if _REAL.fullmatch(value):
            return _FLOAT
    return _MERGE if value == "<<" else _STR


class _Builder:
    """Data from nodes. What an alias repeats is built once, shared, and counted each time."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._built: dict[int, tuple[Any, int, int]] = {}
        """By node: its data, size (-1 while it is being built) and height."""
        self._size = 0
        self._deepest = 0

    def value(self, node: Node, depth: int) -> Any:
        """Raises DocumentError. ``depth`` counts what aliases stand for as well."""
        if isinstance(node, ScalarNode):
            self._grow(len(node.value), node)
            return _scalar(node)
        known = self._built.get(id(node))
        if known is not None:
            data, size, height = known
            if size < 0:
                raise _wrong(node, "found an alias inside what it stands for")
            self._sink(depth + height, node)
            self._grow(size, node)
            return data
        outer, before = self._deepest, self._size
        self._built[id(node)] = None, -1, 0
        self._deepest = 0
        self._sink(depth, node)
        self._grow(0, node)
        if isinstance(node, MappingNode) and node.tag == _MAP:
            data = self._mapping(node, depth)
        elif isinstance(node, SequenceNode) and node.tag == _SEQ:
            data = [self.value(item, depth + 1) for item in node.value]
        else:
            raise _wrong(node, f"found {_tagged(node.tag)}, expected plain data")
        self._built[id(node)] = data, self._size - before, self._deepest - depth
        self._deepest = max(outer, self._deepest)
        return data

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for source in self._merged(value_node, depth):
                    merged = {**source, **merged}
                continue
            key = _key(key_node)
            self._grow(len(key), key_node)
            if key in data:
                line = self._first + lines[key]
                raise _wrong(key_node, f"found {key} a second time, first on line {line}")
            lines[key] = key_node.start_mark.line + 1
            data[key] = self.value(value_node, depth + 1)
        return {**merged, **data} if merged else data

    def _merged(self, node: Node, depth: int) -> list[dict[str, Any]]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        sources = [self.value(source, depth + 1) for source in nodes]
        if not all(isinstance(source, dict) for source in sources):
            raise _wrong(node, "found << with something else, expected mappings to merge")
        return sources

    def _sink(self, depth: int, node: Node) -> None:
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise _wrong(node, f"nested deeper than {MAX_DEPTH}")

    def _grow(self, size: int, node: Node) -> None:
        self._size += size + 2
        if self._size > MAX_DOCUMENT:
            raise _wrong(node, f"larger than {MAX_DOCUMENT} bytes with its aliases expanded")


def _wrong(node: Node, message: str) -> DocumentError:
    return DocumentError(message, node.start_mark.line + 1)


def _tagged(tag: str) -> str:
    """A tag that somebody meant, or a text that begins like one."""
    name = tag.removeprefix(_PREFIX)
    return f"the tag !!{name}" if name in _TAGS else "a tag (write a text with ! in quotes)"


def _key(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise _wrong(node, "found a list or mapping as a name, expected a text")
    if node.tag in (_BOOL, _NULL):
        # kubectl makes "true" of a plain `on:`; nobody means that.
        meaning = "nothing" if node.tag == _NULL else "a boolean"
        raise _wrong(
            node,
            f"found {node.value or 'nothing'} as a name, which YAML takes for "
            f"{meaning}: write it in quotes",
        )
    return str(node.value)


def _scalar(node: ScalarNode) -> Any:
    tag, text = node.tag, node.value
    if tag in (_STR, _MERGE):
        return text
    if tag in (_BOOL, _NULL) and text in _WORDS and (_WORDS[text] is None) == (tag == _NULL):
        return _WORDS[text]
    if tag == _INT and _INTEGER.fullmatch(text):
        return _integer(node, text.replace("_", ""))
    if tag == _FLOAT and _REAL.fullmatch(text):
        plain = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
        number = float(plain)
        if not math.isfinite(number):
            raise _wrong(node, "found a number that is infinite or none, expected a finite one")
        return number
    raise _wrong(node, f"found {_tagged(tag)}, expected plain data")


def _integer(node: ScalarNode, text: str) -> int:
    digits = text.lstrip("+-").lower()
    base = {"0b": 2, "0x": 16, "0o": 8}.get(digits[:2], 8 if digits[0] == "0" else 10)
    body = digits[2:] if digits[:2] in ("0b", "0x", "0o") else digits
    if not body or len(body) > 400:
        raise _wrong(node, f"found {len(body)} digits, expected a number")
    return int(body, base) * (-1 if text[0] == "-" else 1)
