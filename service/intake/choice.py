"""Which task a DICOM image is for, when whoever sends it names none."""

from collections.abc import Iterable, Iterator

from service.errors import InvalidInput, UnsupportedImage
from service.intake.deidentify import DicomAttributes
from specialists.task import Rule, Task


def chosen_task(attributes: DicomAttributes | None, tasks: Iterable[Task]) -> Task:
    """The task with the most specific rule that the image fits.

    Raises UnsupportedImage where it fits none, InvalidInput where two tasks say equally much: a
    guess between them would be a wrong question asked in silence.
    """
    if attributes is None:
        raise InvalidInput("name a task: only a DICOM file says what it shows")
    fitting = list(_fitting(attributes, tasks))
    if not fitting:
        kind = attributes.modality or "unknown modality"
        raise UnsupportedImage(f"no task has a rule for this image ({kind}): name a task")
    most = max(conditions for conditions, _ in fitting)
    best = [task for conditions, task in fitting if conditions == most]
    if len(best) > 1:
        names = " and ".join(repr(task.name) for task in best)
        raise InvalidInput(f"the rules of tasks {names} fit this image equally well: name a task")
    return best[0]


def _fitting(attributes: DicomAttributes, tasks: Iterable[Task]) -> Iterator[tuple[int, Task]]:
    for task in tasks:
        conditions = [rule.conditions for rule in task.rules if _fits(attributes, rule)]
        if conditions:
            yield max(conditions), task


def _fits(attributes: DicomAttributes, rule: Rule) -> bool:
    parts = {attributes.body_part_examined, *attributes.anatomic_regions}
    return (
        (not rule.modality or attributes.modality in rule.modality)
        and (not rule.body_part or not parts.isdisjoint(rule.body_part))
        and (not rule.procedure or not set(attributes.procedure_codes).isdisjoint(rule.procedure))
    )
