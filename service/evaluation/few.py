"""A small share of a split's patients, with every label still there."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import Misconfigured
from specialists.task import Task
from specialists.training.split import Split, marked

_SEED = 20261121
_ALONE = "image "


def groups_of(split: Split) -> list[str]:
    """The group of every image; one without a group stands alone."""
    pairs = zip(split.groups, split.ids, strict=True)
    return [f"group {group}" if group else f"{_ALONE}{id}" for group, id in pairs]


def stands_alone(group: str) -> bool:
    """Whether nobody said whose image it is."""
    return group.startswith(_ALONE)


def few(task: Task, split: Split, share: float, seed: int) -> Split:
    """The images of about `share` of the groups, drawn within strata of their rarest label.

    The same seed draws the same. Raises Misconfigured where a label has no image at all, or the
    share leaves fewer groups than labels.
    """
    truth = marked(task, split.targets)
    _demand_every_label(task, truth)
    names, members = np.unique(np.asarray(groups_of(split)), return_inverse=True)
    has = np.zeros((len(names), truth.shape[1]), dtype=np.bool_)  # (groups, labels)
    np.logical_or.at(has, members, truth)
    if share < 1:
        _demand_enough(task, share, len(names))
        chosen = _drawn(has, share, np.random.default_rng([_SEED, seed]))
        return split.choose(np.flatnonzero(np.isin(members, chosen)).tolist())
    return split


def _demand_every_label(task: Task, truth: NDArray[np.bool_]) -> None:
    counts: NDArray[np.int64] = truth.sum(axis=0)
    absent = [name for name, n in zip(task.label_names, counts.tolist(), strict=True) if not n]
    if absent:
        raise Misconfigured(f"no training image has the label {absent[0]!r} of task {task.name!r}")


def _demand_enough(task: Task, share: float, groups: int) -> None:
    if not share > 0:
        raise Misconfigured(f"a fraction of {share:g} leaves nothing to train on")
    if round(share * groups) < len(task.labels):
        least = np.ceil(1000 * len(task.labels) / groups) / 1000
        raise Misconfigured(
            f"a fraction of {share:g} is {round(share * groups)} of {groups} patients, too few for "
            f"{len(task.labels)} labels: take at least {least:g}"
        )


def _drawn(has: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    strata = _strata(has)
    drawn: list[int] = []
    for stratum in np.unique(strata):
        among = np.flatnonzero(strata == stratum)
        drawn += rng.permutation(among)[: max(1, round(share * len(among)))].tolist()
    return np.array(drawn + _for_lost_labels(has, drawn, rng), dtype=np.int64)


def _strata(has: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(groups,): the place of the label that fewest groups have; -1 of a group without labels."""
    by_rarity = np.argsort(has.sum(axis=0), kind="stable")
    rarest = by_rarity[has[:, by_rarity].argmax(axis=1)]
    return np.where(has.any(axis=1), rarest, -1)


def _for_lost_labels(
    has: NDArray[np.bool_], drawn: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """A group more for every label that is never a group's rarest and was not drawn with one."""
    more: list[int] = []
    for label in range(has.shape[1]):
        if not has[[*drawn, *more], label].any():
            more.append(int(rng.choice(np.flatnonzero(has[:, label]))))
    return more
