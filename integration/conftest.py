"""Real servers, one of each for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.servers import Kafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Apache Kafka, started."""
    server = Kafka(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
