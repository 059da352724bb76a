"""Records in a schema registry's wire format: a zero byte, the schema's id in four, the data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from triggerhub.connector import Problem, Subscription
from triggerhub.credentials import Contexts
from triggerhub.event import Event
from triggerhub_kafka.decode import Record, is_structured, origin, undecodable
from triggerhub_kafka.problems import ExtraMissingError
from triggerhub_kafka.registry import (
    EXTRA,
    WHERE,
    NoSchema,
    Registry,
    RegistryFault,
    Unfit,
    open_registry,
)
from triggerhub_kafka.source import KafkaSource

if TYPE_CHECKING:
    from triggerhub_kafka.readers import Read

_MOST = 1000
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 5.0
_HEAD = 5


@dataclass(frozen=True, slots=True)
class Schema:
    """One that can be read with."""

    attributes: Mapping[str, str]
    """Of an event in its form."""
    read: Read


Known = Mapping[int, Schema | str]
"""By id; a text: why there is none."""


Tell = Callable[[Problem | None], None]
"""Is told the reason why the registry gives no schema, and a sentence; None: it does."""


class Schemas:
    """Those of one registry, as one login may see them: of an id they never change, so the latest
    thousand are kept. Listeners that share it learn each once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[int, Schema] = {}
        self._turn = asyncio.Lock()
        self._fault: RegistryFault | None = None
        self._asked = 0.0

    async def of(self, records: Iterable[Record]) -> Known:
        """The schemas of these records. Raises RegistryFault; then some may be known already."""
        values = (record.value for record in records)
        numbers = {_number(value) for value in values if value is not None and _has_head(value)}
        found: dict[int, Schema | str] = {}
        for number in numbers & self._known.keys():
            found[number] = self._known[number] = self._known.pop(number)
        if missing := numbers - found.keys():
            began = asyncio.get_running_loop().time()
            async with self._turn:
                if self._fault is not None and self._asked >= began:
                    # Of the one before, while this waited.
                    raise RegistryFault(self._fault.reason, str(self._fault))
                for number in missing:
                    found[number] = await self._learn(number)
        return found

    async def _learn(self, number: int) -> Schema | str:
        if number in self._known:
            return self._known[number]
        from triggerhub_kafka.readers import reader

        self._fault, self._asked = None, asyncio.get_running_loop().time()
        try:
            name, read = reader(await self._registry.schema(number))
        except NoSchema as error:
            # Asked for again with the next record: it may be registered by then.
            return f"schema id {number}: {error}"
        except RegistryFault as fault:
            self._fault = fault
            raise
        attributes = {"dataschema": self._registry.place(number), "schemaid": str(number)}
        if name:
            attributes["schemaname"] = name
        self._known[number] = schema = Schema(attributes, read)
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return schema


class Registries:
    """Gives listeners their schemas; those of one registry and login share them."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._schemas: WeakValueDictionary[tuple[object, ...], Schemas] = WeakValueDictionary()

    def of(self, subscription: Subscription[KafkaSource]) -> Schemas | None:
        """None: the source has no registry. Raises SpecError, ExtraMissingError."""
        spec = subscription.source.schema_registry
        if spec is None:
            return None
        try:
            import_module("triggerhub_kafka.readers")
        except ModuleNotFoundError:
            raise ExtraMissingError(WHERE, EXTRA) from None
        registry, key = open_registry(spec, subscription, self._contexts)
        schemas = self._schemas.get(key)
        if schemas is None:
            schemas = self._schemas[key] = Schemas(registry)
        return schemas


async def learn(
    schemas: Schemas, records: Iterable[Record], tell: Tell, ours: Callable[[], bool]
) -> Known | None:
    """The schemas of these records. Waits while the registry does not give them, and tells; None:
    meanwhile the records are not ``ours`` any more."""
    wait = _FIRST_WAIT
    while True:
        try:
            known = await schemas.of(records)
        except RegistryFault as fault:
            tell(Problem(fault.reason, str(fault)))
        else:
            tell(None)
            return known if ours() else None
        await asyncio.sleep(wait)
        if not ours():
            return None
        wait = min(_LONGEST_WAIT, wait * 2)


def translate(known: Known, plain: Callable[[Record], Event], record: Any) -> Event:
    """A record as an event with its data as JSON. ``plain`` makes one of a record whose data is so
    already. What does not fit its schema becomes an event with a ``fault``, its bytes as they are.

    A record without a value, and a CloudEvent in structured mode, are in no schema's form.
    """
    value = record.value
    if value is None or is_structured(record):
        return plain(record)
    if not _has_head(value):
        began = value[:_HEAD].hex(" ") or "nothing"
        return undecodable(record, f"expected a zero byte and a schema id of four, found {began}")
    number = _number(value)
    schema = known[number]
    if isinstance(schema, str):
        return undecodable(record, schema)
    try:
        data = schema.read(value)
    except Unfit as unfit:
        return undecodable(record, f"it does not fit schema id {number}: {unfit}")
    event = plain(replace(record, value=data))
    if event.fault is not None:
        return undecodable(record, event.fault)
    return replace(
        event,
        datacontenttype="application/json",
        extensions={**schema.attributes, **event.extensions},
        origin=partial(origin, record),
    )


def _has_head(value: bytes) -> bool:
    return len(value) >= _HEAD and value[0] == 0


def _number(value: bytes) -> int:
    return int.from_bytes(value[1:_HEAD], "big")
