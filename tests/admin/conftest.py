from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.admin.smallhub import SmallHub, small_hub
from triggerhub.settings import Settings


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[SmallHub]:
    settings = Settings(paths=(), admin="127.0.0.1:0")
    async with small_hub(tmp_path / "data", settings) as made:
        yield made
