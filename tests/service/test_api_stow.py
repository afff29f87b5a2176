"""STOW-RS: a PACS posts images; each is diagnosed, or named with its reason."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from builders import a_task, task_toml
from databases import kept_in
from dicom_files import dicom
from dicomweb_client.api import DICOMwebClient
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists, FakeStore
from listening import listening
from pydicom import dcmread
from pydicom.dataset import Dataset
from serving import Service, a_service, problem_of

from service.api.dependencies import Parts
from service.app import create_app
from service.domain import Diagnosis
from service.errors import GeneralistUnavailable
from service.intake.limits import Limits
from service.intake.result import IntakeResult
from service.intake.sandbox import Sandbox
from service.pipeline import Pipeline
from service.settings import Settings
from specialists.task import Rule

TYPE = 'multipart/related; type="application/dicom"; boundary=edge'
OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}


@pytest.fixture
def ruled_home(home: Path) -> Path:
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    return home


@pytest.fixture
async def service(ruled_home: Path) -> AsyncIterator[Service]:
    async with a_service(ruled_home, intake=Sandbox(Limits()), pseudonym_key="secret") as running:
        yield running


def body(*instances: bytes) -> bytes:
    head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + one + b"\r\n" for one in instances) + b"--edge--"


async def stow(service: Service, *instances: bytes, address: str = "studies") -> httpx.Response:
    return await service.client.post(
        f"/dicom-web/{address}", content=body(*instances), headers={"content-type": TYPE}
    )


def answered(reply: httpx.Response) -> Dataset:
    assert reply.headers["content-type"] == "application/dicom+json"
    return Dataset.from_json(reply.text)


def test_independent_client_sends_a_study_and_reads_the_answer(ruled_home: Path) -> None:
    pipeline = Pipeline(FakeSpecialists(), FakeRetriever(), FakeGeneralist(), store := FakeStore())
    study = [dcmread(BytesIO(dicom(SOPInstanceUID=f"1.2.9.{n}", **OF_A_CHEST))) for n in (1, 2)]

    with kept_in(ruled_home) as kept:
        parts = Parts(
            pipeline,
            pipeline.specialists,  # type: ignore[arg-type]
            pipeline.retriever,  # type: ignore[arg-type]
            pipeline.generalist,  # type: ignore[arg-type]
            store,
            Sandbox(Limits()),
            *kept,
        )
        with listening(create_app(Settings(home=ruled_home), parts)) as url:
            answer = DICOMwebClient(f"{url}/dicom-web").store_instances(study)

    taken = [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence]
    assert taken == ["1.2.9.1", "1.2.9.2"]
    assert "FailedSOPSequence" not in answer
    assert len(store.saved) == 2


async def test_task_may_be_part_of_the_address(service: Service) -> None:
    reply = await stow(service, dicom(), address="cxr-pneumonia/studies")

    assert reply.status_code == 200
    assert len(answered(reply).ReferencedSOPSequence) == 1
    assert [one.task for one in service.store.saved.values()] == ["cxr-pneumonia"]


async def test_task_that_does_not_exist_is_a_problem(service: Service) -> None:
    assert problem_of(await stow(service, dicom(), address="none/studies")) == "unknown-task"


async def test_instance_that_cannot_be_used_is_named_and_the_others_are_taken(
    service: Service,
) -> None:
    sound = dicom(SOPInstanceUID="1.2.9.1", **OF_A_CHEST)
    torn = dicom(np.zeros((64, 64), np.uint8), SOPInstanceUID="1.2.9.2", **OF_A_CHEST)[:-900]

    reply = await stow(service, torn, sound, b"no dicom at all")

    answer = answered(reply)
    assert reply.status_code == 202
    assert [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence] == ["1.2.9.1"]
    (failed,) = answer.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2.9.2", 0xC000)
    assert [one.FailureReason for one in answer.OtherFailuresSequence] == [0xC000]
    assert "cut short" in reply.headers["warning"]


async def test_when_nothing_can_be_used_it_is_a_conflict(service: Service) -> None:
    reply = await stow(service, dicom(Modality="CT"))

    (failed,) = answered(reply).FailedSOPSequence
    assert reply.status_code == 409
    assert failed.FailureReason == 0xA900


async def test_own_results_are_taken_with_a_warning_and_not_diagnosed(service: Service) -> None:
    reply = await stow(service, dicom(Manufacturer="GSCo", ManufacturerModelName="gsco"))

    (taken,) = answered(reply).ReferencedSOPSequence
    assert reply.status_code == 200
    assert taken.WarningReason == 0xB006
    assert service.store.saved == {}


async def test_study_in_the_address_must_be_the_instances_own(service: Service) -> None:
    right = await stow(service, dicom(**OF_A_CHEST), address="studies/1.2.3")
    wrong = await stow(service, dicom(**OF_A_CHEST), address="studies/1.2.4")
    no_uid = await stow(service, dicom(**OF_A_CHEST), address="studies/x")

    assert [reply.status_code for reply in (right, wrong, no_uid)] == [200, 409, 422]


async def test_same_instance_again_is_answered_and_not_diagnosed_again(service: Service) -> None:
    once = await stow(service, dicom(**OF_A_CHEST))
    again = await stow(service, dicom(**OF_A_CHEST, InstanceNumber=7))

    assert once.json() == again.json()
    assert len(service.store.saved) == 1
    assert len(service.generalist.asked) == 2  # first look and arbitration, once


@pytest.mark.parametrize("later", [0.0, 0.3])
async def test_same_instance_sent_twice_at_once_is_diagnosed_once(
    ruled_home: Path, later: float
) -> None:
    slow, image = FakeGeneralist(delay_seconds=0.2), dicom(**OF_A_CHEST)

    async def sent(after: float) -> httpx.Response:
        await asyncio.sleep(after)
        return await stow(service, image)

    async with a_service(
        ruled_home, intake=Sandbox(Limits()), generalist=slow, in_sql=True, pseudonym_key="secret"
    ) as service:
        await service.settled()
        replies = await asyncio.gather(*(sent(later * number) for number in range(3)))

    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert len(slow.asked) == 2  # at first, and with the evidence


async def test_without_the_generalist_the_sender_keeps_the_images(ruled_home: Path) -> None:
    nobody = FakeGeneralist(failure=GeneralistUnavailable("no generalist"))
    async with a_service(ruled_home, intake=Sandbox(Limits()), generalist=nobody) as service:
        reply = await stow(service, dicom(**OF_A_CHEST))

    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "5"
    assert problem_of(reply) == "overloaded"


async def test_sender_waits_for_specialists_that_are_still_being_loaded(ruled_home: Path) -> None:
    slow = FakeSpecialists(load_seconds=60)
    async with a_service(ruled_home, intake=Sandbox(Limits()), specialists=slow) as service:
        reply = await stow(service, dicom(**OF_A_CHEST))

    assert reply.status_code == 503
    assert "being loaded" in reply.json()["detail"]
    assert service.store.saved == {}


async def test_what_is_diagnosed_is_handed_over_to_be_answered(ruled_home: Path) -> None:
    handed: list[tuple[Diagnosis, Any, Any]] = []

    async def deliver(diagnosis: Diagnosis, received: IntakeResult) -> None:
        handed.append((diagnosis, received.instance, received.header))

    async with a_service(ruled_home, intake=Sandbox(Limits()), deliver=deliver) as service:
        await stow(service, dicom(**OF_A_CHEST))

    ((diagnosis, instance, header),) = handed
    assert diagnosis.task == "cxr-pneumonia"
    assert (instance.study_instance_uid, instance.sop_instance_uid) == ("1.2.3", "1.2.3.4.5")
    assert Dataset.from_json(header).PatientID == "4711"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (body(), {"content-type": TYPE}, 400),
        (b"--edge\r\n", {"content-type": TYPE}, 400),
        (b"nonsense", {"content-type": TYPE}, 400),
        (b"{}", {"content-type": "application/dicom+json"}, 415),
        (body(b""), {"content-type": "multipart/related"}, 415),
        (body(dicom()), {"content-type": TYPE, "accept": "application/dicom+xml"}, 406),
    ],
)
async def test_bodies_of_another_kind_are_refused(
    service: Service, content: bytes, headers: dict[str, str], status: int
) -> None:
    reply = await service.client.post("/dicom-web/studies", content=content, headers=headers)

    assert reply.status_code == status
    assert problem_of(reply)


async def test_sizes_are_bounded_for_an_instance_and_for_all(ruled_home: Path) -> None:
    limits = {"max_upload_bytes": 4000, "stow_max_bytes": 8000}
    async with a_service(ruled_home, intake=Sandbox(Limits()), **limits) as service:
        small = [dicom(SOPInstanceUID=f"1.2.9.{n}", **OF_A_CHEST) for n in range(2)]
        fits = await stow(service, *small)
        too_large = await stow(service, dicom(np.zeros((64, 64), np.uint16)))
        too_many = await stow(service, *small, *small)

    assert [reply.status_code for reply in (fits, too_large, too_many)] == [200, 413, 413]


async def test_first_instance_is_diagnosed_before_the_last_has_come(service: Service) -> None:
    whole = body(*(dicom(SOPInstanceUID=f"1.2.9.{n}", **OF_A_CHEST) for n in (1, 2)))
    half = len(whole) // 2 + 300
    seen: list[int] = []

    async def slowly() -> AsyncIterator[bytes]:
        yield whole[:half]
        async with asyncio.timeout(10):
            while not service.store.saved:  # noqa: ASYNC110 - a fake has no bell
                await asyncio.sleep(0.01)
        seen.append(len(service.store.saved))
        yield whole[half:]

    reply = await post_slowly(service, slowly())

    assert reply == 200
    assert seen == [1]


async def post_slowly(service: Service, pieces: AsyncIterator[bytes]) -> int:
    """Speaks ASGI itself: httpx's transport would collect the body first."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        try:
            return {"type": "http.request", "body": await anext(pieces), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/dicom-web/studies",
        "raw_path": b"/dicom-web/studies",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", TYPE.encode()), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    await service.app(scope, receive, send)  # type: ignore[arg-type]
    return int(sent[0]["status"])
