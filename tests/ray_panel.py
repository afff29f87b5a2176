"""The panel as a Ray Serve application on this machine, in a process of its own.

python tests/ray_panel.py HOME PORT BACKBONES REPLICAS FOLDER serves until it is told to end.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from listening import free_port

_START_SECONDS = 180


@dataclass(frozen=True)
class RayPanel:
    """A running application; its replicas are processes of this machine."""

    url: str

    def replicas_of(self, backbone: str) -> list[int]:
        """The process ids of a backbone's replicas."""
        title = f"ServeReplica:specialists:{backbone}"
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return sorted(pid for pid in pids if title in _command_line(pid))


@contextmanager
def ray_panel(home: Path, backbones: tuple[str, ...], replicas: int) -> Iterator[RayPanel]:
    """The application over the specialists of a home folder, until the end of the block."""
    port = free_port()
    told = (str(home), str(port), ",".join(backbones), str(replicas))
    with TemporaryDirectory(prefix="gsco-ray-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            command = [sys.executable, __file__, *told, folder]
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            panel = RayPanel(f"http://127.0.0.1:{port}")
            _wait(panel.url, process, log)
            yield panel
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if b"READY" in log.read_bytes():
            assert httpx.get(f"{url}/-/healthz", trust_env=False).is_success
            return
        time.sleep(0.2)
    raise AssertionError(f"the panel does not start:\n{log.read_text()[-4000:]}")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def main(home: str, port: str, backbones: str, replicas: str, folder: str) -> None:
    import ray
    from ray import serve

    from specialists.serve import application

    # The path is short, as those of sockets must be; 2 cores shall carry more replicas than 2.
    ray.init(
        address="local",
        num_cpus=8,
        object_store_memory=200 * 1024 * 1024,
        include_dashboard=False,
        _temp_dir=folder,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    plan = {"home": home, "cpus": 0.5, "replicas": int(replicas), "backbones": backbones}
    serve.run(application(plan), name="specialists", route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
