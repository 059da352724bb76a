"""Scraping and merging, against sockets that misbehave."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from triggerhub.functions.metrics import merge, scrape
from triggerhub.functions.runtime import Metrics


def families(name: str) -> str:
    metrics = Metrics("shop", name)
    metrics.count("POST", 0.02, failed=False)
    metrics.count("BREW", 99.0, failed=True)
    return metrics.render()


def test_families_of_several_functions_become_one_each() -> None:
    merged = merge(text_string_to_metric_families(families(name)) for name in ("a", "b"))
    calls = next(family for family in merged if family.name == "function_calls")
    assert {(s.labels["function"], s.labels["method"]): s.value for s in calls.samples} == {
        ("a", "POST"): 1,
        ("a", "other"): 1,
        ("b", "POST"): 1,
        ("b", "other"): 1,
    }
    assert len(merged) == 3


def test_the_histogram_counts_upwards_to_all() -> None:
    (histogram,) = (
        family
        for family in text_string_to_metric_families(families("a"))
        if family.name == "function_duration_seconds"
    )
    buckets = {
        (s.labels["method"], s.labels["le"]): s.value
        for s in histogram.samples
        if s.name.endswith("_bucket")
    }
    assert buckets["POST", "0.01"] == 0
    assert buckets["POST", "0.025"] == 1
    assert buckets["other", "60.0"] == 0
    assert buckets["other", "+Inf"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff{",
        b"HTTP/1.1 200 OK\r\n\r\nnot a metric at all {",
        b"x" * 100_000,
        None,
    ],
)
async def test_a_child_that_answers_nonsense_is_left_out(answer: bytes | None) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()  # silent until the caller gives up
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await scrape(f"http://127.0.0.1:{port}/shop/a") == []
    assert await scrape(f"http://127.0.0.1:{port}/shop/a") == [], "nobody listens"
