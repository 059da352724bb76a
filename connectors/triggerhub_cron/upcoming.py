"""What a trigger will send, and why then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from triggerhub.connector import Upcoming
from triggerhub.durations import go_duration
from triggerhub_cron.expression import Expression
from triggerhub_cron.plan import Plan
from triggerhub_cron.record import tick_id
from triggerhub_cron.schedule import wall_of

_COUNTED = 1000
_SECOND = timedelta(seconds=1)


def foretell(plan: Plan, after: datetime) -> Iterator[Upcoming]:
    """Slot by slot, until nothing is due any more."""
    moment = after.timestamp()
    while (slot := plan.after(moment)) is not None:
        notes = [*_excluded(plan, moment, slot.due), *_clock(plan, slot.due)]
        if slot.at != slot.due:
            spread = slot.at - slot.due
            notes.append(f"{go_duration(round(spread, 1 if spread < 10 else None))} of jitter")
        yield Upcoming(
            id=tick_id(slot.due),
            due=plan.local(slot.due),
            at=datetime.fromtimestamp(slot.at, UTC),
            why=tuple(plan.why(slot.due)),
            notes=tuple(notes),
        )
        moment = slot.due


def _excluded(plan: Plan, after: float, until: int) -> Iterator[str]:
    """What would have been due between, but for the days that are left out."""
    if not plan.excluded:
        return
    whole = replace(plan, excluded=())
    counts: dict[str, int] = {}
    for _ in range(_COUNTED):
        due = whole.due(after)
        if due is None or due >= until:
            break
        after = due
        text = plan.excluding(due)
        counts[text] = counts.get(text, 0) + 1
    for text, count in counts.items():
        yield f"{count} before it left out by excluding {text}"


def _clock(plan: Plan, due: int) -> Iterator[str]:
    """What a change of the clocks has to do with it."""
    moment = datetime.fromtimestamp(due, UTC)
    here = plan.local(due)
    wall = here.replace(tzinfo=None, fold=0)
    for text in plan.why(due):
        schedule = dict(plan.schedules)[text]
        if not isinstance(schedule, Expression):
            continue
        if schedule.after(wall - _SECOND) != wall:
            skipped = schedule.after(wall_of(plan.zone, moment - _SECOND).replace(fold=0))
            if skipped is not None:
                yield f"{skipped:%H:%M} does not exist that day: sent when the gap ends"
        elif here.replace(fold=0).utcoffset() != here.replace(fold=1).utcoffset():
            which = "the second time" if here.fold else "the first time"
            sent = "sent each time" if schedule.every_hour else "sent once"
            yield f"{wall:%H:%M} comes twice, {sent}: this is {which}"
