"""A DICOMweb source: searched, read, and never trusted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from dicom_files import RAMP, dicom
from dicomweb_origin import Origin, elsewhere
from listening import listening
from starlette.responses import Response, StreamingResponse

from service.errors import ImageTooLarge, InvalidInput, NotFound, SourceUnavailable
from service.intake.decoder import decode
from service.pacs.client import DicomwebClient, Found, Reference
from service.servers import DicomwebSource

STUDY = Reference("1.2.3")


@pytest.fixture
def origin() -> Origin:
    return Origin([dicom(SOPInstanceUID=f"1.2.3.4.{number}") for number in (5, 6)])


@pytest.fixture
def url(origin: Origin) -> Iterator[str]:
    with listening(origin.app) as base:
        yield f"{base}/dicom-web"


Connect = Callable[..., DicomwebClient]


@pytest.fixture
async def connect(url: str) -> AsyncIterator[Connect]:
    """Clients of the origin, or of another address; closed in the end."""
    clients: list[DicomwebClient] = []

    def to(address: str = url, max_instance_bytes: int = 2**20, **more: object) -> DicomwebClient:
        source = DicomwebSource(name="hospital", url=address, **more)  # type: ignore[arg-type]
        clients.append(DicomwebClient(source, max_instance_bytes=max_instance_bytes))
        return clients[-1]

    yield to
    for client in clients:
        await client.close()


async def test_images_of_a_study_are_found_and_read(connect: Connect) -> None:
    client = connect()

    found = await client.instances(STUDY)
    data = await client.read("1.2.3", found[1])

    assert [one.sop_instance_uid for one in found] == ["1.2.3.4.5", "1.2.3.4.6"]
    assert decode(data).instance.sop_instance_uid == "1.2.3.4.6"


async def test_a_source_that_passes_over_what_it_was_asked_gives_no_other_image(
    connect: Connect, origin: Origin
) -> None:
    origin.careless = True

    (found,) = await connect().instances(Reference("1.2.3", None, "1.2.3.4.6"))

    assert found.sop_instance_uid == "1.2.3.4.6"
    for none in (Reference("1.2.3", None, "1.2.3.4.7"), Reference("1.2.3", "1.2.3.9")):
        with pytest.raises(NotFound):
            await connect().instances(none)


async def test_one_instance_is_found_without_its_series(connect: Connect) -> None:
    (found,) = await connect().instances(Reference("1.2.3", None, "1.2.3.4.6"))

    assert found == Found("1.2.3.4", "1.2.3.4.6", "1.2.840.10008.5.1.4.1.1.1", "CR")


@pytest.mark.parametrize(
    ("secret", "sent"),
    [({"user": "u", "password": "p"}, "Basic dTpw"), ({"token": "t"}, "Bearer t")],
)
async def test_source_is_told_who_asks(
    connect: Connect, origin: Origin, secret: dict[str, str], sent: str
) -> None:
    await connect(**secret).instances(STUDY)

    assert origin.authorizations == [sent]


async def test_nothing_is_not_found(connect: Connect) -> None:
    with pytest.raises(NotFound, match="'hospital' has no such"):
        await connect().instances(Reference("2.9"))
    with pytest.raises(NotFound):
        await connect().read("1.2.3", Found("1.2.3.4", "2.9", "", ""))


@pytest.mark.parametrize("uid", ["../../admin", "1.2/3", "1.2?x=1", "", "1." * 40])
def test_only_identifiers_get_into_an_address(uid: str) -> None:
    with pytest.raises(InvalidInput, match="is not a DICOM unique identifier"):
        Reference(uid)


async def test_redirects_are_not_followed(connect: Connect, origin: Origin) -> None:
    with listening(Origin().app) as other:
        origin.answer = elsewhere(f"{other}/dicom-web/studies/1.2.3/instances")

        with pytest.raises(SourceUnavailable, match="answered with status 307"):
            await connect().instances(STUDY)


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>sign in</html>", media_type="text/html"),
        Response('{"a": 1}'),
        Response('[{"0020000E": {"vr": "UI", "Value": ["../evil"]}}]'),
        Response("[" + " " * 5_000_000 + "]"),
        Response("[" * 1_000_000),
    ],
)
async def test_answers_that_are_no_dicomweb_are_refused(
    connect: Connect, origin: Origin, answer: Response
) -> None:
    origin.answer = answer

    with pytest.raises(SourceUnavailable, match="something else than DICOMweb"):
        await connect().instances(STUDY)


async def test_page_instead_of_an_instance_is_refused(connect: Connect, origin: Origin) -> None:
    (found, _) = await connect().instances(STUDY)
    origin.answer = Response("<html>sign in</html>", media_type="text/html")

    with pytest.raises(SourceUnavailable, match="something else than DICOMweb"):
        await connect().read("1.2.3", found)


async def test_instance_that_is_too_large_is_given_up(connect: Connect) -> None:
    client = connect(max_instance_bytes=RAMP.nbytes)
    (found, _) = await client.instances(STUDY)

    with pytest.raises(ImageTooLarge):
        await client.read("1.2.3", found)


async def test_more_instances_than_anybody_looks_at_are_refused(
    connect: Connect, origin: Origin
) -> None:
    origin.files = [dicom(SOPInstanceUID=f"1.2.3.4.{number}") for number in range(1, 66)]

    with pytest.raises(InvalidInput, match="more than 64 instances"):
        await connect().instances(STUDY)


async def test_source_that_is_down_is_unavailable_and_no_identifier_is_told(
    connect: Connect,
) -> None:
    client = connect("http://127.0.0.1:9/dicom-web")

    with pytest.raises(SourceUnavailable, match="does not answer: ConnectError") as caught:
        await client.instances(STUDY)

    assert "1.2.3" not in str(caught.value)


async def test_source_that_trickles_is_not_waited_for(connect: Connect, origin: Origin) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    origin.answer = StreamingResponse(trickle())

    with pytest.raises(SourceUnavailable, match="does not answer: TimeoutError"):
        await connect(timeout_seconds=0.5).instances(STUDY)
