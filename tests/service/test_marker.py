"""Whatever a file says in words stays at the door: database, logs, prompts, figures, files."""

import asyncio
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from dicomweb_origin import Origin
from listening import free_port, listening
from pydicom import dcmread
from pynetdicom import AE
from seeded import MARKER, MARKERS, UID_ROOT, seeded_file
from serving import Service, a_service

from service.errors import GeneralistUnavailable
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.persistence.database import open_engine, upgrade
from service.persistence.store import SqlStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

UIDS = f"{UID_ROOT}."
LARGE = 1100  # pixels a side: more than a megabyte, which web frameworks put into a file
TASK = {"task": "cxr-pneumonia"}
TYPE = {"content-type": 'multipart/related; type="application/dicom"; boundary=edge'}

_watched: list[set[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[2], int):
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and not isinstance(arguments[0], int):
            _watched[-1].add(os.fsdecode(arguments[0]))


sys.addaudithook(_watch)  # cannot be taken away again; it sleeps unless something is watched


@contextmanager
def watching() -> Iterator[set[str]]:
    """Every path that this process opens to write, temporary files without a name included."""
    _watched.append(paths := set())
    try:
        yield paths
    finally:
        _watched.pop()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files would be."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def pacs() -> Origin:
    return Origin([seeded_file(LARGE)])


@asynccontextmanager
async def serving(home: Path, pacs: Origin, port: int) -> AsyncIterator[Service]:
    """A service with a real database and real decoding, and every door open."""
    engine = open_engine(f"sqlite:///{home / 'gsco.db'}")
    upgrade(engine)
    with listening(pacs.app) as url:
        async with a_service(
            home,
            intake=Sandbox(Limits(), key=b"secret"),
            store=SqlStore(engine),  # type: ignore[arg-type]
            pseudonym_key="secret",
            dicom_port=port,
            dicom_peers="TESTSCU=127.0.0.1",
            dicom_ae_titles="GSCO=cxr-pneumonia",
            dicomweb_sources=[{"name": "hospital", "url": f"{url}/dicom-web"}],
        ) as service:
            yield service
    engine.dispose()


async def through_every_door(service: Service, port: int) -> dict[str, str]:
    """What is answered to the same file, sound and torn, at each door."""
    sound, torn = seeded_file(LARGE), seeded_file(LARGE)[:-1000]
    named = {"source": "hospital", "study_instance_uid": f"{UIDS}1", **TASK}
    replies = {
        "upload": await upload(service, sound, **TASK),
        "upload of a torn file": await upload(service, torn, **TASK),
        "upload without a task": await upload(service, sound),
        "source": await service.client.post("/v1/diagnoses", json=named),
        "STOW-RS": await stow(service, sound),
        "STOW-RS of a torn file": await stow(service, torn),
        "frame": await upload(service, sound, to="/v1/frames"),
        "worklist": await service.client.get("/v1/diagnoses"),
        "figures": await service.client.get("/metrics"),
    }
    # Names the patient to who sent the file, and to nobody else.
    beside = await upload(service, sound, to=f"{replies['upload'].headers['location']}/results")
    assert beside.status_code == 200
    answers = {door: f"{reply.headers}{reply.text}" for door, reply in replies.items()}
    sent = await asyncio.to_thread(c_store, port, (sound, seeded_file(8)))
    return answers | {"C-STORE": sent}


async def upload(service: Service, data: bytes, *, to: str = "/v1/diagnoses", **fields: str) -> Any:
    files = {"file": (f"{MARKER}.dcm", data)}
    return await service.client.post(to, files=files, data=fields)


async def stow(service: Service, data: bytes) -> Any:
    body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--edge--"
    address = "/dicom-web/cxr-pneumonia/studies"
    return await service.client.post(address, content=body, headers=TYPE)


def c_store(port: int, files: tuple[bytes, ...]) -> str:
    entity = AE(ae_title="TESTSCU")
    datasets = [dcmread(BytesIO(file)) for file in files]
    entity.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="GSCO")
    answers = [association.send_c_store(dataset) for dataset in datasets]
    association.release()
    return " ".join(f"{answer.Status:04x} {answer.get('ErrorComment')}" for answer in answers)


async def test_nothing_that_a_file_says_of_a_patient_gets_beyond_the_door(
    home: Path,
    pacs: Origin,
    log: io.StringIO,
    scratch: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    async with serving(home, pacs, port) as service:
        with watching() as opened:
            answers = await through_every_door(service, port)
        asked = service.generalist.asked
        prompts = "".join(f"{prompt.text}{prompt.choices}{prompt.image!r}" for prompt in asked)

    printed = "".join(capfd.readouterr())
    places = answers | {"log": log.getvalue(), "prompts": prompts, "printed": printed}
    places |= {f"file {path.name}": contents(path) for path in files_in(home, scratch)}

    assert len(asked) >= 4
    assert answers["C-STORE"].startswith("0000 None a900")
    assert "gsco.db" in " ".join(places)
    for place, text in places.items():
        found = [marker for marker in MARKERS if marker in without_answer(place, text)]
        assert not found, f"{place} repeats {found}"
    assert {Path(path).name for path in opened} <= {"gsco.db", "gsco.db-wal", "gsco.db-shm", "null"}


async def test_a_job_that_waits_keeps_nothing_that_its_file_says(
    home: Path, pacs: Origin, log: io.StringIO, scratch: Path
) -> None:
    async with serving(home, pacs, free_port()) as service:
        service.generalist.failure = GeneralistUnavailable("away")
        accepted = await service.ask_for_job(seeded_file(LARGE))
        job = await service.client.get(accepted.headers["location"])

    places = {"job": job.text, "log": log.getvalue()}
    places |= {f"file {path.name}": contents(path) for path in files_in(home, scratch)}
    assert [name for name in places if name.endswith(".case")]
    for place, text in places.items():
        assert not [marker for marker in MARKERS if marker in text], place


def without_answer(place: str, text: str) -> str:
    """A PACS, and who named a study, are answered with the identifiers they sent."""
    return (
        text.replace(UIDS, "") if place in ("source", "STOW-RS", "STOW-RS of a torn file") else text
    )


def files_in(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def contents(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def test_the_marker_is_everywhere_in_the_file() -> None:
    dataset = dcmread(BytesIO(seeded_file()))

    marked = [element for element in dataset.iterall() if MARKER in str(element.value)]

    assert len(marked) > 3000
    assert {"PatientName", "PatientComments", "StudyDescription", "BodyPartExamined"} <= {
        element.keyword for element in marked
    }


async def test_the_search_would_find_it(log: io.StringIO) -> None:
    structlog.get_logger("service").info("leak", study=MARKER)

    assert MARKER in log.getvalue()
