"""How the hub talks: structured log lines on stderr, or a bounded memory of them."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import MutableMapping
from functools import partial
from typing import Any

import structlog
from structlog.typing import Processor

Line = MutableMapping[str, Any]


def log_to_stderr(*, json: bool | None = None, debug: bool = False, worker: int = 0) -> None:
    """One line an event. ``json``: None means text for a terminal, JSON otherwise. ``worker``:
    which of one hub's processes this is, for each line to bear; 0: none of several."""
    if json is None:
        json = not sys.stderr.isatty()
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    if worker:
        last.insert(0, partial(_number, worker))
    _configure(last, structlog.PrintLoggerFactory(sys.stderr), debug)


def log_to_memory(lines: deque[Line]) -> None:
    """Keep events as dictionaries in ``lines``, for a picture that the screen shows instead."""

    def keep(_logger: Any, _method: str, event: Line) -> Line:
        lines.append(event)
        raise structlog.DropEvent

    _configure([keep], structlog.PrintLoggerFactory(sys.stderr), debug=False)


def log_nothing() -> None:
    """For a command that says what there is to say itself."""

    def drop(_logger: Any, _method: str, event: Line) -> Line:
        raise structlog.DropEvent

    _configure([drop], structlog.PrintLoggerFactory(sys.stderr), debug=False)


def _number(worker: int, _logger: Any, _method: str, event: Line) -> Line:
    event["worker"] = worker
    return event


def _configure(last: list[Processor], factory: Any, debug: bool) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge()], force=True)
    # It calls errors what the connector expects, tells in conditions and mends.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class _Bridge(logging.Handler):
    """What libraries log becomes one of our lines, wherever those go."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )
