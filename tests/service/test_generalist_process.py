"""The embedded generalist's process: lost, late, hung, replaced; what it is told, and may say."""

import asyncio
import shutil
import signal
import subprocess
import sys
from contextlib import aclosing, suppress
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
from builders import a_prompt
from decoding import a_long_text, process_of, started
from structlog.testing import capture_logs
from tiny_generalist import a_checkpoint
from waiting import until

from service.domain import Completion
from service.errors import ComputationLost, GeneralistUnavailable, InvalidCheckpoint, PromptTooLong
from service.generalist import process
from service.generalist.checkpoint import CONFIG
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.wire import ComputationFailed, heard

SERVES = """
import asyncio, pathlib, sys
from service.generalist.embedded import EmbeddedGeneralist

async def serve():
    await EmbeddedGeneralist(pathlib.Path(sys.argv[1])).start()
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    a_checkpoint(folder)
    return folder


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started from now on."""
    begun: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **terms: Any) -> None:
            super().__init__(*given, **terms)
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return begun


async def test_a_process_that_is_killed_is_replaced(folder: Path) -> None:
    async with started(EmbeddedGeneralist(folder)) as generalist:
        before = await generalist.answer(a_prompt())
        worker = process_of(generalist)
        worker.kill()
        await asyncio.to_thread(worker.wait)

        with pytest.raises(GeneralistUnavailable, match="started again"):
            await generalist.check()
        await until_ready(generalist)

        async with asyncio.timeout(2):  # whoever is told that it is ready need not wait for it
            assert await generalist.answer(a_prompt()) == before


async def test_whoever_it_computed_for_is_told_and_others_are_answered(folder: Path) -> None:
    async with started(EmbeddedGeneralist(folder)) as generalist:
        worker = process_of(generalist)
        worker.send_signal(signal.SIGSTOP)
        asked = asyncio.create_task(generalist.answer(a_prompt()))
        await asyncio.sleep(0.1)
        worker.kill()

        with pytest.raises(ComputationLost, match="ended"):
            await asked
        assert await generalist.answer(a_prompt())


async def test_a_text_ends_with_the_process_that_writes_it(folder: Path) -> None:
    async with (
        started(EmbeddedGeneralist(folder)) as generalist,
        aclosing(generalist.stream(a_long_text())) as pieces,
    ):
        await anext(pieces)
        worker = process_of(generalist)
        worker.kill()
        await asyncio.to_thread(worker.wait)

        with pytest.raises(GeneralistUnavailable, match="while it wrote"):
            await anext(pieces)


@pytest.mark.parametrize("words", [1, 2_000_000])
async def test_a_computation_that_never_ends_is_ended(folder: Path, words: int) -> None:
    async with started(EmbeddedGeneralist(folder, timeout_seconds=0.5)) as generalist:
        process_of(generalist).send_signal(signal.SIGSTOP)

        with pytest.raises(ComputationLost, match=r"longer than 0\.5 s"):
            await generalist.answer(a_prompt("word " * words))

        assert await generalist.answer(a_prompt())


async def test_no_other_weights_answer_under_the_same_name(folder: Path, tmp_path: Path) -> None:
    changing = shutil.copytree(folder, tmp_path / "tiny")
    async with started(EmbeddedGeneralist(changing)) as generalist:
        shutil.rmtree(changing)
        a_checkpoint(changing, seed=1)
        worker = process_of(generalist)
        worker.kill()
        await asyncio.to_thread(worker.wait)

        with pytest.raises(GeneralistUnavailable, match="started again"):
            await generalist.check()
        with pytest.raises(GeneralistUnavailable, match="has changed"):
            await generalist.answer(a_prompt())
        with pytest.raises(GeneralistUnavailable, match="has changed"):
            await generalist.check()


async def test_what_cannot_start_again_is_waited_out_and_rarely_tried(
    folder: Path, tmp_path: Path, begun: list[subprocess.Popen[bytes]]
) -> None:
    vanishing = shutil.copytree(folder, tmp_path / "tiny")
    async with started(EmbeddedGeneralist(vanishing)) as generalist:
        shutil.rmtree(vanishing)
        begun[0].kill()
        await asyncio.to_thread(begun[0].wait)

        for _ in range(3):
            with pytest.raises(GeneralistUnavailable, match=r"has no config\.json"):
                await generalist.answer(a_prompt())

    assert len(begun) == 2


async def test_a_start_that_never_ends_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, begun: list[subprocess.Popen[bytes]]
) -> None:
    monkeypatch.setattr(process, "START_SECONDS", 0.1, raising=False)

    with pytest.raises(GeneralistUnavailable, match=r"longer than 0\.1 s"):
        await EmbeddedGeneralist(folder).start()

    assert [one.returncode for one in begun] == [-signal.SIGKILL]


async def test_a_start_that_is_given_up_leaves_no_process(
    folder: Path, begun: list[subprocess.Popen[bytes]]
) -> None:
    starting = asyncio.create_task(EmbeddedGeneralist(folder).start())
    await until(lambda: begun)
    starting.cancel()
    await asyncio.wait([starting])

    assert [one.returncode for one in begun] == [-signal.SIGKILL]


async def test_no_reply_answers_the_next_question(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll(_pipe: Connection, _seconds: float) -> bool:
        raise MemoryError

    async with started(EmbeddedGeneralist(folder)) as generalist:
        expected = await generalist.answer(a_prompt("Which?"))
        with monkeypatch.context() as broken:
            broken.setattr(Connection, "poll", poll)
            with pytest.raises(MemoryError):
                await generalist.answer(a_prompt("Another?"))

        assert await generalist.answer(a_prompt("Which?")) == expected


async def test_nothing_that_the_process_says_is_unpickled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(_data: bytes) -> None:
        raise UnpicklingError

    monkeypatch.setattr(reduction.ForkingPickler, "loads", loads)
    async with started(EmbeddedGeneralist(folder)) as generalist:
        assert await generalist.answer(a_prompt())
        assert isinstance(await generalist.answer(replace(a_prompt(), choices=())), Completion)
        with pytest.raises(PromptTooLong):
            await generalist.answer(a_prompt("word " * 600))


@pytest.mark.parametrize("sent", [b"\x80\x05N.", b"{}", b"7", b'{"ready": {"x": 1}}', b"\xff"])
def test_what_is_no_reply_is_refused(sent: bytes) -> None:
    with pytest.raises(GeneralistUnavailable, match="does not make sense"):
        heard(sent)


async def test_a_lost_process_is_told_with_its_reason(folder: Path) -> None:
    async with started(EmbeddedGeneralist(folder, timeout_seconds=0.5)) as generalist:
        process_of(generalist).send_signal(signal.SIGSTOP)
        with capture_logs() as lines, pytest.raises(GeneralistUnavailable):
            await generalist.answer(a_prompt())

    (told,) = [line for line in lines if line["event"] == "generalist process ended"]
    assert str(told["exc_info"]) == "the generalist took longer than 0.5 s"
    assert told["status"] == -signal.SIGKILL


async def test_a_file_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "tiny")
    (broken / CONFIG).unlink()
    (broken / CONFIG).mkdir()

    with pytest.raises(InvalidCheckpoint, match=r"config\.json' cannot be read: Is a directory"):
        await EmbeddedGeneralist(broken).start()


async def test_a_defect_in_the_process_names_its_place_and_quotes_nothing(folder: Path) -> None:
    async with started(EmbeddedGeneralist(folder)) as generalist:
        broken = replace(a_prompt(), text=None)  # type: ignore[arg-type]

        with pytest.raises(
            ComputationFailed, match=r"^TypeError at .* service\.generalist\.chat:\d+ plain$"
        ):
            await generalist.answer(broken)

        assert await generalist.answer(a_prompt())


async def test_the_process_is_told_no_secret_and_how_to_compute(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a secret")
    monkeypatch.setenv("GSCO_WEBHOOK_SECRET", "a secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    async with started(EmbeddedGeneralist(folder)) as generalist:
        place = Path(f"/proc/{process_of(generalist).pid}/environ")
        told = await asyncio.to_thread(place.read_text)

    assert "secret" not in told
    assert "OMP_NUM_THREADS=1" in told


async def test_the_process_ends_with_a_service_that_is_killed(folder: Path) -> None:
    command = [sys.executable, "-c", SERVES, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:  # noqa: ASYNC220
        assert service.stdout is not None
        assert await asyncio.to_thread(service.stdout.readline) == b"started\n"
        service.kill()

        await asyncio.to_thread(service.stdout.read)  # until the last who could write is gone


async def until_ready(generalist: EmbeddedGeneralist) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(GeneralistUnavailable):
                return await generalist.check()
            await asyncio.sleep(0.05)
