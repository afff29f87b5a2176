"""Stories of a reader who agrees or corrects, and of the list of what waits for one."""

import httpx
import pytest
from browser_page import Serve, answer, drop, open_example
from builders import a_picture, png_bytes
from fakes import FakeGeneralist, completion
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

LABELS = ("normal", "pneumonia")


def diagnosed(address: str, count: int) -> None:
    """So many different images are diagnosed; the fakes disagree, so each needs review."""
    for seed in range(count):
        files = {"file": ("x.png", png_bytes(a_picture(seed=seed)))}
        made = httpx.post(f"{address}/v1/diagnoses", files=files, data={"task": "cxr-pneumonia"})
        assert made.json()["needs_review"]


def test_an_override_is_stored_and_listed(demo: str, page: Page) -> None:
    open_example(page, demo, "phantom-cxr/2.dcm")
    said = answer(page).inner_text()
    other = "normal" if said != "normal" else "effusion"

    page.get_by_role("button", name="Override…").click()
    page.get_by_label("Comment").fill("An artefact.")
    page.get_by_role("radio", name=other).check()
    page.get_by_role("button", name="Save override").click()
    expect(page.locator(".told")).to_contain_text(f"Overridden: {other}")
    page.get_by_role("link", name="Worklist").click()
    page.get_by_label("Which").select_option("")
    page.get_by_label("Reviewed").select_option("true")

    row = page.locator("tbody tr", has_text="An artefact.").first
    expect(row).to_contain_text(f"✎ {other}")
    expect(page.get_by_role("region", name="Agreement by week")).to_contain_text("phantom-cxr")


def test_an_accepted_case_leaves_the_worklist_and_the_next_one_follows(
    serve: Serve, page: Page
) -> None:
    address = serve()
    diagnosed(address, 3)
    page.goto(f"{address}/#/worklist")
    expect(page.get_by_role("region", name="Diagnoses").locator("tbody tr")).to_have_count(3)

    page.get_by_role("region", name="Diagnoses").get_by_role("link").first.click()
    page.get_by_role("button", name="Accept").click()
    expect(page.locator(".told")).to_contain_text("✓ Accepted")
    first = page.url
    page.get_by_role("link", name="Next in the worklist").click()
    expect(page.get_by_role("button", name="Accept")).to_be_visible()
    assert page.url != first
    page.get_by_role("link", name="Worklist", exact=True).click()

    expect(page.get_by_role("region", name="Diagnoses").locator("tbody tr")).to_have_count(2)


def test_evidence_comes_first_in_the_worklist_too(serve: Serve, page: Page) -> None:
    address = serve()
    diagnosed(address, 1)
    page.goto(address)
    page.get_by_label("Evidence before answer").check()

    page.get_by_role("link", name="Worklist").click()
    page.get_by_role("region", name="Diagnoses").get_by_role("link").click()

    expect(page.get_by_role("button", name="Show the answer")).to_be_visible()
    assert page.get_by_role("button", name="Accept").count() == 0


def test_the_worklist_is_read_page_by_page(serve: Serve, page: Page) -> None:
    address = serve()
    diagnosed(address, 27)
    page.goto(f"{address}/#/worklist")
    rows = page.get_by_role("region", name="Diagnoses").locator("tbody tr")
    expect(rows).to_have_count(25)

    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Newer").click()

    expect(rows).to_have_count(25)


def test_an_override_without_a_label_is_refused_with_the_services_sentence(
    serve: Serve, page: Page
) -> None:
    script = [completion(LABELS, "normal"), completion(LABELS, "pneumonia")]
    page.goto(serve(generalist=FakeGeneralist(script=script)))
    drop(page, png_bytes())

    page.get_by_role("button", name="Override…").click()
    page.get_by_role("button", name="Save override").click()

    expect(page.locator(".review .notice")).to_have_text(
        "task 'cxr-pneumonia' is answered by one label: name one"
    )
