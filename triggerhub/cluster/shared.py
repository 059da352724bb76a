"""Leases without a cluster: in the store that several hubs share."""

from __future__ import annotations

import json

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.connector import Position, PositionConflict, Positions
from triggerhub.store.records import StoreError

LEADER = "leader"
HUBS = "hubs"
"""Whose positions they are: no binding's, whose names have dots."""


class StoreLeases:
    """``Leases`` as positions: what is to be replaced is named by its revision."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Raises ``ApiError``."""
        try:
            found = (await self._positions.load(name)).get(name)
        except StoreError as error:
            raise _Away(error) from error
        if found is None:
            raise _answer(404, "NotFound", "nobody led yet")
        return _lease(name, found)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Raises ``ApiError``."""
        return await self._save(body["metadata"]["name"], body, 0)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object
    ) -> Object:
        """Raises ``ApiError``."""
        return await self._save(name, body, int(body["metadata"]["resourceVersion"]))

    async def _save(self, name: str, body: Object, revision: int) -> Object:
        value = json.dumps(body["spec"])
        try:
            return _lease(
                name,
                Position(value, await self._positions.save(name, value, expect=revision)),
            )
        except PositionConflict as error:
            raise _answer(409, "Conflict", str(error)) from None
        except StoreError as error:
            raise _Away(error) from error


class _Away(ApiError):  # noqa: N818 - what happened
    """The store says what is wrong."""

    def __init__(self, error: StoreError) -> None:
        super().__init__("use", "the store", None, 0, "Unreachable", str(error))

    def _sentence(self) -> str:
        return self.message


def _answer(status: int, reason: str, message: str) -> ApiError:
    return ApiError("use", "leases of the store", None, status, reason, message)


def _lease(name: str, found: Position) -> Object:
    try:
        spec = json.loads(found.value)
    except ValueError:
        spec = {}  # an administrator's doing: nobody's
    return {"metadata": {"name": name, "resourceVersion": str(found.revision)}, "spec": spec}
