"""What running jobs of this process have told so far, for those who listen."""

import asyncio
from contextlib import suppress
from typing import Any

Stage = tuple[str, Any]
END: Stage = ("end", None)
"""The last that is told of an attempt, however it ended."""


class Stages:
    """The stages of each running job, from the beginning of its attempt to the end."""

    def __init__(self) -> None:
        self._told: dict[str, list[Stage]] = {}
        self._news = asyncio.Event()

    def begin(self, id: str) -> None:
        """A new attempt: what the last one told is void."""
        self._told[id] = []
        self._announce()

    def tell(self, id: str, stage: str, value: object) -> None:
        """Heard by all who listen, now or later."""
        if id in self._told:
            self._told[id].append((stage, value))
            self._announce()

    def end(self, id: str) -> None:
        """Nothing more will be told of this attempt."""
        self._told.pop(id, []).append(END)
        self._announce()

    def of(self, id: str) -> list[Stage] | None:
        """What the attempt at this job has told, a list that grows; None while there is none."""
        return self._told.get(id)

    async def wait(self, seconds: float) -> None:
        """Returns when there is news of any job, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Listener:
    """Hears every stage of a job once, in order; from the first again when it is tried again."""

    def __init__(self, stages: Stages, id: str) -> None:
        self._stages = stages
        self._id = id
        self._attempt: list[Stage] | None = None
        self._heard = 0

    def news(self) -> list[Stage]:
        """What was told since the last call."""
        current = self._stages.of(self._id)
        if current is not None and current is not self._attempt:
            self._attempt, self._heard = current, 0
        if self._attempt is None:
            return []
        heard, self._heard = self._heard, len(self._attempt)
        return self._attempt[heard:]

    async def wait(self, seconds: float) -> None:
        await self._stages.wait(seconds)
