"""Does a connector keep the contract of a source: ``check_connector``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from triggerhub.testing.harness import Feature, Harness, Sample
from triggerhub.testing.promises import PROMISES
from triggerhub.testing.stage import Stage

__all__ = ["Conformance", "Feature", "Harness", "Result", "Sample", "check_connector"]

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Result:
    """How one promise stands."""

    promise: str
    held: bool
    reason: str = ""
    """Why it does not apply, where it was not tried."""


@dataclass(frozen=True, slots=True)
class Conformance:
    """What a connector promises, and what does not apply to its source. As text, a report."""

    kind: str
    features: frozenset[Feature]
    results: tuple[Result, ...]

    def __str__(self) -> str:
        features = ", ".join(f.name for f in Feature if f in self.features) or "no features"
        lines = [f"Conformance of {self.kind} ({features})"]
        lines += (
            f"  held            {result.promise}"
            if result.held
            else f"  not applicable  {result.promise}: {result.reason}"
            for result in self.results
        )
        return "\n".join(lines)


async def check_connector(harness: Harness[S]) -> Conformance:
    """Try every promise that a source of these features makes, each at a place of its own.

    Works in any event loop, without a test framework, under virtual time as well. Raises
    AssertionError with a sentence that says what was broken, and how; ValueError when the harness
    contradicts itself.
    """
    kind = harness.connector().kind
    if Feature.KEYED in harness.features and Feature.CARRIES_DATA not in harness.features:
        raise ValueError(f"harness of {kind}: KEYED needs CARRIES_DATA")
    results: list[Result] = []
    for number, promise in enumerate(PROMISES):
        reason = promise.unless(harness)
        if not reason:
            stage = Stage(harness, f"promise-{number}", await harness.place())
            try:
                await promise.check(stage)
            except AssertionError as error:
                # What is seen of every listener may break another promise than the one on trial.
                raise AssertionError(
                    f"{kind} breaks its contract: {error} (on trial: {promise.says})"
                ) from error
        results.append(Result(promise.says, not reason, reason))
    return Conformance(kind, harness.features, tuple(results))
