"""The seam: all that a connector author implements and is given.

A connector is a kind, a model of its ``spec.source`` and one coroutine. It never sees Kubernetes,
functions, retries or metrics. ``docs/writing-a-connector.md`` walks through one.
"""

from __future__ import annotations

from triggerhub.connector.connector import (
    Cleaner,
    Connector,
    Foreteller,
    Installation,
    Letter,
    LetterBox,
    NotTaken,
    Progress,
    Replayer,
    Replier,
    S,
    Seeker,
    SpecError,
    Unreadable,
    Upcoming,
)
from triggerhub.connector.kept import (
    Fate,
    InboxFull,
    Intake,
    Position,
    PositionConflict,
    Positions,
    Taken,
)
from triggerhub.connector.source import (
    Cleanup,
    KeyRef,
    LetterPlaces,
    Placed,
    Reference,
    SeekOnce,
    SourceModel,
)
from triggerhub.connector.subscription import (
    Emit,
    GivenBack,
    Order,
    Report,
    Sought,
    Subscription,
    alone,
    at_once,
)
from triggerhub.connector.telling import Problem, Telling, now_and_then

__all__ = [
    "Cleaner",
    "Cleanup",
    "Connector",
    "Emit",
    "Fate",
    "Foreteller",
    "GivenBack",
    "InboxFull",
    "Installation",
    "Intake",
    "KeyRef",
    "Letter",
    "LetterBox",
    "LetterPlaces",
    "NotTaken",
    "Order",
    "Placed",
    "Position",
    "PositionConflict",
    "Positions",
    "Problem",
    "Progress",
    "Reference",
    "Replayer",
    "Replier",
    "Report",
    "S",
    "SeekOnce",
    "Seeker",
    "Sought",
    "SourceModel",
    "SpecError",
    "Subscription",
    "Taken",
    "Telling",
    "Unreadable",
    "Upcoming",
    "alone",
    "at_once",
    "now_and_then",
]
