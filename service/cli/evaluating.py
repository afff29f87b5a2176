"""The work of `gsco evaluate`, apart from its options: torch is slow to import."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service import calibration, composition
from service.cli import leaks, output
from service.domain import Diagnosis
from service.errors import Misconfigured
from service.evaluation import dicom_folder, fingerprints, images, known, page, plan, table, trials
from service.evaluation import figures as told
from service.evaluation.cases import cases_of, readable
from service.evaluation.figures import Figures
from service.evaluation.fingerprints import Fingerprints
from service.evaluation.folder import VALIDATION, Measured, ResultsFolder
from service.evaluation.plan import Plan
from service.evaluation.prepared import Panel
from service.evaluation.record import CaseRecord
from service.evaluation.run import Forgetful, Measurement, Wanted
from service.pipeline import Pipeline
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task, TaskKind
from specialists.training import dataset
from specialists.training.dataset import Dataset
from specialists.training.split import Split

SYSTEMS = {"moed-only": trials.MOED_ONLY, "rad-only": trials.RAD_ONLY}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked on the command line."""

    task: str
    data: Path
    split: str
    systems: Sequence[str]
    stresses: Sequence[str]
    leave_out: Sequence[str]
    specialists_from: str | None
    limit: int | None
    out: Path | None


def evaluate(settings: Settings, options: Options) -> tuple[Figures, ResultsFolder]:
    """All figures, also written to the folder; goes on where an earlier run was interrupted."""
    asked = _plan(settings, options)
    name = f"{asked.task.name}-{options.data.stem}-{asked.split}"
    folder = ResultsFolder(options.out or settings.evaluations_folder / name)
    evaluation = asyncio.run(_evaluated(settings, asked, folder))
    folder.write("metrics.json", json.dumps(table.as_json(evaluation), indent=2) + "\n")
    folder.write("table.md", table.markdown(evaluation))
    page.write(evaluation, folder)
    return evaluation, folder


def calibrate(settings: Settings, evaluation: Figures, coverage: float) -> None:
    """Keep label sets learned from these cases for the service to use."""
    if evaluation.incomplete:
        raise Misconfigured("the cases were not all diagnosed by a complete panel")
    learned = calibration.calibrate(
        evaluation.task,
        evaluation.systems.tables[trials.GSCO],
        evaluation.truth,
        dict(evaluation.measured.conditions),
        coverage,
    )
    path = calibration.write(settings.calibration_folder, learned)
    output.messages.print(
        f"label sets of task {evaluation.task.name!r} calibrated on {len(evaluation.truth)} cases: "
        f"{path}"
    )


def _plan(settings: Settings, options: Options) -> Plan:
    task = tasks.find(settings.tasks_folder, options.task)
    if options.stresses and task.kind is not TaskKind.SINGLE_LABEL:
        raise Misconfigured("--stress is for single-label tasks")
    source = options.specialists_from
    if source == task.name:
        raise Misconfigured(f"--specialists-from names the task of the cases: {source!r}")
    labelled, notes = _read(settings, options.data, task)
    return Plan(
        task=task,
        dataset=labelled,
        split=options.split,
        cases=cases_of(task, labelled.split(options.split), options.limit),
        wanted=Wanted(
            tuple(SYSTEMS[name] for name in _known(options.systems, SYSTEMS)),
            tuple(_known(options.stresses, trials.STRESSES)),
        ),
        neighbours=settings.neighbours,
        specialists_from=tasks.find(settings.tasks_folder, source) if source else task,
        leave_out=tuple(sorted(options.leave_out)),
        notes=(*notes, *_leaks(task, labelled, options.split)),
    )


def _read(settings: Settings, data: Path, task: Task) -> tuple[Dataset, list[str]]:
    """The data set, and what must be told of it."""
    if not (data.is_dir() and dicom_folder.has_dicom(data)):
        found = dataset.read(data, task)
        for split in found.splits.values():
            dicom_folder.check_distinct(split.ids, found.source)
        return found, []
    key = settings.pseudonym_key.get_secret_value().encode()
    labelled = dicom_folder.read(data, task, key)
    total = sum(map(len, labelled.dataset.splits.values())) + len(labelled.broken)
    leaks.say(filter(None, [images.told(labelled.broken, total, data.name)]))
    noted = images.counted(labelled.broken, total, data.name)
    return labelled.dataset, list(filter(None, [noted]))


def _leaks(task: Task, labelled: Dataset, split: str) -> list[str]:
    """What the split shares with the training split."""
    if split == leaks.TRAIN or leaks.TRAIN not in labelled.splits:
        return leaks.nothing_to_compare(split)
    ours, theirs = (_fingerprints(labelled.split(name)) for name in (split, leaks.TRAIN))
    return leaks.told(
        ours,
        theirs,
        leaks.numbered(labelled.split(split).ids, task.name),
        leaks.numbered(labelled.split(leaks.TRAIN).ids, leaks.TRAIN),
    )


def _fingerprints(split: Split) -> Fingerprints:
    """Of the images that can be read; the others are told here."""
    sound, lost = readable(split)
    leaks.say(lost)
    with output.progress() as bar:
        row = bar.add_task("looking for leaks", total=len(sound))
        return fingerprints.fingerprints(sound, lambda done, _: bar.update(row, completed=done))


def _known(asked: Sequence[str], allowed: Sequence[str] | dict[str, str]) -> Sequence[str]:
    for name in asked:
        if name not in allowed:
            raise Misconfigured(f"{name!r} is none of {', '.join(allowed)}")
    return asked


async def _evaluated(settings: Settings, asked: Plan, folder: ResultsFolder) -> Figures:
    with output.progress() as bar:
        row = bar.add_task("preparing", total=len(asked.cases))
        async with composition.running_parts(settings) as parts:
            who = await asyncio.to_thread(
                plan.panel, asked, settings.specialists_folder, settings.device
            )
            pipeline = await _crossed(asked, who, parts.pipeline)
            measurement = Measurement(pipeline, who, asked.cases, asked.wanted, folder)
            measured = plan.measured(asked, who, await _first(measurement))
            with folder.opened(measured):
                await _validate(asked, who, folder)
                bar.update(row, description="diagnosing")
                await measurement.run(lambda: bar.advance(row))
                return await asyncio.to_thread(_figures, asked, measured, folder)


async def _crossed(asked: Plan, who: Panel, pipeline: Pipeline) -> Pipeline:
    """Where the specialists are another task's, they embed this one's reference cases as well."""
    if not asked.crosses:
        return pipeline
    train, _ = await asyncio.to_thread(readable, asked.dataset.split("train"))
    retriever = await asyncio.to_thread(
        known.known_cases, who.specialists, asked.task, train, asked.neighbours
    )
    return replace(pipeline, retriever=retriever)


async def _first(measurement: Measurement) -> Diagnosis:
    """Of the first case that can be read: it shows who answers, and by which weights."""
    for chunk in measurement.cases.chunks():
        ready = await measurement.prepare(chunk)
        if ready.whole:
            pipeline = replace(measurement.pipeline, specialists=ready.panel, store=Forgetful())
            return await pipeline.diagnose(ready.whole[0].case)
    raise Misconfigured("no case of the split can be read")


async def _validate(asked: Plan, who: Panel, folder: ResultsFolder) -> None:
    if not folder.records(VALIDATION):
        await asyncio.to_thread(lambda: folder.keep(plan.validation(asked, who), VALIDATION))


def _figures(asked: Plan, measured: Measured, folder: ResultsFolder) -> Figures:
    records = folder.records_in_order(CaseRecord, asked.cases.ids())
    return told.figures(asked.task, measured, records, folder.records(VALIDATION))
