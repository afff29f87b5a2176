"""How far one case is: seconds per stage, and who is told as stages end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service import spans

Tell = Callable[[str, object], None]
"""Called with a stage and what came of it: `initial` (the first answer), `specialist` (one of the
predictions, as it comes), `specialists` (all of them, in order), `retrieval` (the neighbours),
`text` (a piece of the final answer as it is written). It must return at once."""


def nobody(stage: str, value: object) -> None:
    """No one is told."""
    del stage, value


@dataclass
class Stopwatch:
    """Seconds that each stage of one case took; each is a span of the case's task as well."""

    task: str
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what happens inside; a stage that comes again is added to."""
        started, before = time.perf_counter(), self.seconds.get(name, 0.0)
        try:
            with spans.span(name, task=self.task):
                yield
        finally:
            self.seconds[name] = round(before + time.perf_counter() - started, 4)
