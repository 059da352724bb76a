"""A schema registry, by Confluent's REST API: which schema an id stands for."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from triggerhub.connector import Subscription
from triggerhub.credentials import TLS, Contexts, text
from triggerhub_kafka.bearer import token
from triggerhub_kafka.security import SchemaRegistry
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.web import Answer, Unreachable, Web

WHERE = "spec.source.schemaRegistry"
EXTRA = "kafka-schemas"
# A subject, a version or a schema is not there. Any other 404 is another server's.
_NOT_THERE = frozenset({"40401", "40402", "40403"})
_MOST_REFERENCES = 1000


class RegistryFault(Exception):  # noqa: N818 - as its reason says
    """The registry does not answer, or not this hub: not a record's fault."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoSchema(Exception):  # noqa: N818 - a fact about the id
    """There is no schema of that id, or none that can be used; says which."""


class Unfit(Exception):  # noqa: N818 - a fact about the data
    """Data does not fit its schema; says how."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as it is registered."""

    kind: str
    """AVRO, JSON, PROTOBUF."""
    text: str
    references: tuple[tuple[str, str], ...]
    """Name and text of those that it refers to, directly or not; each after its own."""


class Registry:
    """One registry, as one login may see it."""

    def __init__(self, url: str, web: Web) -> None:
        self.url = url.rstrip("/")
        self._web = web

    def place(self, number: int) -> str:
        """The URL of a schema."""
        return f"{self.url}/schemas/ids/{number}"

    async def schema(self, number: int) -> Registered:
        """The schema of this id. Raises NoSchema, RegistryFault."""
        found = await self._get(self.place(number), f"no schema with id {number}")
        references: dict[tuple[str, str, str], str | None] = {}
        try:
            await self._follow(found, references)
        except (KeyError, TypeError):
            raise NoSchema("its references are not of the form that they should be") from None
        named = tuple((name, text or "") for (name, _, _), text in references.items())
        return Registered(str(found.get("schemaType") or "AVRO"), found["schema"], named)

    async def _follow(
        self, schema: dict[str, Any], known: dict[tuple[str, str, str], str | None]
    ) -> None:
        """Fetch what it refers to, each after what that refers to."""
        for reference in schema.get("references") or ():
            name, subject = str(reference["name"]), str(reference["subject"])
            version = str(reference["version"])
            if (name, subject, version) in known:
                continue
            if len(known) >= _MOST_REFERENCES:
                raise NoSchema(f"it refers to more than {_MOST_REFERENCES} others")
            known[name, subject, version] = None  # under way, should they refer to one another
            where = f"subjects/{quote(subject, safe='')}/versions/{quote(version, safe='')}"
            missing = f"no version {version} of subject {subject}, to which the schema refers"
            found = await self._get(f"{self.url}/{where}?deleted=true", missing)
            await self._follow(found, known)
            del known[name, subject, version]
            known[name, subject, version] = found["schema"]

    async def _get(self, url: str, missing: str) -> dict[str, Any]:
        try:
            answer = await self._web.ask("GET", url)
        except Unreachable as error:
            raise self._away(str(error)) from error
        if answer.status != 200:
            raise self._refused(answer, missing)
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not (isinstance(found, dict) and isinstance(found.get("schema"), str)):
            raise self._away("it answers without a schema: is it the URL of a schema registry?")
        return found

    def _refused(self, answer: Answer, missing: str) -> Exception:
        told = answer.text("message")
        why = f"it answers {answer.status}{f', {told}' if told else ''}"
        if answer.status == 404 and answer.text("error_code") in _NOT_THERE:
            return NoSchema(f"{self.url} has {missing}")
        if answer.status in (401, 403):
            return RegistryFault(
                "SchemaRegistryNotAuthorized",
                f"{self.url} refuses the hub: {why}: check basic or bearer of {WHERE}",
            )
        if answer.status == 404:
            why = f"{why}: is it the URL of a schema registry?"
        return self._away(why)

    def _away(self, why: str) -> RegistryFault:
        return RegistryFault(
            "SchemaRegistryUnreachable", f"no schema from {self.url}: {why} ({WHERE})"
        )


def open_registry(
    spec: SchemaRegistry, subscription: Subscription[KafkaSource], contexts: Contexts
) -> tuple[Registry, tuple[object, ...]]:
    """The registry of a manifest, and what tells it from others. Raises SpecError, with a sentence
    that shows no secret; ExtraMissingError."""
    headers = {"accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if spec.basic is not None:
        name = text(f"{WHERE}.basic.username", spec.basic.username, subscription)
        password = text(f"{WHERE}.basic.password", spec.basic.password, subscription)
        login = b64encode(f"{name}:{password}".encode()).decode()
        headers["authorization"] = f"Basic {login}"
    elif spec.bearer is not None:
        bearer = token(f"{WHERE}.bearer", spec.bearer, subscription)
        headers["authorization"] = f"Bearer {bearer}"
    context = None
    if spec.url.startswith("https:"):
        context = contexts.of(spec.tls or TLS(), f"{WHERE}.tls", subscription)
    registry = Registry(spec.url, Web(WHERE, EXTRA, context, headers))
    return registry, (registry.url, headers.get("authorization"), context)
