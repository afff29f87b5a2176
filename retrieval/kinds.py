"""The kinds of index, as data: how many vectors each is for, how it keeps and searches them.

Chosen by measurement (docs/results/retrieval.md): inverted lists are small, can be read from disk
without being loaded, take vectors out again, and find more than a graph of the same storage does.
"""

import math
from dataclasses import dataclass
from typing import Literal

RECALL_AIM = 0.99
"""Of the lists to be searched, the smallest number is taken that finds so much."""

PROBES = (8, 16, 32, 64, 128, 256)
"""How many of the inverted lists one search may look into."""

TRAINING_VECTORS_PER_LIST = 40

Storage = Literal["float32", "fp16", "sq8"]


@dataclass(frozen=True, slots=True)
class Kind:
    """`lists_per_root`: inverted lists per square root of the count; without lists it is exact."""

    name: str
    storage: Storage
    lists_per_root: float = 0

    @property
    def exact(self) -> bool:
        return not self.lists_per_root

    def lists(self, count: int) -> int:
        """The number of inverted lists for so many vectors."""
        wanted = round(self.lists_per_root * math.sqrt(count))
        return max(1, min(wanted, count // TRAINING_VECTORS_PER_LIST))


FLAT = Kind("flat", "float32")
IVF_SQ8 = Kind("ivf-sq8", "sq8", lists_per_root=2)
IVF_FP16 = Kind("ivf-fp16", "fp16", lists_per_root=2)

KINDS = {kind.name: kind for kind in (FLAT, IVF_SQ8, IVF_FP16)}


@dataclass(frozen=True, slots=True)
class Rules:
    """Which kind is taken. Up to `exact_up_to` vectors (a search takes a few milliseconds), every
    one is compared; above, the first of the ladder that finds at least `floor` of the ten nearest
    is taken, and where none does, the exact kind.
    """

    exact_up_to: int = 50_000
    ladder: tuple[Kind, ...] = (IVF_SQ8, IVF_FP16)
    floor: float = 0.98


RULES = Rules()
