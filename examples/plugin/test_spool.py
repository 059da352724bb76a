"""The spool connector keeps the contract of a source."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from triggerhub_spool import SpoolConnector, SpoolSource

from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector


class SpoolHarness(Harness[SpoolSource]):
    """Moves files into folders of their own."""

    features = frozenset({Feature.CARRIES_DATA, Feature.KEEPS, Feature.REPLAYS})
    event_type = "com.example.spool.file"
    quiet = 0.15
    margin = 1.0

    def __init__(self, place: Path) -> None:
        self._place = place
        self._numbers = count()

    def connector(self) -> Connector[SpoolSource]:
        return SpoolConnector(Installation())

    async def place(self) -> SpoolSource:
        return self._source(tempfile.mkdtemp(dir=self._place))

    async def produce(self, place: SpoolSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        for sample in samples:
            file = Path(place.folder, f"{next(self._numbers):06}")
            hidden = file.with_name(f".{file.name}")
            hidden.write_bytes(sample.data)
            hidden.rename(file)  # so that nobody reads half of it
        return samples

    def unreachable(self) -> tuple[Connector[SpoolSource], SpoolSource]:
        return self.connector(), self._source(str(self._place / "none"))

    def _source(self, folder: str) -> SpoolSource:
        return SpoolSource.model_validate({"folder": folder, "every": 0.05})


async def test_the_spool_connector_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    print(await check_connector(SpoolHarness(tmp_path)))
