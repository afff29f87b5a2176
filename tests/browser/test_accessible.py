"""Stories of readers without a mouse, with a screen reader, in the light, or on a tablet."""

import pytest
from browser_page import answer, faults, open_example, shown
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tab_to(page: Page, text: str, most: int = 60) -> None:
    """Tab until what has the focus says the text."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if text in page.evaluate(
            "() => { const e = document.activeElement, isMenu = e.matches('select');"
            " return [isMenu ? '' : e.textContent, e.getAttribute('aria-label')].join(' ') }"
        ):
            return
    raise AssertionError(f"no way to {text!r} by keyboard")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_in_a_case(demo: str, page: Page, theme: str) -> None:
    page.goto(demo)
    page.get_by_role("heading", level=1).wait_for()  # the page's scripts have begun
    if theme == "light":
        page.get_by_role("button", name="Light").click()
    assert faults(page) == []
    open_example(page, demo, "phantom-fundus/2.png")
    page.get_by_role("button", name="Override…").click()
    assert faults(page) == []

    page.locator(".thumb").first.click()
    page.get_by_role("tab", name="Report").click()
    assert faults(page) == []
    page.get_by_role("button", name="Provenance and downloads").click()
    assert faults(page) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("#/worklist", "Agreement"),
        ("#/operations/tasks", "phantom-cxr"),
        ("#/operations/specialists", "sam-vit-b16"),
        ("#/operations/cases", "CC0-1.0"),
        ("#/operations/health", "generalist"),
    ],
)
def test_axe_finds_nothing_in_lists(
    demo: str, page: Page, theme: str, address: str, text: str
) -> None:
    page.goto(f"{demo}/{address}")
    expect(page.locator("main")).to_contain_text(text)
    if theme == "light":
        page.get_by_role("button", name="Light").click()

    assert faults(page) == []


def test_a_case_is_read_and_accepted_without_a_mouse(demo: str, page: Page) -> None:
    page.goto(demo)
    expect(page.locator("#examples button")).not_to_have_count(0)
    tab_to(page, "phantom-cxr")
    press(page, "Enter")
    expect(answer(page)).to_be_visible()

    page.locator("#theme").focus()
    tab_to(page, "Image viewer")
    seen = [shown(page)]
    for keys in (("ArrowUp",), ("ArrowRight",), ("+",), ("Shift+ArrowLeft",), ("i",)):
        press(page, *keys)
        seen.append(shown(page))
    assert len(set(seen)) == len(seen)
    press(page, "r")
    assert shown(page) == seen[0]

    tab_to(page, "Heat map of vgg16")
    press(page, "Enter")
    expect(page.locator("[data-heat=vgg16]")).to_have_attribute("aria-pressed", "true")
    tab_to(page, "Diagnosis")
    press(page, "ArrowRight")
    expect(page.locator("#report")).to_be_visible()
    press(page, "ArrowLeft")
    tab_to(page, "Accept")
    press(page, "Enter")
    expect(page.locator(".told")).to_contain_text("✓ Accepted")


def test_the_drawer_keeps_the_focus_and_gives_it_back(demo: str, page: Page) -> None:
    open_example(page, demo)
    page.locator("#provenance").focus()
    press(page, "Enter")
    expect(page.get_by_role("dialog")).to_be_visible()

    press(page, "Escape")

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#provenance")).to_be_focused()


@pytest.mark.parametrize("size", [(1024, 768), (768, 1024)])
def test_on_a_tablet_nothing_is_cut_off_sideways(
    demo: str, page: Page, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_example(page, demo)

    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.get_by_role("button", name="Accept").scroll_into_view_if_needed()
    expect(page.get_by_role("button", name="Accept")).to_be_in_viewport()


def test_the_theme_is_kept(demo: str, page: Page) -> None:
    page.goto(demo)
    page.get_by_role("button", name="Light").click()
    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "light")
