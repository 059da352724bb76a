"""Lines out of whatever bytes a child writes."""

from __future__ import annotations

import pytest

from triggerhub.functions.output import LINE, Output


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.dropped: list[int] = []
        self.output = Output(self.lines.append, self.dropped.append)

    def end(self) -> Heard:
        self.output.connection_lost(None)
        return self


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\nb\r\n"], ["a", "b"]),
        ([b"a", b"b\n", b"c"], ["ab", "c"]),
        ([b"\n\n"], ["", ""]),
        ([b"caf\xc3", b"\xa9\n"], ["café"]),
        ([b"\xff\n"], ["\N{REPLACEMENT CHARACTER}"]),
        ([b"x" * (LINE + 5) + b"\ny\n"], ["x" * LINE + "…", "y"]),
        ([b"x" * LINE, b"x" * LINE, b"\ny"], ["x" * LINE + "…", "y"]),
        ([b"x" * LINE + b"\n"], ["x" * LINE]),
        ([], []),
    ],
)
async def test_chunks_become_lines(chunks: list[bytes], lines: list[str]) -> None:
    heard = Heard()
    for chunk in chunks:
        heard.output.data_received(chunk)
    assert heard.end().lines == lines
    assert heard.output.ended.done()


async def test_a_flood_is_counted_and_its_last_line_known() -> None:
    heard = Heard()
    for n in range(100):
        heard.output.data_received(b"line\n" * 1000 + b"last %d\n" % n)
    assert heard.output.last == "last 99"
    heard.end()
    assert 1000 <= len(heard.lines) < 2000
    assert len(heard.lines) + sum(heard.dropped) == 100 * 1001


async def test_an_endless_line_takes_no_memory() -> None:
    heard = Heard()
    for _ in range(100):
        heard.output.data_received(b"x" * 65536)
        assert len(heard.output._begun) <= LINE + 1
    heard.end()
    assert heard.lines == ["x" * LINE + "…"]


async def test_the_last_line_is_the_reason_where_python_names_one() -> None:
    heard = Heard()
    heard.output.data_received(
        b"warning\nFatal Python error: Segmentation fault\n\n  File main.py\n"
    )
    assert heard.output.last == "Fatal Python error: Segmentation fault"
