"""The page in a real browser: Debian's Chromium, the demonstration it looks at, and its moves."""

import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

GSCO = str(Path(sys.executable).with_name("gsco"))
SIZE = {"width": 1280, "height": 800}
START_SECONDS = 240

Serve = Callable[..., str]
"""Starts a service of fakes, those given or willing ones, and returns its address."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window; .ci/run installs it where it is missing."""
    found = which("chromium")
    if found is None:
        raise AssertionError("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def a_page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page on a small screen; what its scripts complain of is added to `complaints`."""
    context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.extend(_complaint(message)))
    yield page
    context.close()


@contextmanager
def demonstration(folder: Path) -> Iterator[str]:
    """The address that `gsco demo` prints for a new home in the folder."""
    environment = os.environ | {"GSCO_HOME": str(folder / "home"), "GSCO_PORT": "0"}
    log = folder / "log"
    with (
        log.open("w") as told,
        subprocess.Popen([GSCO, "demo"], env=environment, stdout=told, stderr=told) as process,
    ):
        try:
            yield _printed_address(log, process)
        finally:
            process.terminate()


def drop(page: Page, file: bytes, name: str = "image") -> None:
    """A file let go over the image, as from a folder."""
    page.evaluate(
        """([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name));
          for (const kind of ["dragover", "drop"]) {
            const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer });
            document.getElementById("screen").dispatchEvent(event);
          }
        }""",
        [b64encode(file).decode(), name],
    )


def answer(page: Page) -> Locator:
    """The labels of the final answer."""
    return page.locator("#final")


def open_example(page: Page, address: str, example: str = "phantom-cxr/1.dcm") -> None:
    """The page with an example, up to its final answer."""
    page.goto(address)
    page.get_by_label("Example").select_option(example)
    answer(page).wait_for()


def faults(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA, and against its own best practices."""
    found = Axe().run(page)
    return [
        f"{fault['impact']}: {fault['id']} at {fault['nodes'][0]['target']}"
        for fault in found.response["violations"]
    ]


def shown(page: Page) -> str:
    """A name for what the canvas shows."""
    page.wait_for_timeout(100)  # it is drawn with the next picture of the screen
    name: str = page.evaluate(
        """async () => {
          const canvas = document.getElementById("canvas");
          const { width, height } = canvas;
          const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
          return [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))].join();
        }"""
    )
    return name


def _complaint(message: ConsoleMessage) -> list[str]:
    """Refusals that the page shows to its reader are no mistakes of its scripts."""
    is_refusal = message.text.startswith("Failed to load resource")
    return [message.text] if message.type == "error" and not is_refusal else []


def _printed_address(log: Path, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text("utf-8")
        if "in a browser" in text and (found := re.search(r"http://[\d.]+:\d+", text)):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"the demonstration does not start: {log.read_text('utf-8')[-1000:]}")
