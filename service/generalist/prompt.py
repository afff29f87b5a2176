"""What the generalist is told: the words of a template, filled with one case and its evidence.

Everything constant comes before the evidence, so that arbitration reuses the prefix that the
initial diagnosis computed (docs/decisions/0002-evidence-last.md). What came from outside is
quoted, shortened and stripped of control characters here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from retrieval.neighbour import Neighbour
from service.domain import Case, Evidence, LabelledAnswer, Prompt, predicted_labels
from service.generalist.template import CHOICES, Template
from specialists.prediction import Segmentation, SpecialistPrediction
from specialists.task import Task, TaskKind

ANSWER_TOKENS = {TaskKind.REPORT: 256, TaskKind.QUESTION: 64}
LABEL_TOKENS = 64
SCORED_LABELS = 5
QUOTED_REPORTS = 3
QUOTED_CHARACTERS = 600
SHARPNESS = 4


def initial(template: Template, case: Case) -> Prompt:
    """The image alone: what the generalist sees by itself."""
    return _prompt(case, asked(template, case.task, case.question, case.choices))


def arbitration(
    template: Template, case: Case, evidence: Evidence, first_look: LabelledAnswer | None = None
) -> Prompt:
    """The same words as the initial prompt, followed by the evidence that there is."""
    begun = asked(template, case.task, case.question, case.choices)
    return _prompt(case, begun + weighed(template, case, evidence, first_look))


def asked(template: Template, task: Task, question: str = "", choices: Sequence[str] = ()) -> str:
    """Role, task, image, permitted answers and answer format."""
    begun = template.asked(
        task.kind,
        modality=task.modality,
        options=_options(task.label_names),
        question=one_line(question),
    )
    if task.kind is TaskKind.QUESTION and choices:
        begun += template.asked(CHOICES, options=_options(choices))
    return begun


def weighed(
    template: Template, case: Case, evidence: Evidence, first_look: LabelledAnswer | None = None
) -> str:
    """The sentences of the evidence, each only where there is something to say."""
    return "".join(_sentences(template, case, evidence, first_look))


def sha256(prompt: Prompt) -> str:
    """Names a rendered prompt without keeping it: image, text and permitted answers."""
    parts = (prompt.image.pixels_sha256, prompt.text, *prompt.choices)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def one_line(text: str) -> str:
    """The text without line breaks and other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def quoted(text: str, limit: int = QUOTED_CHARACTERS) -> str:
    """Somebody else's words between quotation marks, none inside, and shortened to `limit`."""
    line = one_line(text).replace('"', "'")
    return f'"{line}"' if len(line) <= limit else f'"{line[:limit].rstrip()} …"'


def weighted_average(task: Task, panel: Sequence[SpecialistPrediction]) -> tuple[float, ...]:
    """Mean probability per label; a specialist counts by its accuracy above chance, to the fourth.

    The power was chosen on validation: one good member outweighs nine near chance, and two good
    ones share the word.
    """
    chance = 1 / len(task.labels) if task.kind is TaskKind.SINGLE_LABEL else 0.5
    weights = [max(0.0, (one.validation_accuracy or 0.0) - chance) ** SHARPNESS for one in panel]
    if not any(weights):
        weights = [1.0] * len(panel)
    total = sum(weights)
    columns = zip(*(one.probabilities for one in panel), strict=True)
    return tuple(
        sum(w * p for w, p in zip(weights, column, strict=True)) / total for column in columns
    )


def _sentences(
    template: Template, case: Case, evidence: Evidence, first_look: LabelledAnswer | None
) -> Iterator[str]:
    task = case.evidence_task
    if first_look is not None:
        yield template.said("first_look", list=_scored(case.task, first_look.probabilities))
    if evidence.rad:
        yield from _known(template, case, evidence)
    if evidence.moed:
        panel = sorted(evidence.moed, key=lambda one: -(one.validation_accuracy or 0.0))
        predictions = (_predicted(template, task, one) for one in panel)
        yield template.said("predictions", list=", ".join(predictions))
        yield template.said("average", list=_scored(task, weighted_average(task, panel)))
    if evidence.segmentations:
        outlined = (_segmented(template, one) for one in evidence.segmentations)
        yield template.said("segmentations", list="; ".join(outlined))
    if case.draft:
        yield template.said("draft", text=quoted(case.draft))


def _known(template: Template, case: Case, evidence: Evidence) -> Iterator[str]:
    neighbours = [_neighbour(template, one) for one in evidence.rad if one.case.labels]
    if neighbours:
        yield template.said("neighbours", list=", ".join(neighbours))
    if evidence.typicality is not None:
        yield template.said("typicality", typicality=_percent(evidence.typicality))
    reports = [one.case.report for one in evidence.rad if one.case.report.strip()]
    if case.task.kind is TaskKind.REPORT and reports:
        yield template.said("reports", list=", ".join(map(quoted, reports[:QUOTED_REPORTS])))


def _neighbour(template: Template, neighbour: Neighbour) -> str:
    return template.said(
        "neighbour",
        labels=_joined(neighbour.case.labels),
        similarity=_percent(neighbour.similarity),
    )


def _predicted(template: Template, task: Task, prediction: SpecialistPrediction) -> str:
    named = predicted_labels(task, prediction)
    by_name = dict(zip(task.label_names, prediction.probabilities, strict=True))
    accuracy = prediction.validation_accuracy
    return template.said(
        "prediction",
        specialist=prediction.specialist,
        labels=_joined(named),
        scored=_joined(f"{name} {_percent(by_name[name])}%" for name in named),
        accuracy="?" if accuracy is None else _percent(accuracy),
    )


def _segmented(template: Template, one: Segmentation) -> str:
    """Where, how large, how certain; or that nothing was found."""
    dice = one.validation_dice
    known = {
        "specialist": one.specialist,
        "segment": one.segment,
        "certainty": _percent(one.certainty),
        "dice": "?" if dice is None else _percent(dice),
    }
    if not one.areas:
        return template.said("nothing_segmented", **known)
    share = f"{100 * one.share:.1f}"
    places = " and ".join(one.places)
    return template.said("segmentation", share=share, areas=one.areas, places=places, **known)


def _scored(task: Task, probabilities: Sequence[float]) -> str:
    """The likeliest labels with their probabilities, the likeliest first."""
    pairs = sorted(zip(task.label_names, probabilities, strict=True), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {_percent(p)}%" for name, p in pairs[:SCORED_LABELS])


def _percent(share: float) -> int:
    return round(100 * min(1.0, max(0.0, share)))


def _options(names: Sequence[str]) -> str:
    return ", ".join(f'"{one_line(name)}"' for name in names)


def _joined(labels: Iterable[str]) -> str:
    return " and ".join(labels) or "nothing"


def _prompt(case: Case, text: str) -> Prompt:
    task = case.task
    if task.is_labelled:
        return Prompt(
            case.image,
            text,
            task.label_names,
            LABEL_TOKENS,
            several=task.kind is TaskKind.MULTI_LABEL,
            nothing=task.nothing_found,
        )
    return Prompt(case.image, text, case.choices, ANSWER_TOKENS[task.kind])
