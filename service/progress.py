"""How far one case is: seconds per stage, and who is told as stages end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Tell = Callable[[str, object], None]
"""Called with a stage and what came of it: `initial` (the first answer), `specialists` (their
predictions), `retrieval` (the neighbours), `text` (a piece of the final answer as it is written).
It must return at once."""


def nobody(stage: str, value: object) -> None:
    """No one is told."""
    del stage, value


@dataclass
class Stopwatch:
    """Seconds that each stage of one case took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 4)
