"""The hub's half of each kind's ``spec``, as models: defaults, bounds and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from triggerhub.connector import LetterPlaces, Order
from triggerhub.control.scalars import (
    HTTPURL,
    FilePath,
    Handler,
    LabelKey,
    LabelValue,
    Name,
    PackageRequirement,
    ServicePort,
    URLPath,
    VariableName,
    VariableValue,
)
from triggerhub.delivery.target import Format, OnExhausted
from triggerhub.durations import Duration, go_duration
from triggerhub.fields import Checked, Rule


class Spec(Checked):
    """Base of the hub's own models: frozen, unknown fields refused, camelCase on the wire.

    In Python, fields are given by their own names, and durations may be numbers.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class OnFunctionDelete(StrEnum):
    """What becomes of a trigger whose last function is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


def _initial_over_max(retry: RetryPolicy) -> str:
    if retry.initial <= retry.max:
        return ""
    found = f"initial is {go_duration(retry.initial)} and max {go_duration(retry.max)}"
    return f"{found}: expected initial to be no longer than max"


class RetryPolicy(Spec):
    """When an attempt is followed by another."""

    field_rules = (
        Rule(
            "duration(self.initial) <= duration(self.max)",
            "expected initial to be no longer than max",
            _initial_over_max,
            "'initial is ' + self.initial + ' and max ' + self.max + "
            "': expected initial to be no longer than max'",
        ),
    )

    attempts: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="Attempts that may fail on account of the event.",
    )
    initial: Duration = Field(
        default=0.2,
        json_schema_extra={"default": "200ms"},
        description="Longest wait before the second attempt; it doubles each time.",
    )
    max: Duration = Field(
        default=30.0,
        json_schema_extra={"default": "30s"},
        description="Longest wait between two attempts.",
    )
    max_age: Duration = Field(
        default=86400.0,
        json_schema_extra={"default": "24h"},
        description="After this long since its first attempt an event is given up.",
    )


class DeadLetterSpec(Spec):
    """Where dead letters go: by default, to the hub's own store."""

    places: ClassVar[type[LetterPlaces] | None] = None
    """What its kind has of its own; those fields are among this one's."""

    url: HTTPURL | None = Field(default=None, description="POST dead letters to this URL instead.")

    @property
    def place(self) -> LetterPlaces | None:
        """Where in the system of the source itself; None: not there."""
        if self.places is None:
            return None
        given = {name: getattr(self, name) for name in self.places.model_fields}
        chosen = self.places.model_validate(given, by_name=True)
        return chosen if any(value is not None for value in given.values()) else None


class DeliverySpec(Spec):
    """How events are brought to the function. Every field has a default of its own."""

    order: Annotated[Order, Field(strict=False)] = Field(
        default=Order.KEY, description="What is delivered one after the other, retries included."
    )
    in_flight: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Deliveries under way at once, for each binding in each process.",
    )
    timeout: Duration = Field(
        default=30.0,
        json_schema_extra={"default": "30s"},
        description="How long one attempt may take.",
    )
    format: Annotated[Format, Field(strict=False)] = Field(
        default=Format.BINARY, description="CloudEvents HTTP mode of the request."
    )
    retry: RetryPolicy = Field(
        default=RetryPolicy(), description="When an attempt is followed by another."
    )
    on_exhausted: Annotated[OnExhausted, Field(strict=False)] = Field(
        default=OnExhausted.DEAD_LETTER, description="What becomes of an event not accepted."
    )
    dead_letter: DeadLetterSpec = Field(
        default=DeadLetterSpec(), description="Where dead letters go; the hub's store by default."
    )


def _misfit_values(condition: Requirement) -> str:
    one, operator = condition.operator in ("In", "NotIn"), condition.operator
    if bool(condition.values) == one:
        return ""
    wanted = "at least one value" if one else "no values"
    return f"found {len(condition.values)} values, expected {wanted} for {operator}"


class Requirement(Spec):
    """One condition on a label."""

    field_rules = (
        Rule(
            "(has(self.values) && size(self.values) > 0) == (self.operator in ['In', 'NotIn'])",
            "expected at least one value for In and NotIn, no values for Exists and DoesNotExist",
            _misfit_values,
        ),
    )

    key: LabelKey = Field(description="The label's name.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value is compared with values."
    )
    values: tuple[LabelValue, ...] = Field(
        default=(),
        max_length=100,
        description="At least one for In and NotIn, none for Exists and DoesNotExist.",
    )

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "Exists")


_EMPTY = "found an empty selector, expected matchLabels or matchExpressions"


class LabelSelector(Spec):
    """Which objects are meant, by their labels: all conditions must hold."""

    field_rules = (
        Rule(
            "size(self.matchLabels) > 0 || "
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            _EMPTY,
            lambda selector: "" if selector.match_labels or selector.match_expressions else _EMPTY,
        ),
    )

    match_labels: Mapping[LabelKey, LabelValue] = Field(
        default={}, max_length=50, description="Labels that must have these values."
    )
    match_expressions: tuple[Requirement, ...] = Field(
        default=(), max_length=50, description="Further conditions on labels."
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Kubernetes' rules: an absent label satisfies NotIn and DoesNotExist."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.holds(labels) for requirement in self.match_expressions
        )


class FunctionReference(Spec):
    """Which function is meant: one by its name, or each that a selector matches."""

    exactly_one = ("name", "selector")

    name: Name | None = Field(default=None, description="A Function of the same namespace.")
    selector: LabelSelector | None = Field(
        default=None, description="Each matching Function of the namespace gets each event."
    )


class TriggerSpec(Spec):
    """The hub's half of a trigger's spec; ``source`` is its connector's."""

    function: FunctionReference = Field(description="Which function gets the events.")
    delivery: DeliverySpec = Field(
        default=DeliverySpec(), description="How events are brought to the function."
    )
    paused: bool = Field(
        default=False, description="True: keeps its position and delivers nothing."
    )
    on_function_delete: Annotated[OnFunctionDelete, Field(strict=False)] = Field(
        default=OnFunctionDelete.KEEP,
        description="Delete: in a cluster, the trigger is deleted with its last function.",
    )


def _handler_without_file(code: CodeSpec) -> str:
    module = code.handler.rpartition(".")[0].replace(".", "/")
    names = code.inline or code.files or {}
    if f"{module}.py" in names or f"{module}/__init__.py" in names:
        return ""
    return f"handler {code.handler} needs the file {module}.py: found {', '.join(names)}"


_MODULE = "self.handler.substring(0, self.handler.lastIndexOf('.')).replace('.', '/')"


class CodeSpec(Spec):
    """A function as source code, run by the hub."""

    exactly_one = ("inline", "files")
    field_rules = (
        Rule(
            # What is wrong with the choice itself, the choice says.
            " && ".join(
                f"(!has(self.{field}) || {_MODULE} + '.py' in self.{field} || "
                f"{_MODULE} + '/__init__.py' in self.{field})"
                for field in exactly_one
            ),
            "expected the file of the handler's module, such as main.py for main.handle",
            _handler_without_file,
            f"'handler ' + self.handler + ' needs the file ' + {_MODULE} + '.py'",
        ),
    )

    runtime: Literal["python"] = Field(description="What runs the code.")
    handler: Handler = Field(description="Module and function called with (event, context).")
    inline: Mapping[FilePath, str] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Files of the code by relative path: their text.",
    )
    files: Mapping[FilePath, str] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Files of the code by relative path: a file beside the manifest.",
    )
    requirements: tuple[PackageRequirement, ...] = Field(
        default=(), max_length=200, description="Packages to install for it, as pip names them."
    )
    timeout: Duration = Field(
        default=25.0,
        json_schema_extra={"default": "25s"},
        description="How long one call may take.",
    )
    concurrency: int = Field(default=32, ge=1, le=10_000, description="Calls that may run at once.")
    env: Mapping[VariableName, VariableValue] = Field(
        default={}, max_length=200, description="Environment variables of the function's process."
    )


class ServiceSpec(Spec):
    """A Service of the cluster that answers events."""

    name: Name = Field(description="A Service of the function's namespace.")
    port: ServicePort | None = Field(
        default=None,
        description="Number or name of one of its ports. Default: its only port.",
    )
    path: URLPath = Field(default="/", description="Path that events are POSTed to.")


class FunctionSpec(Spec):
    """What answers the events: a URL, a Service of the cluster, or code that the hub runs."""

    exactly_one = ("url", "service", "code")

    url: HTTPURL | None = Field(default=None, description="Where to POST events.")
    service: ServiceSpec | None = Field(
        default=None, description="A Service of the cluster, in the function's namespace."
    )
    code: CodeSpec | None = Field(default=None, description="Code that the hub runs.")
