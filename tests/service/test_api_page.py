"""Stories of what the page is made of: its files, frames, reference cases and examples."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from builders import a_picture, a_reference_case, png_bytes
from databases import a_database
from PIL import Image
from pydicom.data import get_testdata_file
from serving import Service, a_service, problem_of
from sqlalchemy import Engine

from retrieval import ingest
from service import reference_cases
from service.api.page import page_files
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.persistence.store import SqlStore

MOST_BYTES = 300_000


@pytest.fixture
def engine(either_database: str, home: Path) -> Iterator[Engine]:
    with a_database(home) as engine:
        yield engine


async def test_the_page_is_served_under_a_strict_policy(home: Path) -> None:
    async with a_service(home) as service:
        reply = await service.client.get("/")
        script = await service.client.get("/web/main.js")

    for answer in (reply, script):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in reply.text
    assert "style=" not in reply.text
    assert script.headers["content-type"].startswith("text/javascript")


async def test_a_file_that_has_not_changed_is_not_sent_again(home: Path) -> None:
    async with a_service(home) as service:
        first = await service.client.get("/web/style.css")
        tag = {"if-none-match": first.headers["etag"]}
        again = await service.client.get("/web/style.css", headers=tag)

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["none.js", "..%2Fsettings.py", "__init__.py"])
async def test_nothing_but_the_page_is_served(home: Path, name: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(f"/web/{name}")

    assert reply.status_code == 404


def test_the_page_is_small_and_asks_nobody_else() -> None:
    files = page_files()

    assert sum(len(file.content) for file in files.values()) < MOST_BYTES
    for name, file in files.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name
        assert "innerHTML" not in text, name


async def look(service: Service, data: bytes, **fields: str) -> httpx.Response:
    return await service.client.post("/v1/frames", files={"file": ("x", data)}, data=fields)


@pytest.fixture
def ct() -> bytes:
    return Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()


async def test_a_frame_has_all_grey_levels_and_no_patient(home: Path, ct: bytes) -> None:
    async with a_service(home, intake=Sandbox(Limits())) as service:  # type: ignore[arg-type]
        reply = await look(service, ct)

    picture = Image.open(io.BytesIO(reply.content))
    told = json.loads(picture.text["gsco-frame"])
    assert (picture.mode, picture.size) == ("I;16", (128, 128))
    assert np.unique(np.asarray(picture)).size > 256
    assert (told["unit"], told["modality"], told["count"]) == ("HU", "CT", 1)
    assert b"CompressedSamples" not in reply.content
    assert service.store.saved == {}


async def test_a_large_image_is_thinned_out(home: Path) -> None:
    file = png_bytes(np.zeros((64, 5000, 3), np.uint8))
    async with a_service(home, intake=Sandbox(Limits())) as service:  # type: ignore[arg-type]
        reply = await look(service, file)

    picture = Image.open(io.BytesIO(reply.content))
    told = json.loads(picture.text["gsco-frame"])
    assert picture.size == (2500, 32)
    assert (told["columns"], told["rows"]) == (5000, 64)


async def test_a_file_that_cannot_be_shown_is_refused_with_a_sentence(home: Path) -> None:
    async with a_service(home, intake=Sandbox(Limits())) as service:  # type: ignore[arg-type]
        broken = await look(service, b"not an image")
        absent = await look(service, png_bytes(), frame="7")

    assert problem_of(broken) == "unreadable-image"
    assert problem_of(absent) == "unsupported-image"


async def test_reference_cases_are_listed_page_by_page(home: Path, engine: Engine) -> None:
    ingest.ingest(engine, [a_reference_case(f"case {n}") for n in range(5)])
    async with a_service(home, store=SqlStore(engine)) as service:  # type: ignore[arg-type]
        asked = {"task": "cxr-pneumonia", "limit": 3}
        first = (await service.client.get("/v1/cases", params=asked)).json()
        asked["cursor"] = first["next_cursor"]
        second = (await service.client.get("/v1/cases", params=asked)).json()

    seen = [case["case_id"] for case in (*first["cases"], *second["cases"])]
    assert seen == [f"case {n}" for n in range(5)]
    assert second["next_cursor"] is None
    assert "group" not in first["cases"][0]


async def test_the_picture_of_a_reference_case_is_shown(home: Path, engine: Engine) -> None:
    picture, id = reference_cases.thumbnail(a_picture(400, 200)), "folder/case 1"
    ingest.ingest(engine, [a_reference_case(id)], thumbnails={id: picture})
    async with a_service(home, store=SqlStore(engine)) as service:  # type: ignore[arg-type]
        reply = await service.client.get("/v1/cases/folder%2Fcase%201/thumbnail")

    assert reply.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(reply.content)).size == (64, 128)


@pytest.mark.parametrize(
    "id", ["unknown", "without%20picture", "not%20a%20picture", "x%00y", "a" * 201]
)
async def test_a_picture_that_is_not_there_is_not_found(
    home: Path, engine: Engine, id: str
) -> None:
    cases = [a_reference_case("without picture"), a_reference_case("not a picture")]
    ingest.ingest(engine, cases, thumbnails={"not a picture": b"<svg onload=alert(1)>"})
    async with a_service(home, store=SqlStore(engine)) as service:  # type: ignore[arg-type]
        reply = await service.client.get(f"/v1/cases/{id}/thumbnail")

    assert problem_of(reply) == "not-found"


async def test_examples_of_the_home_folder_are_offered(home: Path, tmp_path: Path) -> None:
    folder = home / "examples" / "cxr-pneumonia"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(png_bytes())
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    async with a_service(home) as service:
        listed = (await service.client.get("/v1/examples")).json()
        file = await service.client.get("/v1/examples/cxr-pneumonia/1.png")
        link = await service.client.get("/v1/examples/cxr-pneumonia/link")
        outside = await service.client.get("/v1/examples/cxr-pneumonia/..%2F..%2Ftasks")

    assert listed["examples"] == [{"task": "cxr-pneumonia", "name": "1.png"}]
    assert file.content == png_bytes()
    assert file.headers["content-disposition"] == "attachment"
    assert (link.status_code, outside.status_code) == (404, 404)


async def test_a_home_without_examples_offers_none(home: Path) -> None:
    async with a_service(home) as service:
        assert (await service.client.get("/v1/examples")).json() == {"examples": []}
