"""The database of the settings, for verbs that work on it directly."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from service.persistence import database
from service.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """An engine of the database, brought to this version of the code first."""
    engine = database.open_engine(settings.database_url)
    try:
        database.upgrade(engine)
        yield engine
    finally:
        engine.dispose()
