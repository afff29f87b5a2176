"""Stories of readers whose images are in the PACS."""

from collections.abc import Iterator

import pytest
from browser_page import Serve, answer, faults, shown
from dicom_files import NAME, dicom
from dicomweb_origin import Origin
from listening import listening
from playwright.sync_api import Page, Response, expect

from service.intake.deidentify import is_uid

pytestmark = pytest.mark.browser

PATIENT = ("4711", *NAME.split("^"))


@pytest.fixture
def sources() -> Iterator[dict[str, object]]:
    """Settings with a source that has a study of two radiographs, and another of one."""
    several = [dicom(SOPInstanceUID=f"1.2.3.4.{n}") for n in (5, 6)]
    single = dicom(StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.1", SOPInstanceUID="1.2.4.2")
    with listening(Origin([*several, single]).app) as base:
        yield {"dicomweb_sources": [{"name": "hospital", "url": f"{base}/dicom-web"}]}


def is_kept(response: Response) -> bool:
    """Whether the browser keeps what it was told: streams it does not."""
    return "/v1/" in response.url and "event-stream" not in response.headers["content-type"]


def look_for(page: Page, study: str) -> None:
    assert is_uid(study)
    page.get_by_role("button", name="From a PACS…").click()
    page.get_by_label("Study Instance UID").fill(study)
    page.get_by_role("button", name="Find").click()


def test_an_instance_of_the_pacs_is_shown_and_diagnosed(
    serve: Serve, sources: dict[str, object], page: Page
) -> None:
    told: list[Response] = []
    page.on("response", lambda response: told.append(response))
    page.goto(serve(sources))

    look_for(page, "1.2.4")
    expect(answer(page)).to_be_visible()
    expect(page.locator("#about")).to_have_text("CR · 32 × 32")
    plain = shown(page)
    page.get_by_role("button", name="Heat map of resnet18").click()
    expect(page.locator("[data-heat=resnet18]")).to_have_attribute("aria-pressed", "true")

    assert shown(page) != plain
    bodies = [page.content().encode(), *(one.body() for one in told if is_kept(one))]
    assert len(bodies) > 5
    assert not [word for word in PATIENT for body in bodies if word.encode() in body]
    assert not [one.url for one in told if "1.2.4" in one.url]


def test_of_several_instances_the_reader_chooses(
    serve: Serve, sources: dict[str, object], page: Page
) -> None:
    page.goto(serve(sources))

    look_for(page, "1.2.3")
    expect(page.get_by_role("list", name="Instances").get_by_role("button")).to_have_count(2)
    assert faults(page) == []
    page.get_by_role("list", name="Instances").get_by_role("button").nth(1).click()

    expect(answer(page)).to_be_visible()
    page.get_by_role("button", name="Provenance and downloads").click()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="SR, SC, FHIR").click()
    assert downloading.value.suggested_filename.endswith(".zip")


def test_a_study_that_is_not_there_is_said_to_be_so(
    serve: Serve, sources: dict[str, object], page: Page
) -> None:
    page.goto(serve(sources))

    look_for(page, "1.2.5")

    expect(page.get_by_role("dialog")).to_contain_text(
        "source 'hospital' has no such instance, series or study"
    )


def test_without_a_source_none_is_offered(serve: Serve, page: Page) -> None:
    page.goto(serve())

    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")
    expect(page.get_by_role("button", name="From a PACS…")).to_be_hidden()
