"""A part that is asked all the time how it is, so that nobody has to wait to hear of it.

A generalist that has died must not be found out by the next case.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

EVERY_SECONDS = 0.5
PATIENCE_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


class Probe:
    """Asks a part every half second, beside the requests; `check` repeats what was last heard."""

    def __init__(self, part: str, check: Callable[[], Awaitable[None]]) -> None:
        self._part = part
        self._ask = check
        self._heard = asyncio.Event()
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to ask; does not wait for an answer."""
        self._task = asyncio.create_task(self._work(), name=f"probe {self._part}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self) -> None:
        """Returns or raises as the part last did; only its very first answer is waited for.

        Raises TimeoutError where it gave no answer within PATIENCE_SECONDS.
        """
        await self._heard.wait()
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # or it would grow with every caller

    async def _work(self) -> None:
        while True:
            failure = await self._answer()
            if not self._heard.is_set() or (failure is None) != (self._failure is None):
                self._tell(failure)
            self._failure = failure
            self._heard.set()
            await asyncio.sleep(EVERY_SECONDS)

    async def _answer(self) -> Exception | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._ask()
        except Exception as error:  # noqa: BLE001 whatever it is, whoever asks is told
            return error
        return None

    def _tell(self, failure: Exception | None) -> None:
        """/readyz says why: the sentence may quote anything."""
        if failure is None:
            log.info("part ready", part=self._part)
        else:
            log.warning("part unready", part=self._part, reason=type(failure).__name__)
