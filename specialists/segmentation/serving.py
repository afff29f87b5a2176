"""Segmentation specialists at work: they stand beside the panel, and never stop it."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from specialists import transforms
from specialists.batcher import Batcher, Told, nobody
from specialists.description import LoadedPanel, described_by
from specialists.errors import InvalidSpecialist, PoolOverloaded
from specialists.prediction import Consultation, MissingSpecialist, Pixels, Segmentation
from specialists.segmentation import evidence, models, network
from specialists.segmentation.network import Segmenter
from specialists.segmentation.shelf import Shelf
from specialists.task import Task

QUEUE = 64
MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class Segmented:
    """What the segmentation specialists of a task outline on one image, and who is missing."""

    segmentations: tuple[Segmentation, ...] = ()
    missing: tuple[MissingSpecialist, ...] = ()


Found = tuple[tuple[Segmenter, ...], tuple[MissingSpecialist, ...]]


def beside(consultation: Consultation, segmented: Segmented) -> Consultation:
    """What the panel says together with what is outlined."""
    return replace(
        consultation,
        segmentations=segmented.segmentations,
        missing=(*consultation.missing, *segmented.missing),
    )


class Segmenters:
    """All segmentation specialists of `folder/TASK/MODEL`, behind one bounded queue.

    They work in the panel's threads, so that together they take no more cores than it may.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._shelf = Shelf(folder, device)
        self._batcher: Batcher[tuple[Pixels, Task], Segmented] | None = None
        self._found: dict[str, Found] = {}

    def start(self, executor: Executor, workers: asyncio.Semaphore, told: Told = nobody) -> None:
        """Call in the running event loop."""
        self._batcher = Batcher(
            "segmentation",
            self._answer,
            executor=executor,
            workers=workers,
            queue_size=QUEUE,
            max_batch=MAX_BATCH,
            told=told,
        )

    async def close(self) -> None:
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await batcher.close()

    async def outline(self, pixels: Pixels, task: Task) -> Segmented:
        """Every segmentation of an image, (height, width, 3) uint8 RGB; none without a segment.

        Who cannot answer is missing, all of them where the queue is full. Raises nothing for it.
        """
        keys = models.models_of(task)
        if not keys or self._batcher is None:
            return Segmented()
        try:
            return await self._batcher.submit((pixels, task))
        except PoolOverloaded as error:
            return Segmented(missing=tuple(MissingSpecialist(key, str(error)) for key in keys))

    def find(self, task: Task) -> Found:
        """Who can answer, read from disk where that is needed, and who is missing. Blocks."""
        found: list[Segmenter] = []
        missing: list[MissingSpecialist] = []
        for key in models.models_of(task):
            try:
                found.append(self._shelf.get(task, key))
            except InvalidSpecialist as error:
                missing.append(MissingSpecialist(key, str(error)))
        self._found[task.name] = tuple(found), tuple(missing)
        return self._found[task.name]

    def described(self, panel: LoadedPanel, task: Task) -> LoadedPanel:
        """The panel with the segmentation specialists as they were last found."""
        found, missing = self._found.get(task.name, ((), ()))
        return replace(
            panel,
            specialists=(*panel.specialists, *(described_by(one.manifest) for one in found)),
            missing=(*panel.missing, *missing),
        )

    def _answer(self, requests: Sequence[tuple[Pixels, Task]]) -> list[Segmented]:
        """Images of one task are outlined together."""
        answers: dict[int, Segmented] = {}
        for task in dict.fromkeys(task for _, task in requests):
            places = [place for place, (_, other) in enumerate(requests) if other == task]
            segmented = self._segmented([requests[place][0] for place in places], task)
            answers.update(zip(places, segmented, strict=True))
        return [answers[place] for place in range(len(requests))]

    def _segmented(self, images: Sequence[Pixels], task: Task) -> list[Segmented]:
        try:
            found, missing = self.find(task)
        except Exception as error:  # noqa: BLE001 such as no memory left: the panel answers
            reason = f"cannot be read: {type(error).__name__}"
            lost = tuple(MissingSpecialist(key, reason) for key in models.models_of(task))
            return [Segmented(missing=lost)] * len(images)
        by_image = zip(*(_outlined(segmenter, images) for segmenter in found), strict=True)
        return [
            Segmented(
                tuple(one for one in outlined if isinstance(one, Segmentation)),
                (*missing, *(one for one in outlined if isinstance(one, MissingSpecialist))),
            )
            for outlined in (by_image if found else [()] * len(images))
        ]


def _outlined(
    segmenter: Segmenter, images: Sequence[Pixels]
) -> list[Segmentation | MissingSpecialist]:
    """Together; where that fails each alone, so that one image fails by itself."""
    try:
        return list(segmentations(segmenter, images))
    except Exception as error:  # noqa: BLE001 whatever went wrong, the others answer
        if len(images) > 1:
            return [one for image in images for one in _outlined(segmenter, [image])]
        reason = f"failed on this image: {type(error).__name__}"
        return [MissingSpecialist(segmenter.name, reason)]


def segmentations(segmenter: Segmenter, images: Sequence[Pixels]) -> list[Segmentation]:
    """What one specialist outlines on each image; raises FloatingPointError, ValueError."""
    manifest = segmenter.manifest
    size = manifest.preprocessing.input_size
    resized = np.stack([transforms.resize(pixels, size) for pixels in images])
    return [
        Segmentation(
            specialist=segmenter.name,
            segment=manifest.labels[0],
            weights_sha256=manifest.weights_sha256,
            **asdict(evidence.told(chances)),
            validation_dice=manifest.validation.get("dice"),
            map=chances,
        )
        for chances in network.forward(segmenter, resized)
    ]
