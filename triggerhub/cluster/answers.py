"""What the API server is asked for, and what its answers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

Object = dict[str, Any]
"""An object of the API server, as its JSON says."""

_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API; the core group is empty."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Below the server's address. ``namespace`` None: of all, or one that is in none."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = [root, self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as a sentence about it needs."""

    verb: str
    """As RBAC has it; ``discover``."""
    resource: Resource
    namespace: str | None
    subresource: str = ""

    @property
    def what(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else str(self.resource)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list's objects."""

    items: list[Object]
    resource_version: str
    """Of the whole list."""


class ApiError(Exception):
    """An answer that is no success, or no answer at all; says what was asked."""

    def __init__(
        self,
        verb: str,
        resource: str,
        namespace: str | None,
        status: int,
        reason: str,
        message: str,
        retry_after: float = 0.0,
    ) -> None:
        """``status`` 0: there was no answer. ``reason`` as in ``metav1.Status``; ``Unreachable``
        for 0. ``retry_after``: seconds that the server asked for."""
        self.verb = verb
        self.resource = resource
        self.namespace = namespace
        self.status = status
        self.reason = reason
        self.message = " ".join(message.split())  # one line of a log, whoever wrote it
        self.retry_after = retry_after
        super().__init__(self._sentence())

    @property
    def expired(self) -> bool:
        """The version that was named is no longer kept: list again."""
        return self.status == 410

    def _sentence(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else " in all namespaces"
        what = f"cannot {self.verb} {self.resource}{'' if self.verb == 'discover' else where}"
        if self.status == 0:
            return f"{what}: {self.message}"
        if self.status == 401:
            return (
                f"{what}: unauthorized; the API server does not know the hub's token or "
                "certificate: has it expired, or is it of another cluster?"
            )
        # Admission, quotas and namespaces that go away forbid, too: no right would help there.
        if self.status == 403 and f"cannot {self.verb} " in self.message:
            return (
                f"{what}: forbidden; the hub's service account needs the verb {self.verb} on "
                f"{self.resource} (docs/kubernetes.md, RBAC)"
            )
        return f"{what}: {self.status} {self.reason}: {self.message}".rstrip(": ")


def unanswered(asked: Asked, why: str) -> ApiError:
    """There was no answer, or none that can be read."""
    why = f"{why[:_SHOWN]}…" if len(why) > _SHOWN else why
    return ApiError(asked.verb, asked.what, asked.namespace, 0, "Unreachable", why)


def refused(asked: Asked, status: int, reason: str, retry_after: str, body: bytes) -> ApiError:
    """An answer that is no success. ``reason`` and ``retry_after`` are what its head says."""
    message = body[:_SHOWN].decode(errors="replace").strip()
    try:
        said = from_json(body)
    except ValueError:
        said = None
    if isinstance(said, dict):  # else it is not the API server that speaks, but what is before it
        reason = str(said.get("reason") or reason)
        message = str(said.get("message") or message)
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    return ApiError(asked.verb, asked.what, asked.namespace, status, reason, message, wait)


def read(asked: Asked, body: bytes) -> Object:
    """The object that an answer is. Raises ``ApiError``."""
    try:
        found = from_json(body)
    except ValueError as error:
        raise unanswered(asked, f"found an answer that is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise unanswered(asked, "found an answer that is no object")
    return found


def page(asked: Asked, found: Object) -> tuple[Page, str]:
    """Some of a list, and where it goes on; empty: that was all. Raises ``ApiError`` for what is
    no list: whoever takes it for an empty one deletes everything."""
    items, metadata = found.get("items", ()), found.get("metadata")
    items = [] if items is None else items
    if not isinstance(items, list) or not isinstance(metadata, dict):
        raise unanswered(asked, "found an answer that is no list")
    version, more = metadata.get("resourceVersion"), metadata.get("continue") or ""
    if not version or not all(isinstance(text, str) for text in (version, more)):
        raise unanswered(asked, "found a list without a version")
    if not all(map(_object, items)):
        raise unanswered(asked, "found a list with something in it that is no object")
    return Page(items, version), more


def served(asked: Asked, found: Object) -> set[str]:
    """Plural names that a group's version serves. Raises ``ApiError``."""
    resources = found.get("resources")
    if found.get("kind") != "APIResourceList" or not isinstance(resources, list):
        raise unanswered(asked, "found an answer that is no list of resources")
    return {str(resource.get("name")) for resource in resources if isinstance(resource, dict)}


def change(asked: Asked, line: bytes) -> tuple[str, Object]:
    """One line of a watch: what happened, and the object. Raises ``ApiError``, also for a line
    that tells of an error."""
    found = read(asked, line)
    kind, body = found.get("type"), found.get("object")
    if not isinstance(kind, str) or not isinstance(body, dict):
        raise unanswered(asked, "found a line that is no change")
    if kind == "ERROR":
        status, reason = body.get("code"), str(body.get("reason") or "")
        status = status if isinstance(status, int) and status else 500
        message = str(body.get("message") or "")
        raise ApiError(asked.verb, asked.what, asked.namespace, status, reason, message)
    if not _object(body):
        raise unanswered(asked, "found a change of something that is no object")
    return kind, body


def _object(body: object) -> bool:
    return isinstance(body, dict) and isinstance(body.get("metadata"), dict)


class Lines:
    """Cuts a stream of bytes into lines of any length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk; empty ones are left out."""
        first, *more = chunk.split(b"\n")
        self._parts.append(first)
        if not more:
            return []
        lines = [b"".join(self._parts), *more[:-1]]
        self._parts = [more[-1]]
        return [line for line in lines if line.strip()]
