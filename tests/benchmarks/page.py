"""How long a reader waits: from the address to the first paint, from the drop to the answer."""

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser

from service.api.page import page_files
from tests.browser_page import a_page, chromium, demonstration, drop

EXAMPLE = "v1/examples/phantom-cxr/1.dcm"
PAINT = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000"""
WATCH = """() => {
  window.dropped = performance.now();
  const seen = () => document.getElementById("final") && (window.answered ??= performance.now());
  new MutationObserver(seen).observe(document.body, { subtree: true, childList: true });
}"""
WAITED = "() => (window.answered - window.dropped) / 1000"


def main(times: int, *, as_json: bool) -> None:
    """The first time everything is cold; the others are new browser profiles each."""
    with (
        TemporaryDirectory() as folder,
        demonstration(Path(folder)) as address,
        chromium() as browser,
    ):
        runs = [_once(browser, address) for _ in range(times)]
    figures = {
        "page_bytes": sum(len(file.content) for file in page_files().values()),
        "first_paint_seconds": _told([paint for paint, _ in runs]),
        "drop_to_answer_seconds": _told([answer for _, answer in runs]),
    }
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value}")


def _once(browser: Browser, address: str) -> tuple[float, float]:
    complaints: list[str] = []
    with a_page(browser, complaints) as page:
        page.goto(address)
        page.locator("#examples button").first.wait_for()
        page.get_by_label("Task").first.select_option("phantom-cxr")
        paint = page.evaluate(PAINT)
        example = page.request.get(f"{address}/{EXAMPLE}").body()
        page.evaluate(WATCH)
        drop(page, example)
        page.locator("#final").wait_for()
        return paint, page.evaluate(WAITED)


def _told(values: list[float]) -> dict[str, Any]:
    return {
        "first": round(values[0], 3),
        "median": round(statistics.median(values), 3),
        "slowest": round(max(values), 3),
    }
