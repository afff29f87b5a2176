"""Before any figure: whether test cases were seen in training or lie among the reference cases.

found = leakage(fingerprints(test), fingerprints(train), among="train")
for sentence in found.sentences(): ...
"""

from collections.abc import Iterable
from dataclasses import dataclass

from service.evaluation.fingerprints import Fingerprints, nearly_identical

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Leak:
    """A test case, and the first case of the other side that it shares something with."""

    case: str
    other: str


@dataclass(frozen=True, slots=True)
class Leakage:
    """What test cases share with others; a case is in every list that fits, once."""

    among: str  # what the others are: "train", "the reference cases"
    cases: int
    others: int
    known_groups: int  # of how many test cases the group is known
    same_group: tuple[Leak, ...]
    identical: tuple[Leak, ...]
    nearly_identical: tuple[Leak, ...]  # without the identical

    @property
    def is_clean(self) -> bool:
        return not self.leaking

    @property
    def leaking(self) -> frozenset[str]:
        """The ids of test cases that share anything."""
        everything = (*self.same_group, *self.identical, *self.nearly_identical)
        return frozenset(leak.case for leak in everything)

    def sentences(self) -> tuple[str, ...]:
        """What to tell before the figures; always at least one sentence."""
        return tuple(self._told())

    def _told(self) -> Iterable[str]:
        of = f"of {self.cases} test cases"
        if self.is_clean:
            yield f"None {of} was found among the {self.others} of {self.among}."
        if self.same_group:
            yield (
                f"{len(self.same_group)} {of} share a group (patient or study) with {self.among}"
                f"{_examples(self.same_group)}."
            )
        if self.identical:
            yield (
                f"{len(self.identical)} {of} have an image that is also in {self.among}"
                f"{_examples(self.identical)}."
            )
        if self.nearly_identical:
            yield (
                f"{len(self.nearly_identical)} {of} have an image that looks the same as one in "
                f"{self.among}{_examples(self.nearly_identical)}."
            )
        if self.known_groups < self.cases:
            unknown = self.cases - self.known_groups
            yield f"The group of {unknown} {of} is unknown: only their images were compared."


def leakage(test: Fingerprints, others: Fingerprints, among: str = "train") -> Leakage:
    """What the test cases share with the others."""
    identical = _sharing(test, others, test.sha256s, others.sha256s)
    pairs = nearly_identical(test, others).tolist()
    exact = {leak.case for leak in identical}
    near: dict[str, Leak] = {}
    for place, other in pairs:
        if test.ids[place] not in exact:
            near.setdefault(test.ids[place], Leak(test.ids[place], others.ids[other]))
    return Leakage(
        among=among,
        cases=len(test),
        others=len(others),
        known_groups=sum(group is not None for group in test.groups),
        same_group=_sharing(test, others, test.groups, others.groups),
        identical=identical,
        nearly_identical=tuple(near.values()),
    )


def _sharing(
    test: Fingerprints,
    others: Fingerprints,
    keys: Iterable[str | None],
    other_keys: Iterable[str | None],
) -> tuple[Leak, ...]:
    first: dict[str | None, str] = {}
    for key, id in zip(other_keys, others.ids, strict=True):
        first.setdefault(key, id)
    return tuple(
        Leak(id, first[key])
        for key, id in zip(keys, test.ids, strict=True)
        if key is not None and key in first
    )


def _examples(leaks: tuple[Leak, ...]) -> str:
    return ", such as " + ", ".join(f"{leak.case} ({leak.other})" for leak in leaks[:_SHOWN])
