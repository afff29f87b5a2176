"""The work of `gsco evaluate` for questions and reports."""

import asyncio
import json
from pathlib import Path

from service import app as composition
from service.cli import output
from service.errors import Misconfigured
from service.evaluation import images, outside_labels, plan, rule_labeller, sources, text_figures
from service.evaluation.findings import Labeller
from service.evaluation.folder import ResultsFolder
from service.evaluation.prepared import Panel
from service.evaluation.record import TextRecord
from service.evaluation.sources import TextCases
from service.evaluation.text_figures import TextFigures
from service.evaluation.text_run import TextMeasurement
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task
from specialists.training import evaluate as panels

PHANTOM = "phantom"


def evaluate(
    settings: Settings, task: Task, data: Path, split: str, labeller: str, out: Path | None
) -> tuple[TextFigures, ResultsFolder]:
    """All figures, also written to the folder; goes on where an earlier run was interrupted."""
    cases = sources.read(data, task.kind, split)
    folder = ResultsFolder(
        out or settings.home / "evaluations" / f"{task.name}-{data.stem}-{split}"
    )
    found = asyncio.run(_evaluated(settings, task, cases, _labeller(labeller), folder))
    folder.write("metrics.json", json.dumps(text_figures.as_json(found), indent=2) + "\n")
    folder.write("table.md", text_figures.markdown(found))
    return found, folder


async def _evaluated(
    settings: Settings,
    task: Task,
    cases: TextCases,
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
            measured = plan.measured_texts(task, cases, settings.neighbours, first)
            with folder.opened(measured):
                await measurement.run(lambda: bar.advance(row))
                records = folder.records_of(TextRecord)
    lost = images.told(cases.broken, len(cases) + len(cases.broken), cases.source)
    place = {one.id: number for number, one in enumerate(cases.cases)}
    records.sort(key=lambda one: place[one.id])
    return text_figures.figures(task, measured, records, [lost] if lost else [], labeller)


def _panel(settings: Settings, consulted: Task | None) -> Panel | None:
    if consulted is None:
        return None
    return Panel(
        *panels.load_panel(
            settings.specialists_folder / consulted.name, consulted, device=settings.device
        )
    )


def _labeller(name: str) -> Labeller | None:
    """`phantom`, a TOML file of rules, or a file of labels made outside; none where not asked."""
    if not name:
        return None
    if name == PHANTOM:
        return rule_labeller.phantom_labeller()
    path = Path(name)
    if not path.is_file():
        raise Misconfigured(f"no labeller {name!r}: choose phantom, or a .toml, .csv or .json file")
    if path.suffix == ".toml":
        return rule_labeller.read_rules(path)
    return outside_labels.read_labels(path)
