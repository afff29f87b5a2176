"""Do similar cases add anything to the panel? Asked with images that no specialist has seen.

Reference cases are mostly the images that the specialists were trained on, and place each other
too well: what `retrieval.assess` reads off them flatters retrieval. Here the images of another
split are looked up as the service looks them up, and their neighbours' shares of labels are
weighed beside the panel's mean probability, which is what retrieval must improve on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.assess import Verdict
from retrieval.bootstrap import Counts, Estimate, Labels, counts, difference, macro_f1
from retrieval.errors import NothingToAssess
from retrieval.neighbour import Neighbour, Query
from service import ports
from service.domain import labels_of, pixels_sha256, target_labels
from specialists.forward import Arrays
from specialists.task import Task
from specialists.training.split import Split

FEWEST_IMAGES = 20

OnProgress = Callable[[int, int], None]
Shares = NDArray[np.float64]  # (images, labels), 0 to 1


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Macro-averaged F1 with 95 % intervals, patients drawn with replacement.

    `panel` is the specialists' mean probability, `neighbours` the share of the similar cases that
    have a label, `both` the mean of the two.
    """

    task: str
    cases: int
    groups: int
    panel: Estimate
    neighbours: Estimate
    both: Estimate
    both_over_panel: Estimate

    @property
    def verdict(self) -> Verdict:
        """Similar cases help where panel and neighbours beat the panel alone beyond doubt."""
        if self.both_over_panel.low > 0:
            return Verdict.HELPS
        return Verdict.UNDECIDED if self.both_over_panel.value > 0 else Verdict.DOES_NOT_HELP


async def assess(
    retriever: ports.Retriever,
    task: Task,
    split: Split,
    answers: Mapping[str, Arrays],
    encoders: Mapping[str, str],
    on_progress: OnProgress | None = None,
) -> HeldOut:
    """`answers` are what every specialist says of the split's images, `encoders` their weights.

    Raises NothingToAssess where there are too few images, or none of them has a neighbour.
    """
    if len(split) < FEWEST_IMAGES:
        raise NothingToAssess(f"{len(split)} images are too few to tell: {FEWEST_IMAGES}")
    panel = np.mean([probabilities for probabilities, _ in answers.values()], axis=0)
    found: list[tuple[Neighbour, ...]] = []
    reasons: dict[str, None] = {}
    for place, (pixels, group) in enumerate(zip(split.images, split.groups, strict=True)):
        if on_progress:
            on_progress(place, len(split))
        queries = tuple(
            Query(name, encoders[name], embeddings[place])
            for name, (_, embeddings) in answers.items()
        )
        sha256 = pixels_sha256(pixels)
        known = await retriever.search(task.name, queries, group=group, image_sha256=sha256)
        found.append(known.neighbours)
        reasons |= dict.fromkeys(one.reason for one in known.missing)
    if not any(found):
        why = next(iter(reasons), "there are no cases like them")
        raise NothingToAssess(f"no image has a neighbour on task {task.name!r}: {why}")
    return judged(task, split, panel, _shares(task, found, panel))


def judged(task: Task, split: Split, panel: Shares, neighbours: Shares) -> HeldOut:
    """The figures, of what both say of the split's images."""
    groups = [group or id for group, id in zip(split.groups, split.ids, strict=True)]
    truth = [target_labels(task, target) for target in split.targets]

    def counted(shares: Shares) -> Counts:
        return counts(_told(task, shares), truth, groups, task.label_names)

    alone, both = counted(panel), counted((panel + neighbours) / 2)
    return HeldOut(
        task=task.name,
        cases=len(split),
        groups=len(set(groups)),
        panel=macro_f1(alone),
        neighbours=macro_f1(counted(neighbours)),
        both=macro_f1(both),
        both_over_panel=difference(both, alone),
    )


def _told(task: Task, shares: Shares) -> list[Labels]:
    return [labels_of(task, tuple(row)) for row in shares.tolist()]


def _shares(task: Task, found: Sequence[tuple[Neighbour, ...]], panel: Shares) -> Shares:
    """Of the neighbours of each image, how many have each label; the panel's where it has none."""
    return np.array(
        [
            [np.mean([name in one.case.labels for one in near]) for name in task.label_names]
            if near
            else row
            for near, row in zip(found, panel, strict=True)
        ]
    )
