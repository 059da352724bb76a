"""`triggerhub run`."""

from __future__ import annotations

import os
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triggerhub.cli.failure import Failure
from triggerhub.sentence import sentence

if TYPE_CHECKING:
    from triggerhub.app import Picture
    from triggerhub.tls import Files

_REMEMBERED = 200


def run(
    filename: Annotated[
        list[Path] | None,
        typer.Option(
            "--filename",
            "-f",
            metavar="PATH",
            help="A folder or file of manifests, watched for changes; may be repeated.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", metavar="NS", help="Of the cluster, only this namespace."
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: the pod's account, else as kubectl does."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the kubeconfig. Default: its current.")
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Durable state: positions, dead letters.")
    ] = Path(".triggerhub"),
    store: Annotated[
        str | None,
        typer.Option(
            envvar="TRIGGERHUB_STORE",
            metavar="URL",
            help="nats://HOST:PORT keeps it in NATS JetStream, for hubs on several machines.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDR", help="Where HTTP triggers listen.")
    ] = "127.0.0.1:8080",
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM, with --tls-key: --listen takes TLS. Looked at for changes."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM: the certificate's key, not encrypted.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM: who signs certificates of clients of --listen."),
    ] = None,
    admin: Annotated[
        str,
        typer.Option(metavar="ADDR", help="Where API, /metrics, /healthz and /readyz listen."),
    ] = "127.0.0.1:9090",
    admin_token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Token for /v1; needed where --admin is not loopback."),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="DURATION", help="What deliveries under way get at the end.")
    ] = "25s",
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=64,
            help="Processes of one hub: each a replica, on the same addresses and data.",
        ),
    ] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="Log lines, also on a terminal.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="More log lines; means --plain.")] = False,
) -> None:
    """Run a hub until it is told to stop (Ctrl-C or SIGTERM); a second time ends it at once.

    Without -f the manifests come from the Kubernetes API. On a terminal it shows a living picture;
    else, or with --plain or --workers, log lines on stderr.

    \b
    Examples:
      triggerhub run -f manifests/
      triggerhub run -f triggers/ -f functions/ --data /var/lib/triggerhub
      triggerhub run -f manifests/ --admin 0.0.0.0:9090 --admin-token-file token
      triggerhub run -f manifests/ --workers 4
      triggerhub run -f manifests/ --tls-certificate tls.crt --tls-key tls.key
      triggerhub run -f manifests/ --store nats://nats.example:4222
      triggerhub run --namespace shop
    """
    if filename and (namespace or kubeconfig or context):
        raise Failure("found -f and an option of a cluster, expected one of them", 2)
    from triggerhub.settings import Settings

    settings = Settings(
        paths=tuple(filename or ()),
        namespace=namespace,
        kubeconfig=kubeconfig,
        context=context,
        data=data.absolute(),
        store=store or "",
        listen=listen,
        tls=_files(tls_certificate, tls_key, tls_client_ca),
        admin=admin,
        admin_token_file=admin_token_file,
        grace=_seconds(grace),
    )
    picture = None
    if workers == 1 and not plain and not debug and _on_terminal():
        picture = _picture(settings)
    else:
        from triggerhub.telemetry import log_to_stderr

        log_to_stderr(debug=debug)
    try:
        if workers == 1:
            from triggerhub.app import run as run_hub

            run_hub(settings, picture)
        else:
            # Not the hub itself: the process that only watches over others stays small.
            from triggerhub.workers.supervisor import run as run_workers

            run_workers(settings, workers, debug=debug)
    except* OSError as errors:
        raise Failure(sentence(errors)) from None


def _picture(settings: Any) -> Picture:
    from triggerhub.cli.live import live
    from triggerhub.telemetry import Line, log_to_memory

    lines: deque[Line] = deque(maxlen=_REMEMBERED)
    log_to_memory(lines)
    return partial(live, settings=settings, lines=lines)


def _files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Files | None:
    if certificate is None or key is None:
        given = {"certificate": certificate, "key": key, "client-ca": client_ca}
        for name, path in given.items():
            if path is not None:
                message = f"found only --tls-{name}, expected --tls-certificate and --tls-key"
                raise Failure(message, 2)
        return None
    from triggerhub.tls import Files

    return Files(
        certificate=certificate.absolute(),
        key=key.absolute(),
        client_ca=None if client_ca is None else client_ca.absolute(),
    )


def _on_terminal() -> bool:
    return (
        sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", None)
    )


def _seconds(text: str) -> float:
    from triggerhub.durations import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise Failure(f"--grace: {error}", 2) from None
