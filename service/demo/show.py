"""One synthetic case of every demo task, sent to a running service as a client would."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from service.demo import phantoms
from service.demo.tasks import DemoTask, demo_tasks, told_tasks
from service.errors import GscoError
from specialists.task import TaskKind

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


@dataclass(frozen=True, slots=True)
class ShownReport:
    """What the service wrote of a case whose report is known; `report` is its JSON."""

    task: str
    truth: str
    report: dict[str, Any]


async def send_all(client: httpx.AsyncClient) -> list[ShownCase]:
    """A diagnosis for one case of each demo task; raises GscoError with what the service said."""
    return [await send(client, demo) for demo in demo_tasks()]


async def write_report(client: httpx.AsyncClient) -> ShownReport:
    """The report of a chest phantom, drafted with the findings task's evidence."""
    (findings,) = (demo for demo in demo_tasks() if demo.task.kind is TaskKind.MULTI_LABEL)
    report, _ = told_tasks()
    phantom = _case_of(findings)
    files = {"file": ("case", _encoded(phantom, dicom=True))}
    reply = await _post(client, "/v1/reports", files, {"task": report.name})
    return ShownReport(report.name, phantom.report, reply)


async def send(client: httpx.AsyncClient, demo: DemoTask) -> ShownCase:
    """The chest phantom travels as DICOM, the others as PNG."""
    phantom = _case_of(demo)
    files = {"file": ("case", _encoded(phantom, dicom=demo.kind == "chest"))}
    reply = await _post(client, "/v1/diagnoses", files, {"task": demo.task.name})
    return ShownCase(demo.task.name, " and ".join(phantom.labels), reply)


def _case_of(demo: DemoTask) -> phantoms.Phantom:
    """The first that shows something, where there are several findings to show."""
    several = demo.task.kind is TaskKind.MULTI_LABEL
    drawn = demo.series(20 if several else 1, seed=CASE_SEED)
    return next(phantom for phantom in drawn if not several or len(phantom.labels) > 1)


async def _post(
    client: httpx.AsyncClient, address: str, files: dict[str, Any], fields: dict[str, str]
) -> dict[str, Any]:
    reply = await client.post(address, files=files, data=fields)
    if reply.status_code != httpx.codes.CREATED:
        raise GscoError(f"the service answered {reply.status_code}: {reply.text[:500]}")
    document: dict[str, Any] = reply.json()
    return document


def as_json(shown: list[ShownCase], report: ShownReport) -> dict[str, Any]:
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
        "report": {
            "task": report.task,
            "truth": report.truth,
            "text": report.report["text"],
            "report": report.report,
        },
    }


def _encoded(phantom: phantoms.Phantom, *, dicom: bool) -> bytes:
    with TemporaryDirectory(prefix="gsco-demo-") as folder:
        path = Path(folder) / "case"
        (phantoms.write_dicom if dicom else phantoms.write_png)(phantom, path)
        return path.read_bytes()
