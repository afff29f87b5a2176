"""Who reads which case of a reader study, and which system stands behind which letter.

Readers see case numbers and letters. The key alone knows the rest, and no part of it can be
computed from what readers have, as long as the seed stays with the key.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from service.errors import Misconfigured

FILE = "key.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class KeyedCase:
    """What one case number of a reader means; `order` has the systems behind A, B, …"""

    number: int
    id: str
    order: tuple[str, ...]

    @property
    def by_letter(self) -> dict[str, str]:
        return dict(zip(ascii_uppercase, self.order, strict=False))


@dataclass(frozen=True, slots=True)
class Key:
    """What un-blinds a study: the cases of reader 1, of reader 2, …, in the order they are read.

    `study` is a random name: the seed cannot be guessed from it.
    """

    study: str
    seed: int
    systems: tuple[str, ...]
    readers: tuple[tuple[KeyedCase, ...], ...]


def drawn(
    ids: Sequence[str],
    systems: Sequence[str],
    readers: int,
    per_reader: int | None = None,
    seed: int | None = None,
) -> Key:
    """A key of cases `ids`; a given seed always draws the same, without one nobody can know it.

    Every case gets as many readers as any other, give or take one. Every reader meets every
    system in every place equally often, give or take one.
    """
    count = len(ids) if per_reader is None else per_reader
    if count > len(ids):
        raise Misconfigured(f"{count} cases per reader: there are only {len(ids)} cases")
    seed = secrets.randbits(128) if seed is None else seed
    rng = np.random.default_rng(seed)
    shuffled = [ids[place] for place in rng.permutation(len(ids))]
    shares = [
        [shuffled[(reader * count + place) % len(ids)] for place in range(count)]
        for reader in range(readers)
    ]
    names = tuple(sorted(systems))
    keyed = tuple(_keyed(share, names, rng) for share in shares)
    return Key(f"study-{secrets.token_hex(8)}", seed, names, keyed)


def balanced_orders(
    systems: Sequence[str], count: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """`count` orders in which every system has every place equally often, give or take one.

    They are rows of random Latin squares, shuffled, so that no order can be told from earlier ones.
    """
    squares = -(-count // len(systems))
    rows = [row for _ in range(squares) for row in _latin_square(systems, rng)][:count]
    return [rows[place] for place in rng.permutation(count)]


def write(folder: Path, key: Key) -> None:
    """As `key.json`, which only its owner can read."""
    path = folder / FILE
    path.touch(mode=0o600)
    document = json.dumps({"format": FORMAT, **asdict(key)}, indent=2, ensure_ascii=False)
    path.write_text(document + "\n", "utf-8")


def read(folder: Path) -> Key:
    """The key of a study's folder. Raises Misconfigured where there is none, or a damaged one."""
    path = folder / FILE
    try:
        return _key(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise Misconfigured(f"{str(folder)!r} is not a study's folder: no {FILE} in it") from None
    except (ValueError, TypeError, KeyError):
        raise Misconfigured(f"{str(path)!r} is damaged, or of another version") from None


def _keyed(
    ids: Sequence[str], systems: Sequence[str], rng: np.random.Generator
) -> tuple[KeyedCase, ...]:
    read = [ids[place] for place in rng.permutation(len(ids))]
    pairs = zip(read, balanced_orders(systems, len(ids), rng), strict=True)
    return tuple(KeyedCase(number, id, order) for number, (id, order) in enumerate(pairs, 1))


def _latin_square(systems: Sequence[str], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """The cyclic one with its rows, columns and systems shuffled."""
    size = len(systems)
    rows, columns, names = (rng.permutation(size) for _ in range(3))
    return [tuple(systems[names[(row + column) % size]] for column in columns) for row in rows]


def _key(document: Mapping[str, Any]) -> Key:
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    readers = tuple(
        tuple(KeyedCase(one["number"], one["id"], tuple(one["order"])) for one in cases)
        for cases in document["readers"]
    )
    return Key(document["study"], document["seed"], tuple(document["systems"]), readers)
