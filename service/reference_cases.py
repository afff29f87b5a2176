"""Filling the reference cases: labelled images → rows, vectors of every specialist, indexes."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from PIL import Image
from sqlalchemy import Engine

from retrieval import indexing
from retrieval import ingest as rows
from retrieval.neighbour import ReferenceCase
from service.domain import pixels_sha256, target_labels
from specialists.errors import InvalidSpecialist
from specialists.loader import Specialist
from specialists.prediction import Pixels
from specialists.task import Task
from specialists.training import evaluate
from specialists.training.split import Split

THUMBNAIL_SIDE = 128

OnProgress = Callable[[int, int], None]
"""Called with how many specialists have embedded the images, and of how many."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What holds for all cases of one ingestion."""

    source: str
    licence: str = "not stated"


def reference_case(
    task: Task, pixels: Pixels, labels: tuple[str, ...], origin: Origin, group: str | None
) -> ReferenceCase:
    """A case named after its image; without a group it stands for itself."""
    sha256 = pixels_sha256(pixels)
    return ReferenceCase(
        id=f"{task.name}-{sha256[:16]}",
        task=task.name,
        labels=labels,
        image_sha256=sha256,
        group=group or sha256,
        source=origin.source,
        licence=origin.licence,
        modality=task.modality[:64],
    )


def thumbnail(pixels: Pixels) -> bytes:
    """A JPEG to recognise a case by, at most THUMBNAIL_SIDE pixels a side."""
    picture, file = Image.fromarray(pixels), BytesIO()
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    is_grey = (pixels == pixels[..., :1]).all()
    picture.convert("L" if is_grey else "RGB").save(file, "JPEG", quality=80)
    return file.getvalue()


def ingest(
    engine: Engine,
    specialists: Path,
    task: Task,
    cases: Sequence[ReferenceCase],
    images: Sequence[Pixels],
    on_progress: OnProgress | None = None,
    indexes: Path | None = None,
) -> int:
    """How many cases are stored, with a small picture and every specialist's vector of each.

    `images` are those of `cases`, in their order. The indexes in `indexes` take them in; without
    it none is touched: see `build`.
    """
    encoders = _panel(specialists, task)  # without any, nothing is stored
    pictures = zip(cases, images, strict=True)
    small = {case.id: thumbnail(pixels) for case, pixels in pictures}
    ids = rows.ingest(engine, cases, thumbnails=small)
    report = on_progress or _nobody
    for done, specialist in enumerate(encoders):
        report(done, len(encoders))
        _, embeddings = evaluate.run([specialist], images)[specialist.name]
        vectors = dict(zip(ids, embeddings, strict=True))
        encoder = specialist.manifest.weights_sha256
        rows.store_vectors(engine, task.name, specialist.name, encoder, vectors)
    report(len(encoders), len(encoders))
    if indexes is not None:
        for specialist in encoders:
            indexing.put(engine, indexes, task.name, specialist.name, sorted(set(ids)))
    return len(set(ids))


def reports_of(data: Path) -> dict[str, str]:
    """Texts by image, from the column `report` of a folder's index.csv, where it has one."""
    index = data / "index.csv"
    if not index.is_file():
        return {}
    with index.open(newline="", encoding="utf-8") as file:
        rows = ((row["image"], row.get("report") or "") for row in csv.DictReader(file))
        return {image: report for image, report in rows if report.strip()}


def ingest_split(
    engine: Engine,
    specialists: Path,
    task: Task,
    split: Split,
    origin: Origin,
    on_progress: OnProgress,
    pseudonym: Callable[[str], str | None] = str,
    indexes: Path | None = None,
    reports: Mapping[str, str] | None = None,
) -> int:
    """`ingest` for one split of a labelled data set; `pseudonym` is applied to its groups.

    `reports` are the cases' texts by the split's ids, for tasks that write reports.
    """
    texts = reports or {}
    labels = [target_labels(task, target) for target in split.targets]
    shown = zip(split.images, labels, split.groups, split.ids, strict=True)
    cases = [
        replace(
            reference_case(task, pixels, named, origin, group and pseudonym(group)),
            report=texts.get(id, ""),
        )
        for pixels, named, group, id in shown
    ]
    return ingest(engine, specialists, task, cases, split.images, on_progress, indexes)


def build(
    engine: Engine, specialists: Path, indexes: Path, task: Task, *, force: bool = False
) -> tuple[str, ...]:
    """Bring the index of every specialist of the task in step with the stored vectors.

    With `force` each is made anew, whatever lies there.
    """
    names = tuple(specialist.name for specialist in _panel(specialists, task))
    change = indexing.build if force else indexing.update
    for name in names:
        change(engine, indexes, task.name, name)
    return names


def _nobody(done: int, total: int) -> None:
    del done, total


def _panel(specialists: Path, task: Task) -> tuple[Specialist, ...]:
    """Those that can answer; without any there is nothing to embed with."""
    found, missing = evaluate.load_panel(specialists / task.name, task)
    if not found:
        raise InvalidSpecialist(
            f"no specialist for task {task.name!r} yet ({missing[0].reason}): "
            "gsco specialists finetune, or add"
        )
    return found
