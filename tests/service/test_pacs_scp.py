"""C-STORE: who may send, what becomes of it, and what an ill-meaning peer cannot do."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import a_task, task_toml
from dicom_files import dicom
from fakes import FakeGeneralist, FakeStore
from listening import free_port
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage
from pynetdicom import AE
from serving import Service, a_service
from sqlalchemy.exc import OperationalError

from service.errors import GeneralistUnavailable, Misconfigured
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.pacs.scp import Address, StoreScp
from specialists.task import Rule

# pynetdicom's requestor drops the socket of a peer that hung up first without closing it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def port() -> int:
    return free_port()


@asynccontextmanager
async def receiving(home: Path, port: int, **more: Any) -> AsyncIterator[Service]:
    """A service that takes what TESTSCU sends, for two AE titles."""
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    settings: dict[str, Any] = {
        "dicom_port": port,
        "dicom_peers": "TESTSCU=127.0.0.1",
        "dicom_ae_titles": "GSCO; CXR=cxr-pneumonia",
        "pseudonym_key": "secret",
        **more,
    }
    async with a_service(home, intake=Sandbox(Limits()), **settings) as service:
        yield service


async def send(
    port: int, *files: bytes, called: str = "GSCO", calling: str = "TESTSCU"
) -> list[tuple[int, str]]:
    """Status and comment of each C-STORE; none where the association is refused."""
    return await asyncio.to_thread(_send, port, files, called, calling)


def _send(port: int, files: tuple[bytes, ...], called: str, calling: str) -> list[tuple[int, str]]:
    entity = AE(ae_title=calling)
    datasets = [dcmread(BytesIO(file)) for file in files]
    entity.add_requested_context(VERIFICATION)
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    answers = [association.send_c_store(dataset) for dataset in datasets]
    if not files:
        answers = [association.send_c_echo()]
    association.release()
    return [(answer.get("Status", -1), answer.get("ErrorComment", "")) for answer in answers]


async def test_image_is_diagnosed_before_success_is_answered(home: Path, port: int) -> None:
    async with receiving(home, port) as service:
        assert await send(port, dicom(**OF_A_CHEST)) == [(0, "")]

        (saved,) = service.store.saved.values()
        assert saved.task == "cxr-pneumonia"


async def test_called_ae_title_chooses_the_task(home: Path, port: int) -> None:
    async with receiving(home, port) as service:
        by_title, by_rule = [await send(port, dicom(), called=c) for c in ("CXR", "GSCO")]

        assert by_title == [(0, "")]
        assert by_rule == [(0xA900, "no task has a rule for this image (CR): name a task")]
        assert len(service.store.saved) == 1


async def test_echo_is_answered(home: Path, port: int) -> None:
    async with receiving(home, port):
        assert await send(port) == [(0, "")]


@pytest.mark.parametrize(
    ("called", "calling", "peers"),
    [
        ("GSCO", "STRANGER", "TESTSCU=127.0.0.1"),
        ("ELSE", "TESTSCU", "TESTSCU=127.0.0.1"),
        ("GSCO", "TESTSCU", "TESTSCU=10.9.8.7; OTHER=127.0.0.1"),
        ("GSCO", "TESTSCU", "TESTSCU=10.9.8.7"),
    ],
)
async def test_only_known_peers_at_known_addresses_may_send(
    home: Path, port: int, called: str, calling: str, peers: str
) -> None:
    async with receiving(home, port, dicom_peers=peers) as service:
        assert await send(port, dicom(**OF_A_CHEST), called=called, calling=calling) == []
        assert service.store.saved == {}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (dicom(Rows=60_000, Columns=60_000, **OF_A_CHEST), 0xC001),
        (dicom(Columns=33, **OF_A_CHEST), 0xC000),
        (dicom(None, SOPClassUID=BasicTextSRStorage), 0xA900),
        (dicom(Manufacturer="GSCo", ManufacturerModelName="gsco", **OF_A_CHEST), 0xB006),
    ],
)
async def test_what_cannot_be_diagnosed_has_its_status(
    home: Path, port: int, data: bytes, status: int
) -> None:
    async with receiving(home, port) as service:
        ((answered, comment),) = await send(port, data)

        assert answered == status
        assert comment
        assert service.store.saved == {}


async def test_association_goes_on_after_an_image_that_failed(home: Path, port: int) -> None:
    async with receiving(home, port) as service:
        broken = dicom(Columns=33, SOPInstanceUID="1.2.9.1", **OF_A_CHEST)
        statuses = await send(port, broken, dicom(**OF_A_CHEST))

        assert [status for status, _ in statuses] == [0xC000, 0]
        assert len(service.store.saved) == 1


@pytest.mark.parametrize(
    ("away", "comment"),
    [
        (
            {"generalist": FakeGeneralist(failure=GeneralistUnavailable("no generalist"))},
            "no generalist",
        ),
        (
            {"store": FakeStore(failure=OperationalError("COMMIT", {}, OSError("disk full")))},
            "the database does not answer",
        ),
    ],
)
async def test_without_generalist_or_database_the_sender_is_told_to_come_again(
    home: Path, port: int, away: dict[str, Any], comment: str
) -> None:
    async with receiving(home, port, **away):
        assert await send(port, dicom(**OF_A_CHEST)) == [(0xA700, comment)]


async def test_four_associations_at_once(home: Path, port: int) -> None:
    async with receiving(home, port) as service:
        files = [dicom(SOPInstanceUID=f"1.2.9.{n}", **OF_A_CHEST) for n in range(1, 13)]
        answers = await asyncio.gather(*(send(port, *files[n::4]) for n in range(4)))

        assert [status for answer in answers for status, _ in answer] == [0] * 12
        assert len(service.store.saved) == 12


async def test_association_that_sends_without_end_is_ended(home: Path, port: int) -> None:
    async with receiving(home, port, max_upload_bytes=100_000) as service:
        large = dicom(np.zeros((512, 512), np.uint16), **OF_A_CHEST)

        assert await send(port, large) == [(-1, "")]
        assert await send(port, dicom(**OF_A_CHEST)) == [(0, "")]
        assert len(service.store.saved) == 1


async def test_length_that_nobody_could_mean_is_not_read(home: Path, port: int) -> None:
    async with receiving(home, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(struct.pack(">BBL", 1, 0, 2**31) + bytes(1000))

        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_association_outlives_a_diagnosis_that_takes_longer_than_silence_may(
    port: int,
) -> None:
    async def receive(data: bytes, task: str, sender: str) -> None:
        await asyncio.sleep(1.2)

    address = Address("127.0.0.1", port, {"GSCO": ""}, {"TESTSCU": "127.0.0.1"}, timeout_seconds=1)
    scp = StoreScp(address, receive)
    await scp.start()
    try:
        assert await send(port, dicom(), dicom()) == [(0, ""), (0, "")]
    finally:
        await scp.close()


async def test_closing_gives_up_what_is_being_diagnosed(home: Path, port: int) -> None:
    slow = FakeGeneralist(delay_seconds=60)
    async with receiving(home, port, generalist=slow) as service:
        sending = asyncio.create_task(send(port, dicom(**OF_A_CHEST)))
        async with asyncio.timeout(20):
            while not service.generalist.asked:  # noqa: ASYNC110 - a fake has no bell
                await asyncio.sleep(0.01)
        began = time.monotonic()

    assert time.monotonic() - began < 10
    assert (await sending)[0][0] in (0xA700, -1)
    assert service.store.saved == {}


async def test_port_in_use_stops_the_start() -> None:
    async def receive(data: bytes, task: str, sender: str) -> None: ...

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        scp = StoreScp(Address("127.0.0.1", port, {"GSCO": ""}, {"A": "127.0.0.1"}), receive)
        with pytest.raises(Misconfigured, match=f"cannot receive DICOM on 127.0.0.1:{port}"):
            await scp.start()
