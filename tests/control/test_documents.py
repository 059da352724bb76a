from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.control.sources.documents import (
    MAX_DOCUMENT,
    Document,
    DocumentError,
    decoded,
    documents,
)


def read(text: str, *, as_json: bool = False) -> list[Any]:
    return [d.data if isinstance(d, Document) else d for d in documents(text, as_json=as_json)]


def one(text: str) -> Document:
    (document,) = documents(text)
    assert isinstance(document, Document), document
    return document


def error(text: str, *, as_json: bool = False) -> str:
    (found,) = (d for d in documents(text, as_json=as_json) if isinstance(d, DocumentError))
    return f"{found.line}: {found}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("off", False), ("Y", True), ("n", False), ("TRUE", True), ("tRUE", "tRUE"),
        ("~", None), ("", None), ("Null", None), ("None", "None"),
        ("0", 0), ("-12", -12), ("+3", 3), ("0x1F", 31), ("0b11", 3), ("010", 8), ("0o10", 8),
        ("1_000", 1000), ("08", 8.0), ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0),
        ("12:30:45", "12:30:45"), ("2026-01-31", "2026-01-31"), ("1.2.3", "1.2.3"),
        ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"), ("30s", "30s"), ("1e", "1e"),
        ("'yes'", "yes"), ('"1"', "1"), ("!!str 12", "12"), ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_mean_to_kubectl(text: str, value: object) -> None:
    got = one(f"a: {text}").data["a"]
    assert (got, type(got)) == (value, type(value))


def test_documents_are_split_and_empty_ones_are_skipped() -> None:
    text = "# only a comment\n---\n---\na: 1\n...\n---\n# again\n\n"
    text += "---\nb: |\n  x\n  ---\n  y\n--- {c: 3}\n"
    assert read(text) == [{"a": 1}, {"b": "x\n---\ny\n"}, {"c": 3}]


def test_a_directive_is_no_document() -> None:
    assert read("%YAML 1.2\n---\na: 1\n") == [{"a": 1}]


def test_a_text_of_comments_holds_nothing() -> None:
    assert read("# a\n  # b\n\n---\n# c") == []


def test_an_error_in_one_document_leaves_the_others() -> None:
    found = read("a: 1\n---\nb: [\n---\nc: 3\n")
    assert found[0] == {"a": 1}
    assert isinstance(found[1], DocumentError)
    assert found[2] == {"c": 3}


def test_lines_are_known_for_every_path() -> None:
    document = one("# x\na:\n  b:\n    - c: 1\n    - d: 2\n\n      e: 3\n")
    assert document.line(()) == 2
    assert document.line(("a", "b")) == 3
    assert document.line(("a", "b", 1, "e")) == 7
    assert document.line(("a", "b", 1, "missing", "more")) == 5
    second = list(documents("a: 1\n---\n# x\nb: 2\n"))[1]
    assert isinstance(second, Document)
    assert second.line(("b",)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "3: found a a second time, first on line 1"),
        ("x: 1\n---\na: 1\na: 3\n", "4: found a a second time, first on line 3"),
        ("a:\n\t- b\n", "2: not YAML: found a tab, expected spaces"),
        ("a: {b: 1\n", "2: not YAML:"),
        ("a: *x\n", "1: not YAML: found undefined alias"),
        ("a: !!binary aGk=\n", "1: found the tag !!binary, expected plain data"),
        ("a: !mine {b: 1}\n", "1: found a tag (write a text with ! in quotes), expected plain"),
        ("a: !!python/object:os.system x\n", "1: found a tag (write"),
        ("on: 1\n", "1: found on as a name, which YAML takes for a boolean: write it in quotes"),
        ("? [a]\n: 1\n", "1: found a list or mapping as a name"),
        ("a: .nan\n", "1: found a number that is infinite or none, expected a finite one"),
        ("a: 1e999\n", "1: found a number that is infinite or none"),
        ("a: &x [*x]\n", "1: found an alias inside what it stands for"),
        ("a: " + "[" * 100, "1: nested deeper than 64"),
        ("a: " + "[" * 100_000, "1: nested deeper than 64"),
        ("a: " + "1" * 5000, "1: found 5000 digits, expected a number"),
        ("<<: 1\n", "1: found << with something else, expected mappings to merge"),
        ("a: " + "x" * MAX_DOCUMENT, "1: larger than 1048576 bytes"),
    ],
)
def test_what_is_no_manifest_is_told_with_its_line(text: str, said: str) -> None:
    assert error(text).startswith(said)


def test_aliases_and_merges_are_expanded() -> None:
    text = "a: &a {x: 1, z: 2}\nb: *a\nc: {<<: *a, z: 3}\nd:\n  <<: [{x: 5}, *a]\n"
    assert one(text).data == {
        "a": {"x": 1, "z": 2},
        "b": {"x": 1, "z": 2},
        "c": {"x": 1, "z": 3},
        "d": {"x": 5, "z": 2},
    }


def test_a_billion_laughs_are_not_laughed() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "with its aliases expanded" in error("\n".join(lines))


def test_depth_counts_through_aliases() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 5000))]
    assert "nested deeper than 64" in error("\n".join(lines))


def test_json_is_read_as_json_with_lines() -> None:
    text = '{\n\t"a": "\\ud83d\\ude00\\/",\n\t"b": [1, 2.5, true, null, "yes"]}'
    (document,) = documents(text, as_json=True)
    assert isinstance(document, Document)
    assert document.data == json.loads(text)
    assert document.line(("b",)) == 3
    assert error('{"a": 1,\n}', as_json=True).startswith("2: not JSON: ")
    assert error('{"a": 1, "a": 2}', as_json=True).startswith("1: found a a second time")
    assert error("[" * 100_000, as_json=True).startswith("1: nested deeper")
    assert error("a: 1", as_json=True).startswith("1: not JSON")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=9), children, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_comes_out_as_it_went_in(value: object) -> None:
    text = json.dumps({"v": value})
    assert read(text, as_json=True) == [{"v": value}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: \xff\n", "2: found byte 0xff, expected UTF-8"),
        (b"a: 1\nb: \0\n", "2: found a NUL character, expected printable text"),
        (b"a: 1\n\nb: \x07\n", "3: found the character U+0007, expected printable text"),
        ("a: 1".encode("utf-16"), "1: found UTF-16, expected UTF-8"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(content: bytes, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decoded(content)
    assert f"{caught.value.line}: {caught.value}" == said


def test_a_byte_order_mark_is_ignored() -> None:
    assert read(decoded(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")) == [{"a": 1, "b": 2}]
