"""Results go back to the PACS: durable, the same bytes each time, and nobody named elsewhere."""

import io
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from archive import Archive
from builders import a_task, task_toml
from databases import a_queue
from dicom_files import NAME, dicom
from dicomweb_origin import Origin
from fakes import FakeGeneralist, completion
from listening import listening
from serving import Service, a_service
from waiting import until, until_told

from service import telemetry
from service.errors import DeliveryFailed
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.jobs import overview, runner
from service.jobs import queue as durable
from service.jobs.job import Job, State
from service.pacs import delivery
from service.pacs.basic_profile import replaced_uid
from service.pacs.delivery import Doubt
from service.pacs.outbox import Letter, Outbox
from service.persistence import erasure, trail
from specialists.task import Rule

OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}
TYPE = {"content-type": 'multipart/related; type="application/dicom"; boundary=edge'}


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def url(archive: Archive) -> Iterator[str]:
    with listening(archive.app) as base:
        yield f"{base}/dicom-web"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once, and there are three."""
    monkeypatch.setattr(delivery, "RETRY", delivery.Retry(attempts=3, first_seconds=0.05))
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)


@asynccontextmanager
async def answering(home: Path, url: str, **more: Any) -> AsyncIterator[Service]:
    """A service that answers the PACS at this address."""
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    targets = [{"name": "pacs", "url": url, **more.pop("target", {})}, *more.pop("others", [])]
    sandbox, settings = Sandbox(Limits(), key=b"secret"), {"pseudonym_key": "secret", **more}
    async with a_service(
        home, intake=sandbox, in_sql=True, pacs_targets=targets, **settings
    ) as service:
        yield service


async def stow(service: Service, data: bytes | None = None) -> httpx.Response:
    data = dicom(**OF_A_CHEST) if data is None else data
    body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--edge--"
    return await service.client.post("/dicom-web/studies", content=body, headers=TYPE)


async def deliveries(home: Path) -> list[Job]:
    with a_queue(home) as queue:
        return list(await queue.read(overview.recent, {delivery.NAME}, list(State), 100))


async def settled(home: Path, state: State = State.SUCCEEDED, count: int = 1) -> list[Job]:
    """The deliveries, once all of them have come to this end; only those given up keep letters."""
    jobs = await until_told(
        lambda: deliveries(home),
        lambda jobs: len(jobs) == count and all(job.state is state for job in jobs),
    )
    await until(lambda: len(letters(home)) == (count if state is State.FAILED else 0))
    return jobs


def elsewhere(home: Path, letter: Path) -> list[bytes]:
    """What all other files hold."""
    return [path.read_bytes() for path in home.rglob("*") if path.is_file() and path != letter]


def letters(home: Path) -> list[Path]:
    return list((home / "spool" / "outbox").iterdir())


async def test_report_and_heat_map_come_back_into_the_study(
    home: Path, archive: Archive, url: str
) -> None:
    async with answering(home, url) as service:
        assert (await stow(service)).status_code == 200
        await settled(home)

    (report,), (capture,) = archive.of_modality("SR"), archive.of_modality("OT")
    assert {one.StudyInstanceUID for one in (report, capture)} == {"1.2.3"}
    assert str(report.PatientName) == NAME
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert letters(home) == []


async def test_a_lost_reply_leaves_one_object_with_the_same_bytes(
    home: Path, archive: Archive, url: str
) -> None:
    archive.deaf = 1
    async with answering(home, url) as service:
        await stow(service)
        (job,) = await settled(home)

    assert archive.asked == job.attempts == 2
    assert (len(archive.stored), archive.changed) == (2, [])


async def test_an_image_sent_again_is_answered_once(home: Path, archive: Archive, url: str) -> None:
    async with answering(home, url) as service:
        await stow(service)
        await settled(home)
        await stow(service)
        await settled(home)

    assert archive.asked == 1
    assert letters(home) == []


async def test_what_is_given_up_is_sent_when_the_image_comes_again(
    home: Path, archive: Archive, url: str
) -> None:
    archive.answers = [503, 0xA700, 401]
    async with answering(home, url) as service:
        await stow(service)
        (dead,) = await settled(home, State.FAILED)
        assert len(letters(home)) == 1
        await stow(service)
        await settled(home)

    assert dead.problem is not None
    assert dead.problem.detail == "target 'pacs' answered with status 401"
    assert len(archive.stored) == 2


async def test_what_is_refused_is_not_tried_again(home: Path, archive: Archive, url: str) -> None:
    archive.answers = [0xA900]
    async with answering(home, url) as service:
        await stow(service)
        (dead,) = await settled(home, State.FAILED)

    assert archive.asked == 1
    assert dead.problem is not None
    assert (dead.problem.error, dead.problem.detail) == (
        "DeliveryRefused",
        "target 'pacs' refuses an object: A900",
    )


async def test_an_object_that_is_there_already_has_arrived(
    home: Path, archive: Archive, url: str
) -> None:
    archive.answers = [0x0111]
    async with answering(home, url) as service:
        await stow(service)
        await settled(home)

    assert archive.asked == 1


async def test_a_letter_waits_for_the_next_service(home: Path, archive: Archive, url: str) -> None:
    archive.answers = [503]
    async with answering(home, url) as service:
        await stow(service)
        await until(lambda: archive.asked)
    assert archive.stored == {}

    async with answering(home, url):
        await settled(home)
    assert len(archive.stored) == 2


async def test_the_patient_is_in_the_letter_alone(home: Path, url: str, archive: Archive) -> None:
    archive.answers = [503] * 3
    stream = io.StringIO()
    telemetry.configure_logging("debug", stream=stream)
    async with answering(home, url) as service:
        await stow(service)
        await settled(home, State.FAILED)
    telemetry.configure_logging("warning", stream=io.StringIO())

    (letter,) = letters(home)
    assert letter.stat().st_mode & 0o777 == 0o600
    assert b"Doe^Jane" in letter.read_bytes()
    for told in [*elsewhere(home, letter), stream.getvalue().encode()]:
        assert b"Doe^Jane" not in told
        assert b"PatientName" not in told
    assert "1.2.3.4.5" not in stream.getvalue()


async def test_nobody_is_named_outside(home: Path, archive: Archive, url: str) -> None:
    async with answering(home, url, target={"outside": True}) as service:
        await stow(service, dicom(StudyDate="20260101", AccessionNumber="A-12", **OF_A_CHEST))
        await settled(home)

    for file, dataset in zip(archive.stored.values(), archive.datasets(), strict=True):
        assert not [told for told in (b"Doe", b"4711", b"A-12", b"1.2.3.4") if told in file]
        assert dataset.StudyInstanceUID == replaced_uid("1.2.3", b"secret")
        assert dataset.PatientIdentityRemoved == "YES"
        assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("GSCo", "gsco")
    assert len(archive.of_modality("SR")[0].ContentSequence) > 3


async def test_a_target_gets_the_sorts_it_wants(home: Path, archive: Archive, url: str) -> None:
    unsure = FakeGeneralist(script=[completion(("normal", "pneumonia"), "normal", 0.5)] * 2)
    wanted = {"objects": ["sr", "key-object"]}
    async with answering(home, url, target=wanted, generalist=unsure) as service:
        await stow(service)
        await settled(home)

    assert sorted(one.Modality for one in archive.datasets()) == ["KO", "SR"]


async def test_a_target_answers_its_senders_only(home: Path, archive: Archive, url: str) -> None:
    async with answering(home, url, target={"senders": ["ELSEWHERE"]}) as service:
        await stow(service)
        assert await deliveries(home) == []


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
async def test_an_image_of_a_source_is_answered_too(
    home: Path, archive: Archive, url: str, headers: dict[str, str]
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", "sop_instance_uid": "1.2.3.4.5"}
    with listening(Origin([dicom(**OF_A_CHEST)]).app) as base:
        sources = [{"name": "hospital", "url": f"{base}/dicom-web"}]
        async with answering(home, url, dicomweb_sources=sources) as service:
            reply = await service.client.post("/v1/diagnoses", json=named, headers=headers)
            assert reply.status_code in {201, 202}, reply.text
            await settled(home)

    assert [one.StudyInstanceUID for one in archive.datasets()] == ["1.2.3", "1.2.3"]
    assert letters(home) == []


async def test_an_upload_is_answered_to_its_caller_alone(
    home: Path, archive: Archive, url: str
) -> None:
    async with answering(home, url) as service:
        await service.diagnose(dicom(**OF_A_CHEST))
        assert await deliveries(home) == []


async def test_a_job_that_fails_leaves_no_letter(home: Path, archive: Archive, url: str) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", "sop_instance_uid": "1.2.3.4.5"}
    slow = FakeGeneralist(delay_seconds=60)
    with listening(Origin([dicom(**OF_A_CHEST)]).app) as base:
        sources = [{"name": "hospital", "url": f"{base}/dicom-web"}]
        async with answering(home, url, dicomweb_sources=sources, generalist=slow) as service:
            later = {"Prefer": "respond-async"}
            reply = await service.client.post("/v1/diagnoses", json=named, headers=later)
            assert len(letters(home)) == 1
            await service.client.delete(reply.headers["location"])
            await settled(home)
            assert letters(home) == []

    assert archive.asked == 0


async def test_what_is_erased_is_not_sent(home: Path, archive: Archive, url: str) -> None:
    archive.answers = [503] * 3
    async with answering(home, url) as service:
        await stow(service)
        (dead,) = await settled(home, State.FAILED)
        erasure.erase(service.engine, [dead.work.argument["result"]], "tester", "asked for")
        with a_queue(home) as queue:
            await queue.run(durable.resend, {delivery.NAME}, [dead.id])
        await until(lambda: not letters(home))

    assert archive.asked == 3
    assert archive.stored == {}


async def test_letters_that_nobody_will_send_are_forgotten(
    home: Path, archive: Archive, url: str
) -> None:
    archive.answers = [503] * 3
    async with answering(home, url) as service:
        await stow(service)
        (dead,) = await settled(home, State.FAILED)
        (letter,) = letters(home)
        left = letter.with_name("left-by-a-crash.letter")
        left.write_bytes(letter.read_bytes())
        os.utime(left, (0, 0))
    async with answering(home, url):  # whose housekeeping begins with the start
        await until(lambda: letters(home) == [letter])
    with a_queue(home) as queue:
        erasure.erase(queue.engine, [dead.work.argument["result"]], "tester", "asked for")
    async with answering(home, url):
        await until(lambda: letters(home) == [])


def test_a_target_that_did_not_answer_is_asked_for_one_letter_at_a_time() -> None:
    doubt = Doubt("pacs")

    with pytest.raises(DeliveryFailed, match="not there"), doubt.one_at_a_time():
        raise DeliveryFailed("not there")
    waits = pytest.raises(DeliveryFailed, match="another letter waits")
    with doubt.one_at_a_time(), waits, doubt.one_at_a_time():
        pass
    with doubt.one_at_a_time(), doubt.one_at_a_time():  # it has answered
        pass


async def test_one_pacs_that_hangs_does_not_keep_others_waiting(
    home: Path, archive: Archive, url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        reports, hangs = {"objects": ["sr"]}, {"name": "hangs", "url": hanging}
        others = [{**hangs, **reports, "timeout_seconds": 2}]
        async with answering(home, url, target=reports, others=others) as service:
            for number in range(12):
                image = dicom(SOPInstanceUID=f"1.2.3.4.{number + 1}", **OF_A_CHEST)
                assert (await stow(service, image)).status_code == 200
            await until(lambda: len(archive.stored) == 12)


async def test_that_patient_data_was_sent_is_told_before_it_is(
    home: Path, archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, failures = Outbox.replace, [OSError("killed here")]

    def once_killed(self: Outbox, id: str, letter: Letter) -> None:
        replace(self, id, letter)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Outbox, "replace", once_killed)
    async with answering(home, url) as service:
        await stow(service)
        await settled(home)
        sent = [one for _, one in trail.events(service.engine) if one.action == "sent"]

    assert len(archive.of_modality("SR")) == 1
    assert sent


async def test_room_is_bounded(home: Path, archive: Archive, url: str) -> None:
    archive.answers = [503] * 100
    async with answering(home, url, max_queued_jobs=1) as service:
        first = await stow(service)
        second = await stow(service, dicom(SOPInstanceUID="1.2.9.1", **OF_A_CHEST))

    assert (first.status_code, second.status_code) == (200, 503)
