"""Stories of those who would misuse the page: markup stays text, and nothing else gets in."""

import re

import httpx
import pytest
from browser_page import Serve, a_page, answer, drop
from builders import a_neighbour, a_reference_case, png_bytes
from fakes import FakeGeneralist, FakeRetriever, completion
from playwright.sync_api import Browser, Error, Page, expect

from service.domain import Completion

pytestmark = pytest.mark.browser

MARKUP = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'
LABELS = ("normal", "pneumonia")


def was_broken(page: Page) -> bool:
    return bool(page.evaluate("'broken' in window"))


def test_a_report_with_markup_is_shown_as_text(serve: Serve, page: Page) -> None:
    text = f"Findings: {MARKUP} Impression: {MARKUP}"
    diagnosis = [completion(LABELS, "normal"), completion(LABELS, "normal")]
    script = [*diagnosis, Completion(text), Completion(text)]
    page.goto(serve(generalist=FakeGeneralist(script=script)))
    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()

    page.get_by_role("tab", name="Report").click()
    page.get_by_role("button", name="Draft a report").click()

    expect(page.get_by_role("textbox", name="Findings")).to_have_value(re.compile("^<img src=x"))
    assert not was_broken(page)


def test_a_reference_case_with_markup_is_shown_as_text(serve: Serve, page: Page) -> None:
    case = a_reference_case(report=MARKUP, source=MARKUP, labels=(MARKUP,))
    page.goto(serve(retriever=FakeRetriever(neighbours=(a_neighbour(case=case),))))
    drop(page, png_bytes())

    page.locator(".thumb").first.click()

    expect(page.get_by_role("group", name="Similar case")).to_contain_text(MARKUP)
    assert page.locator("#case script").count() == 0
    assert not was_broken(page)


def test_a_question_and_its_answer_with_markup_are_shown_as_text(serve: Serve, page: Page) -> None:
    diagnosis = [completion(LABELS, "normal"), completion(LABELS, "normal")]
    script = [*diagnosis, Completion(MARKUP), Completion(MARKUP)]
    page.goto(serve(generalist=FakeGeneralist(script=script)))
    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()

    page.get_by_role("tab", name="Question").click()
    page.get_by_role("textbox", name="Question").fill(MARKUP)
    page.get_by_role("button", name="Ask").click()

    expect(page.locator(".exchange")).to_contain_text(f"{MARKUP} First look: {MARKUP}")
    assert not was_broken(page)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"not an image", "the file is none of DICOM, PNG, JPEG, WebP, BMP and TIFF"),
        (png_bytes()[:-20], "the image is damaged or cut short"),
    ],
)
def test_a_broken_upload_shows_the_services_sentence(
    serve: Serve, page: Page, file: bytes, sentence: str
) -> None:
    page.goto(serve())
    drop(page, file)

    expect(page.get_by_role("alert")).to_contain_text(sentence)
    drop(page, png_bytes())

    expect(answer(page)).to_be_visible()
    expect(page.locator("#alert")).to_be_hidden()


def test_a_service_that_went_away_is_named(serve: Serve, page: Page) -> None:
    page.goto(serve())
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")
    page.context.set_offline(True)
    drop(page, png_bytes())

    expect(page.get_by_role("alert")).to_have_text(
        "The service does not answer. Is it still running?"
    )


def test_the_policy_lets_no_markup_in(serve: Serve, browser: Browser) -> None:
    address, complaints = serve(), list[str]()
    policy = httpx.get(address).headers["content-security-policy"]

    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    with a_page(browser, complaints) as page:
        page.goto(address)
        with pytest.raises(Error, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<p>'")
    assert "TrustedHTML" in complaints[0]
