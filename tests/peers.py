"""Real peers on this machine: Orthanc, and the tools of DCMTK. CI installs both (.ci/run)."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from listening import free_port

DCMTK = Path("/usr/bin")  # by its place: pynetdicom puts tools of the same names into the venv
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "pacs", "pacs-test"
_SECONDS = 30


@dataclass
class Orthanc:
    """A running Orthanc; `port` is HTTP's, `dicom_port` that of C-STORE."""

    port: int
    dicom_port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            auth=(USER, PASSWORD),
            timeout=60,
            trust_env=False,
        )

    def start(self) -> None:
        """Starts it, with whatever its folder holds, and waits until it answers."""
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log
            )
        _wait(self, self.folder / "orthanc.log")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(_SECONDS)

    @property
    def dicomweb_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def add(self, file: bytes) -> str:
        """Puts an instance into the PACS; its id there."""
        reply = self.http.post(
            "/instances", content=file, headers={"content-type": "application/dicom"}
        )
        reply.raise_for_status()
        return str(reply.json()["ID"])

    def ask(self, path: str, document: Any) -> httpx.Response:
        return self.http.post(path, json=document)


@contextmanager
def orthanc(folder: Path, **configuration: Any) -> Iterator[Orthanc]:
    """Orthanc with an empty store in the folder; `configuration` adds to the usual one."""
    pacs = Orthanc(free_port(), free_port(), folder)
    settings = _configuration(pacs, folder) | configuration
    (folder / "orthanc.json").write_text(json.dumps(settings))
    try:
        pacs.start()
        yield pacs
    finally:
        pacs.http.close()
        if pacs.process is not None:
            pacs.process.terminate()
            pacs.process.wait(_SECONDS)


def dcmtk(
    tool: str, *arguments: object, seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Runs a tool of DCMTK to its end."""
    command = [str(DCMTK / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def _configuration(pacs: Orthanc, folder: Path) -> dict[str, Any]:
    return {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],  # and never orthanc-gdcm, which crashes
        "HttpPort": pacs.port,
        "DicomPort": pacs.dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomAlwaysAllowStore": False,
        "DicomCheckModalityHost": True,
        "StableAge": 2,
    }


def _wait(pacs: Orthanc, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if pacs.http.get("/system").is_success:
                return
        time.sleep(0.1)
    raise AssertionError(f"Orthanc does not start:\n{log.read_text()[-2000:]}")
