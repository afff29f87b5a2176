"""Whether a specialist's folder has changed: a few stats, no reading."""

from collections.abc import Iterable
from pathlib import Path

from specialists.loader import MANIFEST, WEIGHTS

Stamp = tuple[tuple[int, int, int], ...]
"""Inode, nanoseconds of the last change and bytes of manifest and weights; empty without them."""


def stamp(folder: Path) -> Stamp:
    """Of one specialist's folder; empty where it holds no whole specialist."""
    try:
        states = [(folder / name).stat() for name in (MANIFEST, WEIGHTS)]
    except OSError:
        return ()
    return tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states)


def stamps(folder: Path, names: Iterable[str]) -> dict[str, Stamp]:
    """Of several specialists of one task, by name."""
    return {name: stamp(folder / name) for name in names}
