"""A real service in a process of its own, over the demonstration's home folder, to be loaded."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from service.demo import home as demo_home
from service.settings import Settings
from tests.vllm_server import free_port

ROOT = Path(__file__).parents[2]
GSCO = str(Path(sys.executable).with_name("gsco"))
START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Served:
    """Where a service answers, and the process that does."""

    url: str
    process_id: int | None


@contextmanager
def a_served_home(
    home: Path,
    *,
    without_models: bool = False,
    database_url: str = "",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Served]:
    """`gsco serve` over the demonstration's home folder, which is made where it is missing.

    `without_models` they answer from memory. The service logs to `home/log`.
    """
    elsewhere = {"database_url": database_url} if database_url else {}
    demo_home.prepare(Settings(home=home, **elsewhere), lambda task: None)
    port = free_port()
    command = [GSCO, "--home", str(home), "serve", "--port", str(port)]
    if without_models:
        command = [sys.executable, "-m", "tests.load.without_models", str(home), str(port)]
    said = {"GSCO_DATABASE_URL": database_url} if database_url else {}
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **os.environ, **said, **environment}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, env=ours, stderr=log, cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, home / "log")
        yield Served(url, process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Every specialist is there, too: a degraded service would be a faster one."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            reply = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
            if reply.is_success and reply.json()["status"] == "ready":
                return
        time.sleep(0.2)
    raise RuntimeError(f"the service is not ready; the end of its log:\n{log.read_text()[-2000:]}")
