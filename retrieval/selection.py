"""Which cases a filter lets through, as searches need it: by key, kept for a while."""

import threading
import time

from sqlalchemy import Engine

from retrieval import database
from retrieval.index import Selection
from retrieval.neighbour import EVERY_CASE, Filter

KEPT_SECONDS = 30
"""Cases stored since are found after so long. None is shown that the filter does not let through:
that is asked of the rows once more, after the search."""


class Admitted:
    """The keys that a filter lets through, by task, for many threads at once."""

    def __init__(self, engine: Engine, only: Filter) -> None:
        self._engine = engine
        self._only = only
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Selection]] = {}

    def of(self, task: str) -> Selection | None:
        """None where every case is let through."""
        if self._only == EVERY_CASE:
            return None
        with self._lock:
            read, selection = self._kept.get(task, (float("-inf"), None))
            if selection is None or time.monotonic() - read > KEPT_SECONDS:
                selection = Selection(database.filtered_keys(self._engine, task, self._only))
                self._kept[task] = time.monotonic(), selection
            return selection
