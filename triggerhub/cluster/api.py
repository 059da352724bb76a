"""Requests to the API server, and its answers as plain JSON."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic_core import to_json

from triggerhub import __version__
from triggerhub.cluster.answers import (
    ApiError,
    Asked,
    Lines,
    Object,
    Page,
    Resource,
    change,
    page,
    read,
    refused,
    served,
    unanswered,
)

try:
    import aiohttp

    from triggerhub.cluster.access import Access
except ModuleNotFoundError as error:
    raise OSError(
        f"manifests of a cluster need: pip install 'triggerhub[kubernetes]' (there is no module "
        f"{error.name})"
    ) from None

__all__ = ["Api", "ApiError", "Object", "Page", "Resource"]

PAGE = 500
PATIENCE = 30.0
"""Seconds that one request may take."""
LIST_PATIENCE = 65.0
"""The same for a page of a list: a little more than what a server gives itself."""
SLACK = 10.0
"""Seconds after which a watch that should have ended counts as dead."""
_CONNECT = 10.0
_BUFFER = 2**18
"""Bytes of an answer that may wait to be read."""

_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Api:
    """The API server, as far as a hub needs it. An async context manager."""

    def __init__(self, access: Access, *, patience: float = PATIENCE, slack: float = SLACK) -> None:
        self._access = access
        self._patience = patience
        self._slack = slack
        self.namespace = access.namespace
        """The hub's own."""
        self._session = aiohttp.ClientSession(
            # Each watch holds a connection: a limit would starve all else.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_BUFFER,
        )

    @classmethod
    async def connect(cls, *, kubeconfig: Path | None = None, context: str | None = None) -> Api:
        """The pod's account, where there is one and no kubeconfig is named; else a kubeconfig,
        found as kubectl finds it. Raises OSError with one sentence."""
        return cls(await Access.find(kubeconfig, context))

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        selector: str = "",
        field: str = "",
        limit: int = PAGE,
    ) -> AsyncGenerator[Page, None]:
        """All objects, at most ``limit`` a page. ``namespace`` None: of all namespaces. Raises
        ``ApiError``; one that is ``expired`` when the list took longer than the server keeps it."""
        asked = Asked("list", resource, namespace)
        query = _query(limit=limit, labelSelector=selector, fieldSelector=field)
        while True:
            patience = max(self._patience, LIST_PATIENCE)
            found, more = page(asked, await self._request(asked, query=query, patience=patience))
            yield found
            if not more:
                return
            query["continue"] = more

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        timeout: float,
        selector: str = "",
        field: str = "",
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """What changes after a version: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and
        the object; before all, ``OPENED`` with nothing when the server has taken the watch.

        Ends when the server ends it, within ``timeout`` seconds; one that lasts longer is dead,
        and raises ``ApiError`` as every trouble does."""
        asked = Asked("watch", resource, namespace)
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=max(1, round(timeout)),
            resourceVersion=resource_version,
            labelSelector=selector,
            fieldSelector=field,
        )
        lines = Lines()
        async with self._opened(asked, query=query, patience=timeout + self._slack) as response:
            yield "OPENED", {}
            async for chunk in response.content.iter_any():
                for line in lines.feed(chunk):
                    yield change(asked, line)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises ``ApiError``, as all that follow."""
        return await self._request(Asked("get", resource, namespace), name)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Raises ``ApiError`` 409 where the name is taken."""
        asked = Asked("create", resource, namespace)
        return await self._request(asked, method="POST", body=body)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object
    ) -> Object:
        """Write an object whole; 409 where it changed since the version in ``body``."""
        asked = Asked("update", resource, namespace)
        return await self._request(asked, name, method="PUT", body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: Literal["merge", "json", "apply"],
        subresource: str = "",
        manager: str = "triggerhub",
        force: bool = True,
    ) -> Object:
        """Change some fields. ``apply`` is server-side apply under the field manager; ``force``
        takes fields that another manager holds."""
        query = _query(fieldManager=manager)
        if kind == "apply":
            query["force"] = "true" if force else "false"
        asked = Asked("patch", resource, namespace, subresource)
        return await self._request(
            asked, name, method="PATCH", query=query, body=body, content=_PATCHES[kind]
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Delete an object; where given, only this one, at this version (else 409)."""
        conditions = _query(uid=uid, resourceVersion=resource_version)
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        asked = Asked("delete", resource, namespace)
        await self._request(asked, name, method="DELETE", body=body)

    async def discover(self, group: str, version: str) -> set[str] | None:
        """Plural names of what a group's version serves; None: it is not served at all."""
        asked = Asked("discover", Resource(group, version, ""), None)
        try:
            return served(asked, await self._request(asked))
        except ApiError as error:
            if error.status != 404:
                raise
        # So says a proxy of everything while there is no server behind it.
        core = Asked("discover", Resource("", "v1", ""), None)
        served(core, await self._request(core))
        return None

    async def _request(
        self,
        asked: Asked,
        name: str = "",
        *,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
        patience: float | None = None,
    ) -> Object:
        patience = self._patience if patience is None else patience
        async with self._opened(
            asked, name, method=method, query=query, body=body, content=content, patience=patience
        ) as response:
            return read(asked, await response.read())

    @asynccontextmanager
    async def _opened(
        self,
        asked: Asked,
        name: str = "",
        *,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
        patience: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success. What goes wrong before its end raises ``ApiError``."""
        access = self._access
        url = access.url + asked.resource.path(asked.namespace, name, asked.subresource)
        if query:
            url += f"?{urlencode(query)}"
        headers = {"accept": "application/json", "user-agent": f"triggerhub/{__version__}"}
        authorization = await access.authorization()
        if authorization:
            headers["authorization"] = authorization
        if body is not None:
            headers["content-type"] = content
        try:
            async with self._session.request(
                method,
                url,
                data=None if body is None else to_json(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=patience, sock_connect=_CONNECT),
                allow_redirects=False,
                proxy=access.proxy,
                ssl=access.tls,
                server_hostname=access.server_name,
            ) as response:
                if not 200 <= response.status < 300:
                    raise await self._refused(asked, response)
                yield response
        except aiohttp.ConnectionTimeoutError:
            why = f"the API server at {access.url} takes no connection within {_CONNECT:g} s"
            raise unanswered(asked, why) from None
        except TimeoutError:
            raise unanswered(asked, f"found no answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = f"the API server at {access.url} cannot be reached: {_why(error)}"
            raise unanswered(asked, why) from None

    async def _refused(self, asked: Asked, response: aiohttp.ClientResponse) -> ApiError:
        if response.status == 401:
            self._access.doubt()
        wait = response.headers.get("retry-after", "")
        body = await response.read()
        return refused(asked, response.status, response.reason or "", wait, body)


def _why(error: Exception) -> str:
    """Without aiohttp's own words about where and how: the address stands before."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _query(**options: str | int) -> dict[str, str]:
    return {name: str(value) for name, value in options.items() if value != ""}
