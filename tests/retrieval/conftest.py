from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy
from library import Library

from retrieval.retriever import FaissRetriever


@pytest.fixture
async def library(engine: sqlalchemy.Engine, tmp_path: Path) -> AsyncIterator[Library]:
    retriever = FaissRetriever(engine, tmp_path / "indexes", neighbours=3)
    await retriever.start()
    yield Library(engine, tmp_path / "indexes", retriever)
    await retriever.close()
