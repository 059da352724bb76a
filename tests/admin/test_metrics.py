from __future__ import annotations

import asyncio
from collections import defaultdict

from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.smallhub import SmallHub, until
from triggerhub.event import Event

Sample = tuple[str, frozenset[tuple[str, str]]]


async def scraped(hub: SmallHub) -> dict[Sample, float]:
    answer = await hub.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def of(samples: dict[Sample, float], name: str, **labels: str) -> float:
    wanted = {"namespace": "shop", "trigger": "orders", "function": "handle"} | labels
    return samples[name, frozenset(wanted.items())]


async def test_every_metric_of_the_contract_is_there(hub: SmallHub) -> None:
    name = hub.bind()
    hub.sources.states[name].lag(41, {"orders/0": 40, 'or"d/1': 1})
    hub.sources.states[name].errors = 3
    for reason in ("NoCredentials", "BadSignature", "NoCredentials"):
        hub.sources.states[name].turned_away(reason)
    hub.function.status["BAD"] = 422
    await hub.dispatcher.dispatch(name, Event(id="1", source="/s", type="t"))
    await hub.dispatcher.dispatch(name, Event(id="BAD", source="/s", type="t"))
    put = await hub.store.inbox(name).put(Event(id="2", source="/s", type="t", data=b"x" * 1000))
    assert put.fresh
    hub.view.recount()
    await until(lambda: bool(hub.view.waiting))

    samples = await scraped(hub)

    assert of(samples, "triggerhub_events_received_total") == 2
    assert of(samples, "triggerhub_events_settled_total", outcome="accepted") == 1
    assert of(samples, "triggerhub_events_settled_total", outcome="dead") == 1
    assert of(samples, "triggerhub_attempts_total", status_class="2xx") == 1
    assert of(samples, "triggerhub_attempts_total", status_class="4xx") == 1
    assert of(samples, "triggerhub_delivery_seconds_count") == 2
    assert of(samples, "triggerhub_delivery_seconds_bucket", le="+Inf") == 2
    assert of(samples, "triggerhub_delivery_seconds_sum") > 0
    assert of(samples, "triggerhub_in_flight") == 0
    assert of(samples, "triggerhub_source_lag") == 41
    assert of(samples, "triggerhub_source_partition_lag", partition="orders/0") == 40
    assert of(samples, "triggerhub_source_partition_lag", partition='or"d/1') == 1
    assert of(samples, "triggerhub_source_errors_total") == 3
    assert of(samples, "triggerhub_requests_refused_total", reason="NoCredentials") == 2
    assert of(samples, "triggerhub_requests_refused_total", reason="BadSignature") == 1
    assert of(samples, "triggerhub_dead_letters") == 1
    assert of(samples, "triggerhub_inbox_events") == 1
    assert 1000 < of(samples, "triggerhub_inbox_bytes") < 2000
    assert samples["triggerhub_bindings", frozenset({("state", "Ready")})] == 1
    assert samples["triggerhub_store_available", frozenset()] == 1
    assert any(
        name == "triggerhub_build_info" and value == 1 for (name, _), value in samples.items()
    )
    assert samples["process_cpu_seconds_total", frozenset()] > 0


async def test_the_functions_own_families_are_shown(hub: SmallHub) -> None:
    family = CounterMetricFamily("function_calls", "Calls.", labels=["function"])
    family.add_metric(["handle"], 5)
    hub.code.families = [family]
    samples = await scraped(hub)
    assert samples["function_calls_total", frozenset({("function", "handle")})] == 5


async def test_received_is_the_sum_of_all_ends_in_every_scrape(hub: SmallHub) -> None:
    name = hub.bind()
    stop = asyncio.Event()

    async def traffic(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            event = Event(id=f"{worker}-{number}", source="/s", type="t")
            if number % 7 == 0:
                hub.function.status[event.id] = 422
            if number % 5 == 0:
                try:
                    async with asyncio.timeout(0.0002):
                        await hub.dispatcher.dispatch(name, event)
                except TimeoutError:
                    continue
            else:
                await hub.dispatcher.dispatch(name, event)

    async with asyncio.TaskGroup() as tasks:
        for worker in range(8):
            tasks.create_task(traffic(worker))
        seen = set()
        for _ in range(10):
            samples = await scraped(hub)
            sums: dict[str, float] = defaultdict(float)
            for (metric, _), value in samples.items():
                sums[metric] += value
            received = sums["triggerhub_events_received_total"]
            ends = sums["triggerhub_events_settled_total"] + sums["triggerhub_in_flight"]
            assert received == ends
            seen.add(received)
        stop.set()
    assert len(seen) > 1
