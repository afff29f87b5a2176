"""Images with the masks that somebody drew on them: a folder with an index."""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from specialists.errors import InvalidDataset
from specialists.prediction import Mask, Pixels
from specialists.training.split import SPLITS, FileImages

INDEX = "index.csv"
NEEDED = ("split", "image", "mask")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the index; `mask` is empty where nothing is to be outlined."""

    split: str
    image: Path
    mask: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class MaskedSplit:
    """Images, and a mask of each one's size; both decoded when they are asked for."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> Sequence[Pixels]:
        return FileImages([row.image for row in self.rows])

    def masks(self) -> Iterator[Mask]:
        """One after another; raises InvalidDataset where one cannot be read or does not fit."""
        for row, pixels in zip(self.rows, self.images, strict=True):
            yield _mask(row, pixels)


@dataclass(frozen=True, slots=True, eq=False)
class MaskedDataset:
    """The splits of one folder."""

    source: str
    splits: Mapping[str, MaskedSplit]

    def split(self, name: str) -> MaskedSplit:
        """One split; raises InvalidDataset with those that exist."""
        if name not in self.splits:
            raise InvalidDataset(
                f"{self.source} has no split {name!r}, only {', '.join(self.splits)}"
            )
        return self.splits[name]

    def fingerprint(self) -> str:
        """sha256 over every image and mask in order, hexadecimal."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name} {len(split)}".encode())
            for pixels, mask in zip(split.images, split.masks(), strict=True):
                digest.update(str(pixels.shape).encode())
                digest.update(pixels.tobytes())
                digest.update(np.packbits(mask).tobytes())
        return digest.hexdigest()


def read(folder: Path) -> MaskedDataset:
    """The dataset in a folder whose `index.csv` has the columns split, image and mask.

    A mask is an image of the same size, bright where the segment is; an empty field means that
    there is none to be seen. Raises InvalidDataset with the first thing wrong.
    """
    index = folder / INDEX
    if not index.is_file():
        raise InvalidDataset(f"{folder.name} has no {INDEX} with the columns {', '.join(NEEDED)}")
    rows = tuple(_rows(index))
    if not rows:
        raise InvalidDataset(f"{INDEX} of {folder.name} names no images")
    splits = {name: MaskedSplit(tuple(r for r in rows if r.split == name)) for name in SPLITS}
    return MaskedDataset(folder.name, {name: split for name, split in splits.items() if len(split)})


def _rows(index: Path) -> Iterator[Row]:
    try:
        with index.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if missing := [name for name in NEEDED if name not in (lines.fieldnames or ())]:
                raise InvalidDataset(f"{index.name} lacks the columns {', '.join(missing)}")
            yield from (_row(line, index) for line in lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{index.name} is not a CSV file in UTF-8") from error


def _row(line: dict[str, str | None], index: Path) -> Row:
    split = line["split"] or ""
    if split not in SPLITS:
        raise InvalidDataset(f"{index.name} has the split {split!r}; known: {', '.join(SPLITS)}")
    mask = line["mask"]
    return Row(split, _file(index, line["image"] or ""), _file(index, mask) if mask else None)


def _file(index: Path, name: str) -> Path:
    path = index.parent / name
    inside = path.resolve().is_relative_to(index.parent.resolve())
    if not inside or not path.is_file():
        raise InvalidDataset(f"{index.name} names {name!r}, which is not a file of the folder")
    return path


def _mask(row: Row, pixels: Pixels) -> Mask:
    if row.mask is None:
        return np.zeros(pixels.shape[:2], np.bool_)
    (drawn,) = FileImages([row.mask])
    if drawn.shape != pixels.shape:
        raise InvalidDataset(
            f"the mask {row.mask.name} has {_size(drawn)} pixels, its image {_size(pixels)}"
        )
    grey = np.asarray(Image.fromarray(drawn).convert("L"))
    # Half of the brightest value: masks are stored as 0 and 1 as often as as 0 and 255.
    return np.asarray(2 * grey.astype(np.int64) > grey.max()) & (grey > 0)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} × {pixels.shape[0]}"
