"""What test cases share with the training split, told before any number."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from service.cli import output
from service.evaluation.fingerprints import Fingerprints
from service.evaluation.leakage import leakage

TRAIN = "train"

Names = Mapping[str, str]  # of images, by their ids


def told(
    ours: Fingerprints, theirs: Fingerprints, our_names: Names, their_names: Names
) -> list[str]:
    """On the terminal by the names of files; what comes back to be kept names nobody."""
    say(leakage(ours, theirs).sentences())
    numbered = leakage(_renamed(ours, our_names), _renamed(theirs, their_names))
    return list(numbered.sentences())


def nothing_to_compare(split: str) -> list[str]:
    """Why nothing was looked for, told in the same two places."""
    sentence = (
        "These are the training cases themselves."
        if split == TRAIN
        else "There is no training split to look for leaks in."
    )
    say([sentence])
    return [sentence]


def numbered(ids: Iterable[str], name: str) -> Names:
    """By their place in the split, as cases are named."""
    return {id: f"{name}-{place}" for place, id in enumerate(ids)}


def say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        output.messages.print(sentence, markup=False, highlight=False)


def _renamed(found: Fingerprints, names: Names) -> Fingerprints:
    return replace(found, ids=tuple(names[id] for id in found.ids))
