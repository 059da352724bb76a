"""What is written beside committed offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub_kafka.losses import Lost
from triggerhub_kafka.notes import Note, Seek, read_note

ids = st.from_regex(r"[A-Za-z0-9._:+-]{1,63}", fullmatch=True)
numbers = st.integers(0, 2**63 - 1)
seeks = st.builds(Seek, ids, numbers, numbers)


@given(numbers, st.lists(seeks, max_size=20))
def test_a_note_is_read_as_it_was_written_and_fits_beside_an_offset(
    width: int, done: list[Seek]
) -> None:
    note = Note(width)
    for seek in done:
        note = note.sought(seek)
    assert read_note(str(note)) == note
    assert len(str(note)) < 1024  # of 4096 that a broker takes
    assert note.seek == (done[-1] if done else None)
    assert all(note.done(seek.id) for seek in done[-8:])


def test_only_the_last_few_seeks_are_remembered() -> None:
    note = Note(3)
    for n in range(10):
        note = note.sought(Seek(f"id-{n}", 1_700_000_000, n))
    assert [n for n in range(10) if note.done(f"id-{n}")] == [*range(2, 10)]
    assert not note.done("id")


def test_a_note_of_an_earlier_version_is_read() -> None:
    assert read_note("triggerhub partitions=3") == Note(3)


@pytest.mark.parametrize(
    "text", [None, "", "x", "triggerhub partitions=", "triggerhub partitions=3 seek=a"]
)
def test_what_others_wrote_is_no_note(text: str | None) -> None:
    assert read_note(text) is None


@pytest.mark.parametrize(
    "note",
    [
        Note(width=1),
        Note(3, Seek("a", 1, 2), ("b", "c"), "1a2b3c4d", Lost(100, 250, 140, 1_764_124_332)),
        Note(width=12, choice="1a2b3c4d"),
        Note(width=3, choice="1a2b3c4d", lost=Lost(100, 250, 140, 1_764_124_332)),
        Note(width=3, lost=Lost(100, 0, 0, 1_764_124_332)),
    ],
)
def test_what_else_a_note_says_is_read_as_it_was_written(note: Note) -> None:
    assert read_note(str(note)) == note


def test_what_another_release_adds_is_passed_over() -> None:
    assert read_note("triggerhub partitions=3 newer=a=b new words=") == Note(width=3)


@pytest.mark.parametrize(
    "metadata",
    [
        None, "", "x", "partitions=3", "other partitions=3", "triggerhub", "triggerhub partitions=",
        "triggerhub partitions=three", "triggerhub partitions=3 lost=1:2",
        "triggerhub partitions=3 lost=1:2:3:4:5", "triggerhub partitions=3 lost=a:b:c:d",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_note(metadata: str | None) -> None:
    assert read_note(metadata) is None
