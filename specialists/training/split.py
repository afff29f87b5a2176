"""One split of a dataset: images as a sequence, with their targets, groups and ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from specialists.errors import InvalidDataset
from specialists.prediction import Pixels
from specialists.task import Task, TaskKind

SPLITS = ("train", "val", "test")

Targets: TypeAlias = NDArray[np.int64]
"""(images,) places of labels, or for several labels per image (images, labels) of 0 and 1."""


def marked(task: Task, targets: Targets) -> NDArray[np.bool_]:
    """(images, labels): the labels that are true."""
    if task.kind == TaskKind.MULTI_LABEL:
        return targets.astype(np.bool_)
    return np.eye(len(task.labels), dtype=np.bool_)[targets]


class ArrayImages(Sequence[Pixels]):
    """Images in one array, (images, height, width) or (images, height, width, 3), given as RGB."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return ArrayImages(self._array[place])
        pixels = self._array[place]
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


class FileImages(Sequence[Pixels]):
    """Image files, each decoded when it is asked for; raises InvalidDataset where one cannot be."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return FileImages(self._paths[place])
        return _decode(self._paths[place])


class ChosenImages(Sequence[Pixels]):
    """Some of the images of another sequence, in the order given."""

    def __init__(self, images: Sequence[Pixels], places: Sequence[int]) -> None:
        self._images, self._places = images, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return ChosenImages(self._images, self._places[place])
        return self._images[self._places[place]]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and what is known of them, in parallel.

    `groups` name the patient or study (None where unknown), `ids` where the image comes from.
    """

    images: Sequence[Pixels]
    targets: Targets
    groups: tuple[str | None, ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def choose(self, places: Sequence[int]) -> "Split":
        """The images at these places, in this order."""
        return Split(
            images=ChosenImages(self.images, places),
            targets=self.targets[np.asarray(places, dtype=np.int64)],
            groups=tuple(self.groups[place] for place in places),
            ids=tuple(self.ids[place] for place in places),
        )


def single_target(name: str, task: Task, where: str) -> int:
    """The place of a label in the task; raises InvalidDataset where the task has no such label."""
    if name not in task.label_names:
        raise InvalidDataset(
            f"{where} has the label {name!r}; task {task.name!r} has {', '.join(task.label_names)}"
        )
    return task.label_names.index(name)


def _decode(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidDataset(f"{path.name} cannot be read as an image") from error
