"""Pictures of the page for the docs: `python -m tests.screenshots docs/pictures`."""

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page

from tests.browser_page import a_page, chromium, demonstration, open_example

COLOURS = 256


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory() as home,
        demonstration(Path(home)) as address,
        chromium() as browser,
        a_page(browser, []) as page,
    ):
        _case(page, address, folder)
        _worklist(page, address, folder)
        _operations(page, address, folder)


def _case(page: Page, address: str, folder: Path) -> None:
    open_example(page, address, "phantom-cxr/1.dcm")
    page.get_by_role("button", name="Heat map of vgg16").click()
    page.get_by_role("button", name="Outline of unet").click()
    _keep(page, folder / "case.png")
    page.get_by_role("button", name="Light").click()
    open_example(page, address, "phantom-fundus/2.png")
    _keep(page, folder / "case-light.png")
    page.get_by_role("button", name="Dark").click()


def _worklist(page: Page, address: str, folder: Path) -> None:
    for number in range(1, 5):
        open_example(page, address, f"phantom-derm/{number}.png")
        if number % 2:
            page.get_by_role("button", name="Accept").click()
            page.locator(".told").wait_for()
    page.goto(f"{address}/#/worklist")
    page.get_by_label("Reviewed").select_option("")
    page.get_by_label("Which").select_option("")
    page.get_by_role("region", name="Agreement by week").wait_for()
    _keep(page, folder / "worklist.png")


def _operations(page: Page, address: str, folder: Path) -> None:
    page.goto(f"{address}/#/operations/specialists")
    page.locator("#operations").get_by_text("sam-vit-b16").first.wait_for()
    _keep(page, folder / "operations.png")


def _keep(page: Page, path: Path) -> None:
    """A PNG of few colours, for the sake of the repository's history."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    few = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
