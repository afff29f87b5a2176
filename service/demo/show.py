"""One synthetic case of every demo task, sent to a running service as a client would."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from service.demo import phantoms
from service.demo.tasks import DemoTask, demo_tasks
from service.errors import GscoError

CASE_SEED = 77
READY_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ShownCase:
    """What the service said of a case whose truth is known; `diagnosis` is its JSON."""

    task: str
    truth: str
    diagnosis: dict[str, Any]

    @property
    def label(self) -> str:
        return " and ".join(self.diagnosis["labels"])


async def send_all(client: httpx.AsyncClient) -> list[ShownCase]:
    """A diagnosis for one case of each demo task; raises GscoError with what the service said."""
    return [await send(client, demo) for demo in demo_tasks()]


async def send(client: httpx.AsyncClient, demo: DemoTask) -> ShownCase:
    """The chest phantom travels as DICOM, the others as PNG."""
    phantom = next(demo.series(1, seed=CASE_SEED))
    files = {"file": ("case", _encoded(phantom, dicom=demo.kind == "chest"))}
    reply = await client.post("/v1/diagnoses", files=files, data={"task": demo.task.name})
    if reply.status_code != httpx.codes.CREATED:
        raise GscoError(f"the service answered {reply.status_code}: {reply.text[:500]}")
    return ShownCase(demo.task.name, phantom.labels[0], reply.json())


def as_json(shown: list[ShownCase]) -> dict[str, Any]:
    """The document of `gsco demo --json`."""
    return {
        "note": "synthetic images and nano models: a demonstration, not a measure of quality",
        "cases": [
            {
                "task": case.task,
                "truth": case.truth,
                "label": case.label,
                "correct": case.label == case.truth,
                "diagnosis": case.diagnosis,
            }
            for case in shown
        ],
    }


def _encoded(phantom: phantoms.Phantom, *, dicom: bool) -> bytes:
    with TemporaryDirectory(prefix="gsco-demo-") as folder:
        path = Path(folder) / "case"
        (phantoms.write_dicom if dicom else phantoms.write_png)(phantom, path)
        return path.read_bytes()
