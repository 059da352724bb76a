"""Where the benchmarks send to: an nginx that answers 204 to everything."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NGINX = "/usr/sbin/nginx"

_CONFIG = """\
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ return 204; }}
  }}
}}
"""


@contextmanager
def nginx_sink(port: int, *, workers: int = 1) -> Iterator[str]:
    """Run nginx on 127.0.0.1 for the block; yields its URL. Raises RuntimeError with what it
    said when it does not listen within five seconds."""
    with tempfile.TemporaryDirectory(prefix="triggerhub-sink-") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(_CONFIG.format(folder=folder, port=port, workers=workers))
        with Path(folder, "stderr").open("w+b") as said:
            process = subprocess.Popen(
                [_NGINX, "-e", "stderr", "-p", folder, "-c", str(config)], stderr=said
            )
            try:
                if not _listens(port, process):
                    said.seek(0)
                    raise RuntimeError(f"nginx did not start: {said.read().decode()}")
                yield f"http://127.0.0.1:{port}/"
            finally:
                process.terminate()
                process.wait(10)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False
