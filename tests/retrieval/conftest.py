from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from library import Library

from retrieval.records import Base
from retrieval.retriever import FaissRetriever


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'gsco.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def library(engine: sqlalchemy.Engine, tmp_path: Path) -> AsyncIterator[Library]:
    retriever = FaissRetriever(engine, tmp_path / "indexes", neighbours=3)
    await retriever.start()
    yield Library(engine, tmp_path / "indexes", retriever)
    await retriever.close()
