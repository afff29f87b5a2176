"""The work of `gsco evaluate` for questions and reports."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from service import composition
from service.cli import leaks, output
from service.errors import InvalidInput, Misconfigured
from service.evaluation import (
    fingerprints,
    images,
    outside_labels,
    plan,
    rule_labeller,
    sources,
    text_figures,
)
from service.evaluation.findings import Labeller
from service.evaluation.folder import ResultsFolder
from service.evaluation.prepared import Panel
from service.evaluation.record import TextRecord
from service.evaluation.sources import TextCases
from service.evaluation.text_figures import TextFigures
from service.evaluation.text_run import TextMeasurement
from service.settings import Settings
from specialists import task as tasks
from specialists.errors import InvalidDataset
from specialists.task import Task, TaskKind
from specialists.training import evaluate as panels

PHANTOM = "phantom"


def evaluate(
    settings: Settings,
    task: Task,
    data: Path,
    split: str,
    labeller: str,
    limit: int | None,
    out: Path | None,
) -> tuple[TextFigures, ResultsFolder]:
    """All figures, also written to the folder; goes on where an earlier run was interrupted."""
    found_labeller = _labeller(task, labeller)
    cases = sources.read(data, task.kind, split)
    broken = _broken(cases)
    cases = cases.limited(limit)
    notes = _leaks(task, cases, data)
    folder = ResultsFolder(out or settings.evaluations_folder / f"{task.name}-{data.stem}-{split}")
    found = asyncio.run(_evaluated(settings, task, cases, notes, broken, found_labeller, folder))
    folder.write("metrics.json", json.dumps(text_figures.as_json(found), indent=2) + "\n")
    folder.write("table.md", text_figures.markdown(found))
    return found, folder


async def _evaluated(
    settings: Settings,
    task: Task,
    cases: TextCases,
    notes: Sequence[str],
    broken: Sequence[str],
    labeller: Labeller | None,
    folder: ResultsFolder,
) -> TextFigures:
    consulted = tasks.find(settings.tasks_folder, task.consults) if task.consults else None
    with output.progress() as bar:
        row = bar.add_task("answering", total=len(cases))
        async with composition.running_parts(settings) as parts:
            who = await asyncio.to_thread(_panel, settings, consulted)
            measurement = TextMeasurement(parts.pipeline, who, task, consulted, cases, folder)
            first = await measurement.first()
            measured = plan.measured_texts(task, cases, settings.neighbours, first, notes)
            with folder.opened(measured):
                await measurement.run(lambda: bar.advance(row))
                records = folder.records_in_order(TextRecord, measurement.ids())
    return text_figures.figures(task, measured, records, broken, labeller)


def _broken(cases: TextCases) -> list[str]:
    """How many images cannot be read; which ones, only on the terminal."""
    if not cases.broken:
        return []
    total = len({one.image for one in cases.cases}) + len(cases.broken)
    leaks.say([images.told(cases.broken, total, cases.source)])
    return [images.counted(cases.broken, total, cases.source)]


def _leaks(task: Task, cases: TextCases, data: Path) -> list[str]:
    """What the cases share with the training split."""
    if cases.split == leaks.TRAIN:
        return leaks.nothing_to_compare(cases.split)
    try:
        train = sources.read(data, task.kind, leaks.TRAIN)
    except InvalidDataset:
        return leaks.nothing_to_compare(cases.split)
    ours, theirs = (fingerprints.fingerprints(one.one_per_image()) for one in (cases, train))
    return leaks.told(
        ours, theirs, leaks.numbered(cases.ids, task.name), leaks.numbered(train.ids, leaks.TRAIN)
    )


def _panel(settings: Settings, consulted: Task | None) -> Panel | None:
    if consulted is None:
        return None
    return Panel(
        *panels.load_panel(
            settings.specialists_folder / consulted.name, consulted, device=settings.device
        )
    )


def _labeller(task: Task, name: str) -> Labeller | None:
    """`phantom`, a TOML file of rules, or a file of labels made outside; none where not asked."""
    if not name:
        return None
    if task.kind is not TaskKind.REPORT:
        raise Misconfigured("--labeller is for report tasks")
    try:
        return _read_labeller(name)
    except InvalidInput as error:
        raise Misconfigured(str(error)) from error


def _read_labeller(name: str) -> Labeller:
    if name == PHANTOM:
        return rule_labeller.phantom_labeller()
    path = Path(name)
    if not path.is_file():
        raise Misconfigured(f"no labeller {name!r}: choose phantom, or a .toml, .csv or .json file")
    if path.suffix == ".toml":
        return rule_labeller.read_rules(path)
    return outside_labels.read_labels(path)
