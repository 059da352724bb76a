"""What is written beside committed offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    "text", [None, "", "x", "triggerhub partitions=", "triggerhub partitions=3 "]
)
def test_what_others_wrote_is_no_note(text: str | None) -> None:
    assert read_note(text) is None
