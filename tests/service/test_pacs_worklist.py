"""Workitems of a worklist: claimed once, performed, told of; gone on with after a stop."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from archive import Archive
from builders import a_task, task_toml
from dicom_files import dicom
from dicomweb_origin import Origin
from fakes import FakeGeneralist
from listening import listening
from pydicom.dataelem import DataElement
from serving import Service, a_service
from ups_origin import IN_PROGRESS, UpsOrigin
from waiting import until

from service.api import performing as performing_module
from service.errors import GeneralistUnavailable, Misconfigured
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.jobs import runner
from service.pacs.ups import StepState, Worklist
from service.servers import UpsWorklist
from service.settings import read_settings
from specialists.task import Rule

OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}
INPUTS = 0x00404021  # InputInformationSequence
WORKITEM, STUDY, IMAGE = "1.2.8.1", "1.2.3", "1.2.3.4.5"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)


@pytest.fixture
def two_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After which a workitem is given up."""
    monkeypatch.setattr(performing_module, "MOST_ATTEMPTS", 2)


@pytest.fixture
def worklist() -> UpsOrigin:
    return UpsOrigin()


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def settings(worklist: UpsOrigin, archive: Archive) -> Iterator[dict[str, Any]]:
    """A worklist, the PACS with the images, and the one that results go to."""
    report = dicom(None, SOPInstanceUID="1.2.3.9.1", SeriesInstanceUID="1.2.3.9", Modality="SR")
    with (
        listening(worklist.app) as list_url,
        listening(Origin([dicom(**OF_A_CHEST), report]).app) as source_url,
        listening(archive.app) as target_url,
    ):
        yield {
            "dicomweb_sources": [{"name": "hospital", "url": f"{source_url}/dicom-web"}],
            "pacs_targets": [{"name": "pacs", "url": f"{target_url}/dicom-web"}],
            "ups_worklist": {
                "name": "ris",
                "url": list_url,
                "source": "hospital",
                "query": {"WorklistLabel": "GSCO"},
                "poll_seconds": 0.1,
            },
        }


@asynccontextmanager
async def performing(home: Path, settings: dict[str, Any], **more: Any) -> AsyncIterator[Service]:
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    sandbox = Sandbox(Limits(), key=b"secret")
    given = {"pseudonym_key": "secret", **settings, **more}
    async with a_service(home, intake=sandbox, in_sql=True, **given) as service:
        yield service


async def ended(worklist: UpsOrigin, uid: str = WORKITEM) -> Any:
    """What the workitem says, once it has ended."""
    one = worklist.workitems[uid]
    await until(lambda: one.history and one.state != IN_PROGRESS)
    return one.told


@pytest.mark.parametrize("instances", [(), (IMAGE,)])
async def test_workitem_is_completed_when_its_results_are_in_the_pacs(
    home: Path,
    worklist: UpsOrigin,
    archive: Archive,
    settings: dict[str, Any],
    instances: tuple[str, ...],
) -> None:
    worklist.schedule(WORKITEM, STUDY, *instances)
    async with performing(home, settings):
        told = await ended(worklist)

    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "COMPLETED"]
    (step,) = told.UnifiedProcedureStepPerformedProcedureSequence
    (output,) = step.OutputInformationSequence
    (report,) = archive.of_modality("SR")
    assert output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert (output.StudyInstanceUID, output.SeriesInstanceUID) == (STUDY, report.SeriesInstanceUID)
    assert output.WADORSRetrievalSequence[0].RetrieveURL.endswith(f"/dicom-web/studies/{STUDY}")
    assert told.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 100
    assert str(step.PerformedProcedureStepEndDateTime).endswith("+0000")
    assert {query["WorklistLabel"] for query in worklist.searched} == {"GSCO"}


@pytest.mark.parametrize(
    ("study", "instance", "reason"),
    [
        ("1.2.77", IMAGE, "source 'hospital' has no such instance, series or study"),
        (STUDY, "1.2.3.9.1", "the workitem names no image"),
        ("7.2.3", IMAGE, "study_instance_uid is not a DICOM unique identifier"),
    ],
)
async def test_workitem_that_cannot_be_done_is_canceled_with_the_reason(
    home: Path,
    worklist: UpsOrigin,
    archive: Archive,
    settings: dict[str, Any],
    study: str,
    instance: str,
    reason: str,
) -> None:
    worklist.schedule(WORKITEM, study, instance)
    async with performing(home, settings):
        told = await ended(worklist)

    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "CANCELED"]
    assert told.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == reason
    assert archive.stored == {}


async def test_workitem_that_is_none_is_canceled_and_stops_no_others(
    home: Path, worklist: UpsOrigin, archive: Archive, settings: dict[str, Any]
) -> None:
    worklist.schedule("1.2.8.0", STUDY, IMAGE)
    said = worklist.workitems["1.2.8.0"].told
    said[INPUTS] = DataElement(INPUTS, "LO", ["no sequence"])
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    async with performing(home, settings):
        await ended(worklist)

    assert worklist.workitems["1.2.8.0"].history == [IN_PROGRESS, "CANCELED"]
    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "COMPLETED"]


class LostWhenAsked(FakeGeneralist):
    """It says that it is well, and has no answer."""

    async def check(self) -> None:
        pass


@pytest.mark.usefixtures("two_attempts")
async def test_workitem_that_nobody_foresaw_stops_no_others_and_is_canceled_in_the_end(
    home: Path,
    worklist: UpsOrigin,
    archive: Archive,
    settings: dict[str, Any],
) -> None:
    worklist.schedule("1.2.8.0", STUDY, IMAGE)
    worklist.schedule(WORKITEM, STUDY, "1.2.3.9.1")
    broken = LostWhenAsked(failure=RuntimeError("broken"))
    async with performing(home, settings, generalist=broken):
        await ended(worklist, "1.2.8.0")
        await ended(worklist)

    assert worklist.workitems["1.2.8.0"].history == [IN_PROGRESS, "CANCELED"]
    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "CANCELED"]


async def test_a_long_worklist_is_read_beside_the_event_loop() -> None:
    person = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A"}]}}
    body = httpx.ByteStream(json.dumps([person] * 20_000).encode())
    long = httpx.MockTransport(lambda _: httpx.Response(200, stream=body))
    worklist = Worklist(UpsWorklist(name="ris", url="http://ris", source="pacs"), b"key", long)

    looking, turns = asyncio.create_task(worklist.search(StepState.SCHEDULED)), 0
    while not looking.done():
        await asyncio.sleep(0.005)
        turns += 1

    assert turns > 10


async def test_workitem_is_gone_on_with_by_the_next_service(
    home: Path, worklist: UpsOrigin, archive: Archive, settings: dict[str, Any]
) -> None:
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    slow = FakeGeneralist(delay_seconds=60)
    async with performing(home, settings, generalist=slow) as service:
        await until(lambda: service.generalist.asked)
    assert worklist.workitems[WORKITEM].state == IN_PROGRESS

    async with performing(home, settings):
        await ended(worklist)

    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "COMPLETED"]
    assert len(archive.of_modality("SR")) == 1


@pytest.mark.usefixtures("two_attempts")
@pytest.mark.parametrize("kind", [FakeGeneralist, LostWhenAsked])
async def test_workitem_waits_for_the_generalist_however_long(
    home: Path,
    worklist: UpsOrigin,
    archive: Archive,
    settings: dict[str, Any],
    kind: type[FakeGeneralist],
) -> None:
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    away = kind(failure=GeneralistUnavailable("away"))
    async with performing(home, settings, generalist=away) as service:
        await asyncio.sleep(1)
        claimed = worklist.workitems[WORKITEM].state
        service.generalist.failure = None
        await ended(worklist)

    assert claimed == (IN_PROGRESS if kind is LostWhenAsked else "SCHEDULED")
    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "COMPLETED"]


@pytest.mark.usefixtures("two_attempts")
async def test_workitem_that_waited_a_day_is_canceled(
    home: Path,
    worklist: UpsOrigin,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(performing_module, "PATIENCE_SECONDS", 0.3)
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    away = LostWhenAsked(failure=GeneralistUnavailable("away"))
    async with performing(home, settings, generalist=away):
        await ended(worklist)

    assert worklist.workitems[WORKITEM].history == [IN_PROGRESS, "CANCELED"]


@pytest.mark.usefixtures("two_attempts")
async def test_an_end_that_nobody_takes_is_not_told_for_ever(
    home: Path, worklist: UpsOrigin, settings: dict[str, Any]
) -> None:
    worklist.takes_no_end = True
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    async with performing(home, settings):
        await until(lambda: worklist.refused == 2)
        await asyncio.sleep(0.5)

    assert worklist.refused == 2


async def test_workitem_of_others_is_left_alone(
    home: Path, worklist: UpsOrigin, archive: Archive, settings: dict[str, Any]
) -> None:
    worklist.schedule("1.2.8.2", STUDY, IMAGE)
    theirs = worklist.workitems["1.2.8.2"]
    theirs.state, theirs.transaction = IN_PROGRESS, "1.2.7"
    worklist.schedule(WORKITEM, STUDY, IMAGE)
    async with performing(home, settings):
        await ended(worklist)

    assert (theirs.state, theirs.transaction, theirs.history) == (IN_PROGRESS, "1.2.7", [])


def test_worklist_needs_a_source_of_the_settings() -> None:
    worklist = {"name": "ris", "url": "http://ris", "source": "elsewhere"}
    with pytest.raises(Misconfigured, match="its source is not in GSCO_DICOMWEB_SOURCES"):
        read_settings(ups_worklist=worklist, pseudonym_key="secret")
