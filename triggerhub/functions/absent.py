"""Where code functions do not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.metrics_core import Metric

from triggerhub.functions.code import Code
from triggerhub.functions.version import FunctionState

_NOT_HERE = FunctionState(
    None,
    "NotInCluster",
    "code functions do not run in a cluster yet; give spec.service or spec.url",
)


class NoCode:
    """In the place of ``Processes``: says of every code function that it cannot run."""

    def converge(self, functions: Mapping[tuple[str, str], Code]) -> None:
        """Runs none of them."""

    def state(self, namespace: str, name: str) -> FunctionState:
        """The same for each."""
        return _NOT_HERE

    async def metrics(self) -> Sequence[Metric]:
        """None."""
        return ()
