"""Stories of those who look after the service: cards, evaluations, reference cases."""

from pathlib import Path

import pytest
from browser_page import Serve, answer, drop, faults
from builders import a_picture, png_bytes
from callers import a_key
from databases import kept_in
from matplotlib.figure import Figure
from playwright.sync_api import Page, expect

from service.identity.caller import Scope

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def results(home: Path) -> Path:
    """What an evaluation leaves behind, with a plot as matplotlib writes it."""
    folder = home / "evaluations" / "cxr-test"
    (folder / "plots").mkdir(parents=True)
    lines = ["# cxr-pneumonia", "", "> 2 cases are few.", "", "Macro-F1"]
    cells = ["| system | macro-F1 |", "|---|--:|", f"| {MARKUP} | 0.844 |", ""]
    (folder / "table.md").write_text("\n".join([*lines, "", *cells]), "utf-8")
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    figure.savefig(folder / "plots" / "roc.svg")
    return folder


def test_a_specialist_shows_its_card(demo: str, page: Page) -> None:
    page.goto(f"{demo}/#/operations/specialists")

    page.get_by_role("button", name="resnet18", exact=True).first.click()

    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Research and evaluation only; not a medical device.")
    expect(drawer).to_contain_text("weights sha256")
    assert faults(page) == []


@pytest.mark.usefixtures("results")
def test_an_evaluation_shows_its_tables_and_plots(serve: Serve, page: Page) -> None:
    page.goto(f"{serve()}/#/operations/evaluations")

    figures = page.get_by_role("region", name="Macro-F1").locator("tbody tr")
    expect(figures).to_have_text(f"{MARKUP}0.844")
    expect(page.locator("#operations .notice")).to_have_text("2 cases are few.")
    plot = page.get_by_role("img", name="Sensitivity against specificity, per label.")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert faults(page) == []


def test_a_reference_case_is_added_found_and_deleted(demo: str, page: Page) -> None:
    image = {"name": "x.png", "mimeType": "image/png", "buffer": png_bytes(a_picture(seed=9))}
    page.goto(f"{demo}/#/operations/cases")
    operations = page.locator("#operations")
    operations.get_by_label("Task").select_option("phantom-derm")
    operations.get_by_text("Add a reference case").click()
    label = operations.get_by_role("radio").first
    label.check()
    operations.get_by_label("Image").set_input_files([image])  # type: ignore[list-item]
    operations.get_by_label("Report").fill(f"Noise {MARKUP}")
    operations.get_by_label("Source").fill("this test")
    assert faults(page) == []
    operations.get_by_role("button", name="Add", exact=True).click()
    told = operations.get_by_text("✓ Added as phantom-derm-")
    expect(told).to_be_visible()
    id = told.inner_text().split()[-1]

    page.get_by_role("link", name="Case", exact=True).click()
    page.get_by_label("Task").first.select_option("phantom-derm")
    drop(page, png_bytes(a_picture(seed=10)))
    expect(answer(page)).to_be_visible()
    page.locator(".thumb").first.click()
    expect(page.get_by_role("group", name="Similar case")).to_contain_text("this test")

    page.goto(f"{demo}/#/operations/cases")
    operations.get_by_label("Task").select_option("phantom-derm")
    remove = operations.get_by_role("button", name=f"Delete {id}")
    for _ in range(8):
        expect(operations.get_by_role("region", name="Reference cases")).to_be_visible()
        if remove.count():
            break
        first = operations.locator("td.code").first.inner_text()
        operations.get_by_role("button", name="More").click()
        expect(operations.locator("td.code").first).not_to_have_text(first)
    remove.click()
    operations.get_by_role("button", name="Really delete").click()
    expect(operations.get_by_text(id)).to_have_count(0)
    assert page.request.get(f"{demo}/v1/cases/{id}/thumbnail").status == 404


def test_a_reference_case_without_a_label_is_refused_with_a_sentence(demo: str, page: Page) -> None:
    image = {"name": "x.png", "mimeType": "image/png", "buffer": png_bytes()}
    page.goto(f"{demo}/#/operations/cases")
    operations = page.locator("#operations")
    operations.get_by_label("Task").select_option("phantom-derm")
    operations.get_by_text("Add a reference case").click()
    operations.get_by_label("Image").set_input_files([image])  # type: ignore[list-item]
    operations.get_by_role("button", name="Add", exact=True).click()

    expect(operations.locator(".notice")).to_contain_text("is answered by one label: name one")


def test_only_curators_are_offered_to_change_reference_cases(
    serve: Serve, home: Path, page: Page
) -> None:
    address = serve({"authentication": True})
    with kept_in(home) as kept:
        key = a_key(kept[0].engine, Scope.READ)[1]
    page.goto(f"{address}/#/operations/cases")
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()

    expect(page.locator("#operations")).to_contain_text("This task has none.")
    expect(page.get_by_text("Add a reference case")).to_be_hidden()
