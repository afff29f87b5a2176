"""Waiting for what announces itself to nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST_SECONDS = 10.0


async def until(holds: Callable[[], object]) -> None:
    """Returns when something has come about."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while not holds():  # noqa: ASYNC110 - fakes announce nothing
            await asyncio.sleep(0.01)


async def until_told(ask: Callable[[], Awaitable[T]], holds: Callable[[T], object]) -> T:
    """The first answer that something holds of."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - nor do services
            await asyncio.sleep(0.02)
    return answer
