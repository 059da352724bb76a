"""Which triggers ask to be reached from outside of a cluster, and who knows how that stands."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from triggerhub.control.kinds import offered
from triggerhub.control.resources import Trigger
from triggerhub.control.status import Condition, Exposure, State
from triggerhub.exposure import Exposed


class Edge(Protocol):
    """What knows the edge of the cluster."""

    def exposure(self, trigger: Trigger) -> Exposure | None:
        """None: nothing is to be said."""


class NoEdge:
    """That of a hub without a cluster."""

    def exposure(self, trigger: Trigger) -> Exposure | None:
        if exposed_of(trigger.source) is None:
            return None
        message = "expose has no effect without a cluster: requests come to the --listen address"
        return Exposure(Condition("Exposed", State.FALSE, "NoCluster", message))


def exposed_of(source: BaseModel | None) -> Exposed | None:
    """What a source asks to be reached from outside; None: nothing."""
    exposed = offered(source, "exposed")
    return exposed if isinstance(exposed, Exposed) else None
