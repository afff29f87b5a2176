"""Checks that many may ask for and that run one at a time."""

import asyncio
from collections.abc import Awaitable, Callable

FRESH_SECONDS = 1.0
ANSWER_SECONDS = 5.0
GIVE_UP_SECONDS = 30.0


class Probe:
    """One part's check: at most one in flight, its result shared for about a second.

    A check that is late goes on for a while, so that the next caller waits for it instead of
    starting another: what it blocks, such as a thread, may not be stopped by cancelling it.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        *,
        fresh_seconds: float = FRESH_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._check = check
        self._fresh_seconds = fresh_seconds
        self._answer_seconds = answer_seconds
        self._checking: asyncio.Task[None] | None = None
        self._finished_at = 0.0

    async def ask(self) -> None:
        """Returns when the part works; raises what its check raised, or TimeoutError."""
        checking = self._current()
        await asyncio.wait((checking,), timeout=self._answer_seconds)
        if not checking.done():
            raise TimeoutError(f"no answer within {self._answer_seconds:g} seconds")
        checking.result()

    async def close(self) -> None:
        """Gives up a check in flight."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait((self._checking,))

    def _current(self) -> asyncio.Task[None]:
        if self._checking is None or self._is_stale(self._checking):
            self._checking = asyncio.create_task(self._run())
            self._checking.add_done_callback(self._note)
        return self._checking

    def _is_stale(self, checking: asyncio.Task[None]) -> bool:
        age_seconds = asyncio.get_running_loop().time() - self._finished_at
        return checking.done() and age_seconds > self._fresh_seconds

    async def _run(self) -> None:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await self._check()

    def _note(self, checking: asyncio.Task[None]) -> None:
        self._finished_at = checking.get_loop().time()
        if not checking.cancelled():
            checking.exception()  # its callers may have left: asyncio would log it as forgotten
