"""How commands talk to a running hub: its admin API."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from triggerhub.cli.failure import Failure

DEFAULT_ADMIN = "127.0.0.1:9090"
_PATIENCE = 30.0
_CONNECTING = 5.0

AdminOption = Annotated[
    str,
    typer.Option(
        "--admin", envvar="TRIGGERHUB_ADMIN", metavar="ADDR", help="The hub: host:port or a URL."
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        metavar="FILE",
        help="The hub's token; else TRIGGERHUB_ADMIN_TOKEN is used.",
    ),
]


class NoHub(Failure):
    """Nothing answers at the address."""


class Hub:
    """The admin API of one hub. Every call raises ``Failure``."""

    def __init__(self, admin: str, token_file: Path | None = None) -> None:
        self.url = admin if "://" in admin else f"http://{admin}"
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host, self._port = "", None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not self._host or parts.path not in ("", "/"):
            raise Failure(f"--admin: found {admin!r}, expected host:port or http://host:port", 2)
        self._tls = parts.scheme == "https"
        self._token = _token(token_file)

    def get(self, path: str) -> Any:
        """What a GET of the path answers, decoded."""
        return self.call("GET", path)

    def call(
        self, method: str, path: str, body: object = None, *, patience: float = _PATIENCE
    ) -> Any:
        """One request; ``patience``: seconds that the answer may take."""
        with self._asked(method, path, body, patience) as answer:
            return self._decoded(answer.read())

    def lines(self, method: str, path: str, body: object, *, patience: float) -> Iterator[Any]:
        """A request that is answered line by line; ``patience`` holds for each."""
        with self._asked(method, path, body, patience) as answer:
            while line := self._line(answer):
                yield self._decoded(line)

    def _line(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.readline()
        except http.client.IncompleteRead:
            return b""  # the hub went away: what is missing tells

    @contextmanager
    def _asked(
        self, method: str, path: str, body: object, patience: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, if it is a good one."""
        if self._tls:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_CONNECTING
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECTING)
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            self._connect(made)
            if isinstance(made.sock, socket.socket):
                made.sock.settimeout(patience)
            made.request(method, path, None if body is None else json.dumps(body), headers)
            answer = made.getresponse()
            if answer.status >= 400:
                raise self._refused(answer.status, answer.read())
            yield answer
        except TimeoutError:
            raise Failure(f"the hub at {self.url} gave no answer within {patience:g} s") from None
        except http.client.HTTPException:
            raise Failure(f"what answers at {self.url} is no triggerhub (--admin)") from None
        except OSError as error:
            raise Failure(f"the hub at {self.url} broke off: {error.strerror or error}") from None
        finally:
            made.close()

    def _connect(self, made: http.client.HTTPConnection) -> None:
        try:
            made.connect()
        except socket.gaierror:
            raise NoHub(f"--admin: the name {self._host} does not resolve") from None
        except ssl.SSLError as error:
            raise NoHub(f"no safe connection to {self.url}: {error.reason}") from None
        except OSError as error:
            why = "" if isinstance(error, ConnectionRefusedError) else f" ({error})"
            raise NoHub(
                f"no hub answers at {self.url}{why}: is `triggerhub run` running? (--admin)"
            ) from None

    def _refused(self, status: int, body: bytes) -> Failure:
        if status == 401:
            return Failure(
                f"the hub at {self.url} wants its token: --admin-token-file FILE or "
                "TRIGGERHUB_ADMIN_TOKEN"
            )
        try:
            return Failure(str(json.loads(body)["message"]))
        except (ValueError, KeyError, TypeError):
            return Failure(
                f"what answers at {self.url} is no triggerhub: status {status} (--admin)"
            )

    def _decoded(self, raw: bytes) -> Any:
        try:
            return json.loads(raw)
        except ValueError:
            raise Failure(f"what answers at {self.url} is no triggerhub (--admin)") from None


def _token(file: Path | None) -> str:
    try:
        text = os.environ.get("TRIGGERHUB_ADMIN_TOKEN", "") if file is None else file.read_text()
    except OSError as error:
        raise Failure(f"--admin-token-file: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = "\0"
    token = text.strip()
    if not token.isascii() or not (token.isprintable()):
        raise Failure("the admin token: expected one line of ASCII characters")
    return token
