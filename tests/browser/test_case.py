"""Stories of a reader with one case: from an image to the answer and what it rests on."""

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser_page import Serve, answer, drop, open_example, shown
from builders import png_bytes
from fakes import FakeSpecialists
from playwright.sync_api import Page, Route, expect
from pydicom import dcmread
from pydicom.data import get_testdata_file

from service.intake.decoder import decode

pytestmark = pytest.mark.browser


def dicom(name: str) -> bytes:
    return Path(str(get_testdata_file(name))).read_bytes()


def of_frames(count: int) -> bytes:
    """A multi-frame file: a slice of a CT that is turned from frame to frame."""
    dataset, file = dcmread(BytesIO(dicom("CT_small.dcm"))), BytesIO()
    turned = [np.rot90(dataset.pixel_array, turns).tobytes() for turns in range(count)]
    dataset.NumberOfFrames, dataset.PixelData = count, b"".join(turned)
    dataset.save_as(file)
    return file.getvalue()


def test_a_demo_case_leads_to_an_answer_with_its_evidence(demo: str, page: Page) -> None:
    page.goto(demo)
    page.get_by_role("button", name="phantom-cxr", exact=True).click()

    expect(answer(page)).to_be_visible()
    expect(page.locator("#panel [data-heat]")).to_have_count(10)
    expect(page.locator("#stages .done")).to_have_count(4)
    expect(page.locator("#diagnosis")).to_contain_text("First look")
    picture = page.locator(".thumb img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_an_example_waits_for_tasks_that_come_later_than_it(demo: str, page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/tasks", lambda route: held.append(route))
    page.goto(demo)
    page.get_by_label("Example").select_option("phantom-fundus/2.png")

    held[0].continue_()

    expect(answer(page)).to_be_visible()
    expect(page.get_by_label("Task")).to_have_value("phantom-fundus")


def test_each_specialist_is_shown_as_its_prediction_comes(serve: Serve, page: Page) -> None:
    page.goto(serve(specialists=FakeSpecialists(between_seconds=0.3)))
    drop(page, png_bytes())

    rows = page.locator("#panel [data-heat]")
    expect(rows.first).to_be_visible()
    assert rows.count() < 10
    expect(page.locator("#stages")).to_contain_text("… Specialists")
    expect(rows).to_have_count(10)


def test_the_main_view_needs_no_scrolling(demo: str, page: Page) -> None:
    open_example(page, demo, "phantom-cxr-findings/1.dcm")

    for part in ("main", ".panel", ".similar", ".answer"):
        room = page.locator(part).evaluate(
            "e => [e.clientHeight - e.scrollHeight, e.clientWidth - e.scrollWidth]"
        )
        assert min(room) >= 0, part


def test_a_real_dicom_file_is_shown_in_hounsfield_units(demo: str, page: Page) -> None:
    page.goto(demo)
    page.get_by_label("Task").first.select_option("phantom-cxr")
    drop(page, dicom("CT_small.dcm"), "Doe^John.dcm")

    expect(answer(page)).to_be_visible()
    expect(page.locator("#about")).to_have_text("CT · 128 × 128")
    expect(page.locator("#levels")).to_contain_text("HU")
    page.get_by_label("Window").select_option(label="Lung")
    expect(page.locator("#levels")).to_have_text("Level -600 · Window 1500 HU")
    assert "CompressedSamples" not in page.content()  # the patient's name in that file


def test_frames_of_a_file_are_turned_and_diagnosed_on_request(demo: str, page: Page) -> None:
    page.goto(demo)
    drop(page, of_frames(5))
    expect(answer(page)).to_be_visible()
    before = shown(page)

    page.get_by_label("Frame").fill("5")
    expect(page.get_by_role("button", name="Diagnose frame 5")).to_be_visible()
    assert shown(page) != before
    page.get_by_role("button", name="Diagnose frame 5").click()

    expect(page.locator("#diagnosis")).to_contain_text("Frame 5 of 5 was used.")


def test_window_level_zoom_and_invert_change_what_is_seen(demo: str, page: Page) -> None:
    open_example(page, demo)
    seen = [shown(page)]
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 60)
    page.mouse.up()
    seen.append(shown(page))
    page.mouse.wheel(0, -300)
    seen.append(shown(page))
    page.get_by_role("button", name="Invert").click()
    seen.append(shown(page))
    page.get_by_role("button", name="Reset").click()

    assert len(set(seen)) == len(seen)
    assert shown(page) == seen[0]


def test_the_first_window_shows_what_the_models_see(demo: str, page: Page) -> None:
    open_example(page, demo)

    told = page.evaluate(
        """async () => {
          const { load, paint } = await import("/web/frame.js");
          const file = await (await fetch("v1/examples/phantom-cxr/1.dcm")).blob();
          const frame = await load(file, null);
          const rgba = new Uint32Array(frame.width * frame.height);
          paint(frame, frame.windows[0], frame.is_inverse, rgba);
          return [...rgba].map((colour) => colour & 255);
        }"""
    )
    example = page.request.get(f"{demo}/v1/examples/phantom-cxr/1.dcm").body()
    assert told == decode(example).image.pixels[..., 0].ravel().tolist()


def test_heat_maps_are_laid_over_the_image_and_taken_off(demo: str, page: Page) -> None:
    open_example(page, demo)
    plain = shown(page)

    page.get_by_role("button", name="Heat map of resnet18").click()
    expect(page.get_by_role("button", name="Heat map of resnet18")).to_have_attribute(
        "aria-pressed", "true"
    )
    hot = shown(page)
    page.get_by_label("Heat map", exact=True).fill("10")
    faint = shown(page)
    page.get_by_role("button", name="Heat map of resnet18").click()

    assert len({plain, hot, faint}) == 3
    assert shown(page) == plain


def test_a_lesion_is_outlined_and_the_outline_taken_off(demo: str, page: Page) -> None:
    open_example(page, demo)
    plain = shown(page)
    outline = page.get_by_role("button", name="Outline of unet")

    outline.click()
    expect(outline).to_have_attribute("aria-pressed", "true")
    traced = shown(page)
    outline.click()

    assert traced != plain
    assert shown(page) == plain


def test_a_similar_case_says_where_it_comes_from(demo: str, page: Page) -> None:
    open_example(page, demo)

    page.locator(".thumb").first.click()

    detail = page.get_by_role("group", name="Similar case")
    expect(detail).to_contain_text("Found by")
    expect(detail).to_contain_text("phantom, hospital A, CC0-1.0")
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()


def test_evidence_comes_before_the_answer_where_the_reader_wants_it_so(
    demo: str, page: Page
) -> None:
    page.goto(demo)
    page.get_by_label("Evidence before answer").check()
    page.get_by_label("Example").select_option("phantom-cxr/1.dcm")
    show = page.get_by_role("button", name="Show the answer")
    expect(show).to_be_visible()

    expect(page.locator("#panel [data-heat]")).to_have_count(10)
    assert answer(page).count() == 0
    assert "First look" not in page.locator("#diagnosis").inner_text()
    show.click()

    expect(answer(page)).to_be_focused()


def test_a_report_is_drafted_and_can_be_corrected(demo: str, page: Page) -> None:
    open_example(page, demo, "phantom-cxr-findings/1.dcm")

    page.get_by_role("tab", name="Report").click()
    page.get_by_role("button", name="Draft a report").click()
    findings = page.get_by_role("textbox", name="Findings")
    expect(findings).not_to_have_value("")
    findings.fill("Corrected by hand.")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download text").click()

    text = Path(downloading.value.path()).read_text("utf-8")
    assert "Corrected by hand." in text
    assert text.startswith("AI draft")


def test_a_question_is_answered_by_one_of_the_permitted_answers(demo: str, page: Page) -> None:
    open_example(page, demo)

    page.get_by_role("tab", name="Question").click()
    page.get_by_label("Question", exact=True).last.fill("Is there effusion?")
    page.get_by_label("Permitted answers").fill("yes, no")
    page.get_by_role("button", name="Ask").click()

    expect(page.locator(".exchange")).to_contain_text("First look:")
    expect(page.locator(".exchange")).to_contain_text("yes")


def test_provenance_tells_all_and_the_diagnosis_can_be_downloaded(demo: str, page: Page) -> None:
    open_example(page, demo)

    page.get_by_role("button", name="Provenance and downloads").click()
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Arbitration prompt sha256")
    expect(drawer).to_contain_text("sam-vit-b16")
    with page.expect_download() as downloading:
        drawer.get_by_role("button", name="JSON").click()

    document = json.loads(Path(downloading.value.path()).read_text("utf-8"))
    assert document["labels"] == [answer(page).inner_text()]


@pytest.mark.parametrize(
    ("button", "beginning"),
    [("DICOM SR", b"\0" * 128 + b"DICM"), ("FHIR", b"{"), ("SR, SC, FHIR beside", b"PK")],
)
def test_results_are_downloaded_in_the_forms_that_others_read(
    demo: str, page: Page, button: str, beginning: bytes
) -> None:
    open_example(page, demo)

    page.get_by_role("button", name="Provenance and downloads").click()
    with page.expect_download() as downloading:
        page.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{button}")).click()

    assert Path(downloading.value.path()).read_bytes().startswith(beginning)


def test_a_stored_case_shows_its_image_once_the_same_file_is_dropped(demo: str, page: Page) -> None:
    open_example(page, demo)
    example = page.request.get(f"{demo}/v1/examples/phantom-cxr/1.dcm").body()
    address = page.url

    page.reload()
    expect(answer(page)).to_be_visible()
    expect(page.locator("#subject")).to_contain_text("The image is not kept")
    expect(page.get_by_role("button", name="Heat map of vgg16")).to_be_disabled()
    drop(page, example)

    expect(page.locator("#about")).to_have_text("DX · 128 × 128")
    expect(page.get_by_role("button", name="Heat map of vgg16")).to_be_enabled()
    assert page.url == address


def test_missing_specialists_are_shown_as_missing(serve: Serve, page: Page) -> None:
    address = serve(specialists=FakeSpecialists(missing={"vgg16": "no weights for 'vgg16'"}))
    page.goto(address)
    drop(page, png_bytes())

    expect(page.locator("#panel .missing")).to_have_text("vgg16missing: no weights for 'vgg16'")
    expect(page.locator("#diagnosis")).to_contain_text("Needs review")
