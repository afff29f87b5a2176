"""What is to be measured: the data, the panel and the reference cases, made ready and named."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from service import calibration
from service.domain import Diagnosis, Result, pixels_sha256
from service.errors import Misconfigured
from service.evaluation.cases import UNREADABLE, Cases, cases_of, patients
from service.evaluation.folder import Measured
from service.evaluation.prepared import Panel
from service.evaluation.record import CaseRecord
from service.evaluation.run import Wanted
from service.evaluation.sources import TextCases
from specialists.errors import InvalidDataset
from specialists.loader import Specialist
from specialists.task import Task
from specialists.training import evaluate
from specialists.training.dataset import Dataset
from specialists.training.split import Split

MOST_VALIDATION_CASES = 2000


@dataclass(frozen=True, eq=False)
class Plan:
    """One evaluation as it was asked for. `specialists_from` names the task they learned."""

    task: Task
    dataset: Dataset
    split: str
    cases: Cases
    wanted: Wanted
    neighbours: int
    specialists_from: Task
    leave_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def crosses(self) -> bool:
        """Whether the specialists come from elsewhere, with the reference cases of this data."""
        return self.specialists_from.name != self.task.name


def panel(plan: Plan, folder: Path, device: str) -> Panel:
    """The task's specialists without those left out; raises Misconfigured where nobody is left."""
    source = plan.specialists_from
    if source.label_names != plan.task.label_names:
        raise Misconfigured(
            f"specialists of {source.name!r} name {', '.join(source.label_names)}; "
            f"task {plan.task.name!r} asks for {', '.join(plan.task.label_names)}"
        )
    found, missing = evaluate.load_panel(folder / source.name, source, device=device)
    out = _left_out(plan.leave_out, found)
    kept = tuple(one for one in found if one.name not in out)
    if not kept:
        reason = f": {missing[0].reason}" if missing else ""
        raise Misconfigured(f"no specialist of task {source.name!r} to measure{reason}")
    return Panel(kept, tuple(one for one in missing if one.specialist not in out))


def measured(plan: Plan, who: Panel, first: Diagnosis) -> Measured:
    """What the records will have in common, as the first diagnosis shows it."""
    known = {one.name for one in who.specialists}
    return Measured(
        task=plan.task.name,
        data=plan.dataset.source,
        data_fingerprint=fingerprint(plan.cases),
        split=plan.split,
        cases=len(plan.cases),
        systems=plan.wanted.systems,
        stresses=plan.wanted.stresses,
        neighbours=plan.neighbours,
        left_out=plan.leave_out,
        specialists_from=plan.specialists_from.name,
        validation_accuracies={
            one.specialist: one.validation_accuracy
            for one in first.evidence.moed
            if one.specialist in known and one.validation_accuracy is not None
        },
        conditions=calibration.conditions(first.provenance),
        index_ids=first.provenance.index_ids,
        code_version=version("gsco"),
        notes=plan.notes,
    )


def measured_texts(
    task: Task, cases: TextCases, neighbours: int, first: Result, notes: Sequence[str]
) -> Measured:
    """The same of questions and reports."""
    told = "".join(map(repr, cases.cases))
    return Measured(
        task=task.name,
        data=cases.source,
        data_fingerprint=hashlib.sha256(told.encode()).hexdigest(),
        split=cases.split,
        cases=len(cases),
        systems=(),
        stresses=(),
        neighbours=neighbours,
        left_out=(),
        specialists_from=task.consults or task.name,
        validation_accuracies={},
        conditions=calibration.conditions(first.provenance),
        index_ids=first.provenance.index_ids,
        code_version=version("gsco"),
        notes=tuple(notes),
    )


def fingerprint(cases: Cases) -> str:
    """sha256 over the names, targets, groups and pixels of the cases chosen."""
    split, digest = cases.split, hashlib.sha256()
    for place in cases.places:
        told = (split.ids[place], split.targets[place].tolist(), split.groups[place])
        digest.update(repr((*told, _pixels(split, place))).encode())
    return digest.hexdigest()


def validation(plan: Plan, who: Panel) -> Iterator[CaseRecord]:
    """What the specialists say of the validation split: what a baseline may be fitted on."""
    if plan.split == "val" or "val" not in plan.dataset.splits:
        return
    some = cases_of(plan.task, plan.dataset.split("val"), MOST_VALIDATION_CASES)
    numbers = dict(zip(some.ids(), patients(some), strict=True))
    whole, broken = some.read()
    for lost in broken:
        yield CaseRecord(lost.id, numbers[lost.id], broken=lost.reason)
    images = [one.case.image.pixels for one in whole]
    said = evaluate.run(who.specialists, images) if images else {}
    for row, one in enumerate(whole):
        yield CaseRecord(
            id=one.case.id,
            patient=numbers[one.case.id],
            labels=one.labels,
            pixels_sha256=one.case.image.pixels_sha256,
            specialists={name: tuple(odds[row].tolist()) for name, (odds, _) in said.items()},
        )


def _pixels(split: Split, place: int) -> str:
    try:
        return pixels_sha256(split.images[place])
    except InvalidDataset:
        return UNREADABLE


def _left_out(asked: Sequence[str], found: Sequence[Specialist]) -> set[str]:
    """Names, or a number: so many of those least accurate on validation."""
    names = [one.name for one in found]
    if len(asked) == 1 and asked[0].isdigit():
        by_accuracy = sorted(found, key=lambda one: one.manifest.validation.get("accuracy") or 0.0)
        return {one.name for one in by_accuracy[: int(asked[0])]}
    for name in asked:
        if name not in names:
            raise Misconfigured(f"no specialist {name!r} to leave out, only {', '.join(names)}")
    return set(asked)
