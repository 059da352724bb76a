"""``spec.source``: what every model of it has, and what fields of it may be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field, model_validator

from triggerhub.fields import Checked, Rule, Text

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


class SourceModel(Checked):
    """Base of every ``spec.source`` model: frozen, unknown fields refused, camelCase on the wire
    (declare ``alias="…"`` where a Python name differs)."""

    short_names: ClassVar[tuple[str, ...]] = ()
    """Of the kind, for ``kubectl get``: not those of another kind."""
    source_column: ClassVar[tuple[str, ...]] = ()
    """Names on the wire of fields: ``kubectl get`` shows the first that is given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=False, strict=True, validate_default=True
    )

    @property
    def inboxed(self) -> bool:
        """Whether all its events go into the inbox. Then it is listened to while its trigger is
        paused, too."""
        return False


class KeyRef(SourceModel):
    """One entry of a Secret or ConfigMap in the trigger's namespace."""

    name: str = Field(
        max_length=253,
        pattern=rf"^{_LABEL}(\.{_LABEL})*$",
        description="The object's name.",
    )
    key: str = Field(
        max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The entry's key in its data."
    )


class Reference(SourceModel):
    """A value that is kept elsewhere: fields of a source model that hold secrets have this type.
    ``Subscription.value`` gives what it stands for; when that changes, the listener is started
    anew."""

    model_config = ConfigDict(
        json_schema_extra={
            "description": "A value that is kept elsewhere: exactly one of its fields.",
            # A rule in CEL would be too dear for an API server where there may be many.
            "minProperties": 1,
            "maxProperties": 1,
        }
    )

    secret_ref: KeyRef | None = Field(
        default=None, alias="secretRef", description="An entry of a Secret."
    )
    config_map_ref: KeyRef | None = Field(
        default=None, alias="configMapRef", description="An entry of a ConfigMap."
    )
    env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="An environment variable of the hub; only for manifests in a folder.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Reference:
        names = {"secretRef": self.secret_ref, "configMapRef": self.config_map_ref, "env": self.env}
        found = [name for name, value in names.items() if value is not None]
        if len(found) != 1:
            raise ValueError(
                f"found {' and '.join(found) or 'none'}, expected exactly one of {', '.join(names)}"
            )
        return self

    def __str__(self) -> str:
        if self.env is not None:
            return f"environment variable {self.env}"
        reference = self.secret_ref or self.config_map_ref
        assert reference is not None
        kind = "Secret" if self.secret_ref else "ConfigMap"
        return f"key {reference.key} of {kind} {reference.name}"


class SeekOnce(SourceModel):
    """Base of the field ``seek`` of a ``Seeker``'s model; ``to``, where to, is the kind's own."""

    id: Annotated[
        str,
        Text(
            "[A-Za-z0-9._:+-]{1,63}",
            "1 to 63 of a-z, A-Z, 0-9, '.', '_', ':', '+', '-', such as 2026-11-23-a",
            63,
        ),
    ] = Field(
        description="Of your choice, such as 2026-11-23-a. Each is done once; to seek again, "
        "choose another."
    )


class Cleanup(StrEnum):
    """For a field ``cleanup`` of a source model whose connector is a ``Cleaner``: what becomes of
    what the source keeps for a binding when its trigger is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


class LetterPlaces(SourceModel):
    """Base of the places where the system of a ``LetterBox`` takes dead letters. Each field is
    one, optional, and default None: the user gives one of them, or a URL, or nothing."""

    spec_rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold of the place and the source together. In CEL ``self`` is the trigger's spec;
    ``wrong`` is given both, as ``Placed``."""


class Placed(NamedTuple):
    """Both halves of what a rule in ``spec_rules`` judges."""

    source: Any
    place: Any
