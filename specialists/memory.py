"""How much memory specialists take: their weights, each tensor counted once."""

from collections.abc import Iterable, Set
from pathlib import Path

from specialists import head, loader
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist
from specialists.graph import Graph
from specialists.loader import Specialist

BYTES = {Scale.FULL: 2, Scale.NANO: 4}
"""About a parameter's before it is read: full-size ones have 1 to 4, by what computes here."""


def footprint(specialists: Iterable[Specialist]) -> int:
    """Bytes of weights, those that several share counted once; what is computed comes on top."""
    found: dict[int, int] = {}
    for one in specialists:
        for tensor in (*one.model.parameters(), *one.model.buffers()):
            if not tensor.is_meta:
                found[tensor.data_ptr()] = tensor.nbytes
        if one.trunk is not None:
            found[id(one.trunk)] = _of_trunk(one)
    return sum(found.values())


def _of_trunk(one: Specialist) -> int:
    if isinstance(one.trunk, Graph):
        return one.trunk.nbytes
    return BYTES[Scale.FULL] * one.manifest.parameters  # captured in bfloat16 on a GPU


def expected(folders: Iterable[Path], trunks: Set[str]) -> int:
    """About what the specialists of some folders would take; `trunks` are in memory already."""
    return sum(_expected(folder, trunks) for folder in folders)


def _expected(folder: Path, trunks: Set[str]) -> int:
    try:
        manifest = loader.read_manifest(folder)
    except InvalidSpecialist:
        return 0
    if head.trunk_of(manifest) in trunks:
        return 0
    return BYTES[manifest.scale] * manifest.parameters
