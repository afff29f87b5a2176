"""What a PACS answers decides whether a result has arrived, is sent again, or is given up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from builders import a_task, sha256_of
from dicom_files import dicom
from listening import free_port
from pacs_objects import a_header, an_explanation, read_back, told_everywhere
from PIL import Image, ImageDraw
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import AE, evt

from service.domain import Diagnosis
from service.errors import DeliveryFailed, DeliveryRefused, Misconfigured
from service.pacs import answer
from service.pacs.outbox import Letter
from service.pacs.targets import AeTarget, StowTarget
from service.servers import PacsTarget
from service.settings import read_settings
from specialists.prediction import Segmentation
from specialists.task import Concept, Label

# pynetdicom drops the socket of a peer that hung up first without closing it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

Reply = Callable[[httpx.Request], httpx.Response]


def stow(reply: Reply) -> StowTarget:
    settings = PacsTarget(name="pacs", url="http://pacs/dicom-web", user="u", password="p")
    return StowTarget(settings, httpx.MockTransport(reply))


INFINITE = '{"00081198": {"vr": "SQ", "Value": [{"00081197": {"Value": [Infinity]}}]}}'


def failing(status: int, reason: object) -> Reply:
    failed = {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}
    return lambda _: httpx.Response(status, json={"00081198": failed})


@pytest.mark.parametrize(
    "reply",
    [
        lambda _: httpx.Response(200, json={"00081198": {"vr": "SQ"}}),
        lambda _: httpx.Response(200, text="<NativeDicomModel/>"),
        lambda _: httpx.Response(200),
        failing(409, 0x0111),
    ],
)
async def test_what_stow_has_taken_has_arrived(reply: Reply) -> None:
    await stow(reply).send([dicom()])


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (failing(409, 0xA700), DeliveryFailed),
        (failing(202, 0x0110), DeliveryFailed),
        (failing(200, "A700"), DeliveryFailed),
        (lambda _: httpx.Response(202, text="<NativeDicomModel/>"), DeliveryFailed),
        (lambda _: httpx.Response(202), DeliveryFailed),
        (failing(200, 10**400), DeliveryFailed),
        (lambda _: httpx.Response(200, text=INFINITE), DeliveryFailed),
        (lambda _: httpx.Response(503, content=b"[" * 1_000_000), DeliveryFailed),
        (failing(409, 0xC000), DeliveryRefused),
        (lambda _: httpx.Response(503), DeliveryFailed),
        (lambda _: httpx.Response(401), DeliveryFailed),
        (lambda _: httpx.Response(302, headers={"location": "http://else"}), DeliveryFailed),
        (lambda _: httpx.Response(415), DeliveryRefused),
    ],
)
async def test_what_stow_has_not_taken_is_sent_again_where_that_may_help(
    reply: Reply, kind: type[DeliveryFailed]
) -> None:
    with pytest.raises(DeliveryFailed) as raised:
        await stow(reply).send([dicom()])

    assert type(raised.value) is kind
    assert "1.2.3" not in str(raised.value)


async def test_a_pacs_that_is_away_is_named_without_its_address() -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(str(request.url))

    with pytest.raises(DeliveryFailed, match=r"^target 'pacs' cannot be reached: ConnectError$"):
        await stow(reply).send([dicom()])


@contextmanager
def a_storage_scp(*statuses: int) -> Iterator[tuple[AeTarget, list[str]]]:
    """A target that answers with these statuses in turn, then always with success."""
    answers, stored, port = list(statuses), [], free_port()

    def store(event: Any) -> int:
        stored.append(str(event.dataset.SOPInstanceUID))
        return answers.pop(0) if answers else 0

    entity = AE(ae_title="PACS")
    entity.add_supported_context(ComputedRadiographyImageStorage)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    settings = PacsTarget(
        name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_seconds=5
    )
    try:
        yield AeTarget(settings), stored
    finally:
        server.shutdown()  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0x0111])
async def test_what_an_scp_has_taken_has_arrived(status: int) -> None:
    with a_storage_scp(status) as (target, stored):
        await target.send([dicom(), dicom(SOPInstanceUID="1.2.9.1")])

    assert stored == ["1.2.3.4.5", "1.2.9.1"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xA700, DeliveryFailed), (0x0110, DeliveryFailed), (0xA900, DeliveryRefused)],
)
async def test_what_an_scp_has_not_taken_is_sent_again_where_that_may_help(
    status: int, kind: type[DeliveryFailed]
) -> None:
    with a_storage_scp(status) as (target, _), pytest.raises(DeliveryFailed) as raised:
        await target.send([dicom()])

    assert type(raised.value) is kind


async def test_an_scp_that_does_not_know_us_or_is_away_is_tried_again() -> None:
    settings = PacsTarget(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port())

    with pytest.raises(DeliveryFailed, match="cannot be reached, or knows us not"):
        await AeTarget(settings).send([dicom()])


async def test_an_scp_that_takes_no_such_objects_is_not_tried_again() -> None:
    with a_storage_scp() as (target, _), pytest.raises(DeliveryFailed):
        await target.send([dicom(None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")])


@pytest.mark.parametrize(
    "target",
    [
        {"name": "pacs"},
        {"name": "pacs", "url": "http://pacs", "ae_title": "PACS", "host": "pacs"},
        {"name": "pacs", "ae_title": "PACS"},
        {"name": "pacs", "url": "http://pacs", "objects": ["fhir"]},
        {"name": "pacs", "url": "http://pacs", "outside": True},
    ],
)
def test_a_target_has_one_address_and_sorts_that_there_are(target: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="GSCO_PACS_TARGETS"):
        read_settings(pacs_targets=[target])


def a_segmented_diagnosis() -> tuple[Diagnosis, Letter]:
    """What a letter holds after a segmentation specialist has outlined the upper left."""
    diagnosis, header = told_everywhere("fine"), a_header().to_json_dict()
    chances = np.zeros((4, 4), np.float32)
    chances[:2, :2] = 1
    outlined = Segmentation("unet", "lesion", sha256_of("unet"), 0.25, 1, ("upper left",), 0.9)
    evidence = replace(diagnosis.evidence, segmentations=(outlined,))
    pixels = np.zeros((32, 24, 3), np.uint8)
    return replace(diagnosis, evidence=evidence), Letter(
        diagnosis.id, 1, header, pixels, (chances,)
    )


def test_every_sort_is_written_where_it_is_wanted() -> None:
    diagnosis, letter = a_segmented_diagnosis()
    task = a_task(segment=Label("lesion", Concept("SCT", "52988006", "Lesion")))
    wanted = ("sr", "capture", "segmentation", "key-object")

    made = answer.objects(diagnosis, letter, task, [an_explanation()], wanted)
    again = answer.objects(diagnosis, letter, task, [an_explanation()], wanted)

    assert [read_back(one).Modality for one in made] == ["SR", "OT", "SEG", "KO"]
    assert made == again
    mask = read_back(made[2]).pixel_array
    assert mask.shape == (32, 24)
    assert mask[:12, :9].all()
    assert not mask[20:].any()


@pytest.mark.parametrize(
    ("text", "said", "sorts"),
    [
        ("", None, ["SR", "OT", "KO"]),
        ("", "YES", ["SR", "KO"]),
        ("DOE JANE 1947-08-11", None, ["SR", "KO"]),
        ("DOE JANE 1947-08-11", "NO", ["SR", "OT", "KO"]),
    ],
)
def test_no_picture_goes_outside_that_may_show_a_name(
    text: str, said: str | None, sorts: list[str]
) -> None:
    canvas = Image.new("RGB", (300, 200), (60, 60, 60))
    ImageDraw.Draw(canvas).text((8, 8), text, fill="white")
    about = told_everywhere("fine")
    header = a_header(BurnedInAnnotation=said).to_json_dict()
    letter = Letter(about.id, 1, header, np.asarray(canvas))
    wanted = ("sr", "capture", "key-object")

    made = answer.objects(about, letter, a_task(), [an_explanation()], wanted, b"key")
    inside = answer.objects(about, letter, a_task(), [an_explanation()], wanted)

    assert [read_back(one).Modality for one in made] == sorts
    assert [read_back(one).Modality for one in inside] == ["SR", "OT", "KO"]


def test_an_image_without_identifiers_cannot_be_answered() -> None:
    diagnosis, letter = a_segmented_diagnosis()
    nameless = Letter(letter.result, header={"00100010": {"vr": "PN", "Value": []}})

    with pytest.raises(DeliveryRefused, match="lacks identifiers"):
        answer.objects(diagnosis, nameless, a_task(), (), ("sr",))
    with pytest.raises(DeliveryRefused, match="lacks identifiers"):
        answer.objects(diagnosis, nameless, a_task(), (), ("sr",), b"key")
