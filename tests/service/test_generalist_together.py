"""Prompts that are computed together, when one of them ends the computation: who fails."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import a_prompt
from decoding import process_of, started
from tiny_generalist import a_checkpoint

from service.domain import Completion
from service.errors import ComputationLost
from service.generalist.asked import CACHE_BYTES, Asked
from service.generalist.choice import Answers
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.process import DecodingProcess
from service.generalist.wire import ComputationFailed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    a_checkpoint(folder)
    return folder


@pytest.mark.parametrize("failure", [ComputationLost, ComputationFailed])
async def test_a_prompt_that_ends_its_computation_fails_nobody_beside_it(
    folder: Path, failure: type[Exception]
) -> None:
    broken: Any = Deadly() if failure is ComputationLost else None
    async with started(EmbeddedGeneralist(folder)) as generalist:
        expected = await generalist.answer(a_prompt())
        process_of(generalist).send_signal(signal.SIGSTOP)
        first = asyncio.create_task(generalist.answer(a_prompt("first")))
        await asyncio.sleep(0.1)
        together = [replace(a_prompt(), text=broken), a_prompt()]
        asked = asyncio.gather(*map(generalist.answer, together), return_exceptions=True)
        await asyncio.sleep(0.1)
        process_of(generalist).send_signal(signal.SIGCONT)

        own, beside = await asked
        assert await first

    assert isinstance(own, failure)
    assert isinstance(beside, Completion)
    assert beside.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


def test_what_was_late_together_is_not_begun_again(folder: Path) -> None:
    decoding = DecodingProcess(
        folder, adapter=None, threads=1, cache_bytes=CACHE_BYTES, timeout_seconds=0.5
    )
    assert decoding._running is not None
    decoding._running.process.send_signal(signal.SIGSTOP)
    one = Asked(a_prompt().image, "Which?", Answers(("yes", "no")), "")

    late = decoding.distributions([one, one])

    assert [type(found) for found in late] == [ComputationLost, ComputationLost]
    assert not decoding.is_ready


class Deadly(str):
    """Ends the process that reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)
