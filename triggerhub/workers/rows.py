"""What the workers' admin APIs list, as the lists of one hub: where they differ, the worst."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Told = Sequence[tuple[int, Sequence[Row]]]
"""Numbers of workers, and what each of them lists."""

_WORST_FIRST = ("NotReady", "Unbound", "Connecting", "Stopping", "Paused", "Ready")
_SUMMED = ("received", "accepted", "filtered", "dead", "dropped", "givenBack", "inFlight", "rate")


def merged_bindings(told: Told) -> list[Row]:
    """One row for each binding. What a worker counts or waits for is added up; dead letters are
    in one store. A trigger that is bound in one worker only is as bad as in the other."""
    bound = _trigger_names(row for _, rows in told for row in rows if row["name"])
    unbound: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    groups: dict[tuple[str, str, str], list[tuple[int, Row]]] = {}
    for number, rows in told:
        for row in rows:
            trigger = (row["namespace"], row["trigger"])
            if not row["name"] and trigger in bound:
                unbound.setdefault(trigger, []).append((number, row))
            else:
                groups.setdefault((*trigger, row["function"]), []).append((number, row))
    return [
        _binding(rows, unbound.get((namespace, trigger), []))
        for (namespace, trigger, _), rows in groups.items()
    ]


def merged_triggers(told: Told) -> list[Row]:
    """One entry for each trigger, each of its conditions the worst."""
    return [_trigger(rows) for rows in _grouped(told, "kind", "namespace", "name")]


def merged_functions(told: Told) -> list[Row]:
    """One entry for each function. A code function runs in each worker, at its own URL."""
    return [
        _worst(rows, lambda row: int(row["reason"] == "Ready"), "reason")
        for rows in _grouped(told, "namespace", "name")
    ]


def merged_faults(told: Told) -> list[Row]:
    """Each fault once: all workers read the same manifests."""
    return list({json.dumps(row, sort_keys=True): row for _, rows in told for row in rows}.values())


def merged_deliveries(told: Told) -> list[Row]:
    """Each delivery once, newest first. The store tells all workers the same; one that is under
    way, or that went well at once, only its own worker knows."""
    found: dict[tuple[str, ...], Row] = {}
    for _, rows in told:
        for row in rows:
            key = (row["binding"], row["source"], row["id"], row["received"])
            if key not in found or found[key]["ended"] is None:
                found[key] = row
    return sorted(found.values(), key=lambda row: str(row["received"]), reverse=True)


def _binding(rows: Sequence[tuple[int, Row]], unbound: Sequence[tuple[int, Row]]) -> Row:
    merged = dict(rows[0][1])
    for _, row in rows:
        # What one cannot tell yet, another may.
        merged |= {name: value for name, value in row.items() if merged[name] is None}
    standing = _worst([*rows, *unbound], lambda row: _WORST_FIRST.index(row["state"]), "state")
    for name in ("state", "reason", "message"):
        merged[name] = standing[name]
    for name in _SUMMED:
        merged[name] = sum(row[name] for _, row in rows)
    merged["rate"] = round(merged["rate"], 1)
    lags = [row["lag"] for _, row in rows if row["lag"] is not None]
    merged["lag"] = sum(lags) if lags else None
    parts: Counter[str] = Counter()
    for _, row in rows:
        parts.update(row["lagByPartition"])
    merged["lagByPartition"] = dict(parts)
    for name in ("deadLetters", "inbox"):
        merged[name] = max(row[name] for _, row in rows)
    failed = [row for _, row in rows if row["lastError"]]
    if failed:
        latest = min(failed, key=_age)
        merged["lastError"], merged["lastErrorAge"] = latest["lastError"], latest["lastErrorAge"]
    return merged


def _age(row: Row) -> float:
    """Just now, where it was not measured yet."""
    return row["lastErrorAge"] or 0.0


def _trigger(rows: Sequence[tuple[int, Row]]) -> Row:
    merged = dict(rows[0][1])
    merged["observedGeneration"] = min(row["observedGeneration"] for _, row in rows)
    merged["bindings"] = list(dict.fromkeys(name for _, row in rows for name in row["bindings"]))
    of_type: dict[str, list[tuple[int, Row]]] = {}
    for number, row in rows:
        for condition in row["conditions"]:
            of_type.setdefault(condition["type"], []).append((number, condition))
    merged["conditions"] = [
        _worst(same, lambda one: ("False", "Unknown", "True").index(one["status"]), "reason")
        for same in of_type.values()
    ]
    return merged


def _worst(rows: Sequence[tuple[int, Row]], rank: Callable[[Row], int], what: str) -> Row:
    """The row of the least rank, one with a message first; that names the worker where they do
    not agree on ``what`` and why."""
    number, worst = min(rows, key=lambda pair: (rank(pair[1]), not pair[1]["message"]))
    merged = dict(worst)
    if any((row[what], row["message"]) != (worst[what], worst["message"]) for _, row in rows):
        merged["message"] = f"worker {number}: {worst['message'] or worst['reason']}"
    return merged


def _grouped(told: Told, *names: str) -> Iterable[list[tuple[int, Row]]]:
    groups: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    for number, rows in told:
        for row in rows:
            groups.setdefault(tuple(row[name] for name in names), []).append((number, row))
    return groups.values()


def _trigger_names(rows: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(row["namespace"], row["trigger"]) for row in rows}
