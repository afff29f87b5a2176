"""The real vLLM server for tests: built where it is missing, started, and surely stopped."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from service.generalist import server

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-vllm"
READY_SECONDS = 240
STOP_SECONDS = 15


@contextmanager
def vllm_serving(
    folder: Path,
    model: str,
    dtype: str,
    log: Path,
    adapters: Mapping[str, Path] | None = None,
    collector: str = "",
) -> Iterator[str]:
    """The base URL of a server of the checkpoint, ready to answer; `collector` gets its spans."""
    server.ensure_environment(VENV, ROOT)
    port = free_port()
    command, added = server.command(
        folder, port, venv=VENV, model=model, dtype=dtype, adapters=adapters
    )
    if collector:
        command = [*command, "--otlp-traces-endpoint", f"{collector}/v1/traces"]
        added = {**added, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **added},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the engine is a child of the server: both are stopped
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], base_url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{base_url}/health", timeout=1, trust_env=False).is_success:
                return
        time.sleep(0.25)
    raise AssertionError(f"vLLM is not ready; the end of its log:\n{log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Politely, then not: the group outlives its leader when the engine hangs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
