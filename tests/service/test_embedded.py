"""The embedded generalist: how it behaves under pressure."""

import asyncio
import gc
from contextlib import aclosing
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from builders import a_picture, a_prompt, an_image
from decoding import INITIAL, LABELS, InThisProcess, Worked, a_long_text, started
from tiny_generalist import a_checkpoint

from service.domain import Image, Prompt
from service.errors import GeneralistUnavailable, InvalidCheckpoint, Overloaded, PromptTooLong
from service.generalist.checkpoint import load
from service.generalist.embedded import EmbeddedGeneralist


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    a_checkpoint(folder)
    return folder


async def test_one_prompt_too_many_is_overload(folder: Path) -> None:
    async with started(InThisProcess(folder, queue_size=2)) as generalist:
        waiting = [asyncio.create_task(generalist.answer(a_prompt())) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(Overloaded, match="2 prompts"):
            await generalist.answer(a_prompt())

        await asyncio.gather(*waiting)
        await generalist.answer(a_prompt())


async def test_prompts_that_wait_are_computed_together(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        worked = Worked(generalist.decoder)
        prompts = [Prompt(an_image(a_picture(seed=s)), INITIAL, LABELS.choices) for s in range(5)]
        async with generalist._free:
            waiting = [asyncio.create_task(generalist.answer(prompt)) for prompt in prompts]
            await asyncio.sleep(0.01)
        await asyncio.gather(*waiting)

    assert worked.together[:2] == [4, 1]


async def test_one_too_long_is_refused_and_its_company_answered(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        asked = [a_prompt(), a_prompt("word " * 600), a_prompt()]
        async with generalist._free:
            waiting = [asyncio.create_task(generalist.answer(prompt)) for prompt in asked]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [isinstance(one, PromptTooLong) for one in answers] == [False, True, False]


async def test_abandoned_prompts_are_not_computed(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        worked = Worked(generalist.decoder)
        async with generalist._free:
            abandoned = asyncio.create_task(generalist.answer(a_prompt()))
            await asyncio.sleep(0.01)
            abandoned.cancel()
            await asyncio.wait([abandoned])

        await generalist.check()

    assert abandoned.cancelled()
    assert worked.tokens == 0


async def test_an_abandoned_text_stops_between_two_tokens(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        worked = Worked(generalist.decoder)
        async with aclosing(generalist.stream(a_long_text())) as pieces:
            await anext(pieces)

        computed = worked.tokens
        await generalist.answer(a_prompt())
        await generalist.answer(a_prompt())

    assert worked.tokens - computed < 60  # of the other prompt alone


async def test_others_have_their_turn_while_a_text_is_written(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        writing = asyncio.create_task(generalist.answer(a_long_text()))
        await asyncio.sleep(0.01)

        await generalist.answer(a_prompt())

        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])


async def test_a_reader_who_forgets_a_stream_gives_its_place_back(folder: Path) -> None:
    async with started(InThisProcess(folder, queue_size=1)) as generalist:
        async for _ in generalist.stream(a_long_text()):
            break
        gc.collect()
        await asyncio.sleep(0.01)

        await generalist.answer(a_prompt())


async def test_a_stream_takes_a_place_in_the_queue(folder: Path) -> None:
    async with (
        started(InThisProcess(folder, queue_size=1)) as generalist,
        aclosing(generalist.stream(a_long_text())) as pieces,
    ):
        await anext(pieces)

        with pytest.raises(Overloaded, match="1 prompts"):
            await generalist.answer(a_prompt())


async def test_closing_ends_a_stream(folder: Path) -> None:
    generalist = InThisProcess(folder)
    await generalist.start()
    pieces = generalist.stream(a_long_text())
    await anext(pieces)

    await generalist.close()

    with pytest.raises(GeneralistUnavailable, match="closed"):
        await anext(pieces)


async def test_closing_answers_those_who_wait(folder: Path) -> None:
    generalist = InThisProcess(folder)
    await generalist.start()
    async with generalist._free:
        waiting = asyncio.create_task(generalist.answer(a_prompt()))
        await asyncio.sleep(0.01)
        await generalist.close()

    with pytest.raises(GeneralistUnavailable, match="closed"):
        await waiting


async def test_closing_waits_for_what_runs_and_lets_nobody_wait_with_it(folder: Path) -> None:
    generalist = InThisProcess(folder)
    await generalist.start()
    running, released = Event(), Event()

    def wait(*_: object) -> None:
        running.set()
        released.wait(10)

    generalist.decoder._model.vision_model.register_forward_pre_hook(wait)
    asked = asyncio.create_task(generalist.answer(a_prompt()))
    await asyncio.to_thread(running.wait, 10)
    closing = asyncio.create_task(generalist.close())

    with pytest.raises(GeneralistUnavailable, match="closed"):
        await asked

    assert not closing.done()
    released.set()
    await closing


async def test_answers_again_after_another_start(folder: Path) -> None:
    generalist = InThisProcess(folder)
    answers = []
    for _ in range(2):
        async with started(generalist):
            answers.append(await generalist.answer(a_prompt()))

    assert answers[0].probabilities == pytest.approx(answers[1].probabilities)


async def test_does_not_answer_before_the_start(folder: Path) -> None:
    generalist = InThisProcess(folder)

    with pytest.raises(GeneralistUnavailable, match="not started"):
        await generalist.answer(a_prompt())


async def test_a_damaged_folder_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"no config\.json"):
        await EmbeddedGeneralist(tmp_path).start()


async def test_names_its_weights(folder: Path) -> None:
    async with started(InThisProcess(folder)) as generalist:
        assert generalist.identity.weights_sha256 == load(folder).weights_sha256


async def test_two_frames_of_one_file_are_two_images(folder: Path) -> None:
    generalist = InThisProcess(folder)
    await generalist.start()
    first = Image(np.zeros((32, 32, 3), np.uint8), "same bytes", "application/dicom")
    second = Image(np.full((32, 32, 3), 200, np.uint8), "same bytes", "application/dicom")

    answers = [
        await generalist.answer(Prompt(frame, "What is it?", ("normal", "nodule")))
        for frame in (first, second)
    ]

    assert answers[0].probabilities != answers[1].probabilities
    await generalist.close()
