import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from specialists.batcher import Batcher
from specialists.errors import PoolOverloaded

Doubler = Batcher[int, int]


class Doubling:
    """Doubles numbers, remembers in which batches, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.begun.set()
        self.go_on.wait(10)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise RuntimeError("unlucky")
        return [2 * number for number in numbers]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
async def batcher(doubling: Doubling) -> AsyncIterator[Doubler]:
    with ThreadPoolExecutor(1) as executor:
        workers = asyncio.Semaphore(1)
        one = Doubler(
            "doubler", doubling, executor=executor, workers=workers, queue_size=4, max_batch=3
        )
        yield one
        doubling.go_on.set()
        await one.close()


@pytest.fixture
async def busy(batcher: Doubler, doubling: Doubling) -> Callable[[], object]:
    """The batcher is at work on the number 1; calling this lets it go on."""
    doubling.go_on.clear()
    batcher.submit(1)
    await asyncio.to_thread(doubling.begun.wait, 10)
    return doubling.go_on.set


async def test_a_request_alone_is_answered_at_once(batcher: Doubler, doubling: Doubling) -> None:
    assert await batcher.submit(21) == 42
    assert doubling.batches == [[21]]


async def test_what_arrives_while_it_works_is_answered_together(
    batcher: Doubler, doubling: Doubling, busy: Callable[[], object]
) -> None:
    futures = [batcher.submit(number) for number in (2, 3, 4, 5)]
    busy()

    assert await asyncio.gather(*futures) == [4, 6, 8, 10]
    assert doubling.batches == [[1], [2, 3, 4], [5]]


async def test_a_full_queue_refuses(batcher: Doubler, busy: Callable[[], object]) -> None:
    futures = [batcher.submit(number) for number in (2, 3, 4, 5)]

    with pytest.raises(PoolOverloaded, match="'doubler' has 4 images waiting"):
        batcher.submit(6)

    busy()
    assert await asyncio.gather(*futures) == [4, 6, 8, 10]


async def test_whoever_has_gone_is_not_worked_for(
    batcher: Doubler, doubling: Doubling, busy: Callable[[], object]
) -> None:
    gone, stays = batcher.submit(2), batcher.submit(3)
    gone.cancel()
    busy()

    assert await stays == 6
    assert doubling.batches == [[1], [3]]


async def test_whoever_has_gone_leaves_room(batcher: Doubler, busy: Callable[[], object]) -> None:
    futures = [batcher.submit(number) for number in (2, 3, 4, 5)]
    futures[0].cancel()

    last = batcher.submit(6)

    busy()
    assert await last == 12


async def test_a_failed_batch_answers_everyone_and_the_next_goes_well(
    batcher: Doubler, busy: Callable[[], object]
) -> None:
    futures = [batcher.submit(number) for number in (12, 13, 14, 15)]
    busy()

    answers = await asyncio.gather(*futures, return_exceptions=True)

    assert [str(answer) for answer in answers] == ["unlucky"] * 3 + ["30"]


async def test_closing_strands_nobody(
    batcher: Doubler, doubling: Doubling, busy: Callable[[], object]
) -> None:
    waiting = batcher.submit(2)

    await batcher.close()

    with pytest.raises(PoolOverloaded, match="closing"):
        await waiting
    with pytest.raises(PoolOverloaded):
        batcher.submit(3)
