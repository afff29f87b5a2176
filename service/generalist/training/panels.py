"""Evidence from real specialists and real reference cases, on cases none of them has seen.

What the panel said of every case is computed once, under everyday conditions and under simulated
shift, and drawn from again and again: `Material`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import fusion, typicality
from retrieval.fusion import Ranking
from retrieval.neighbour import Neighbour, ReferenceCase
from service.domain import Evidence
from service.generalist.training.augment import EVERYDAY, Images, varied
from specialists.forward import Arrays
from specialists.loader import Specialist
from specialists.prediction import Pixels, SpecialistPrediction
from specialists.task import Task
from specialists.training import evaluate

NEIGHBOURS = 10
DEPTH = 50
Marks = NDArray[np.float32]  # (cases, labels) of 0 and 1


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of any size with what is known of them; reports may be empty."""

    images: Sequence[Pixels]
    targets: Marks
    reports: Sequence[str] = ()

    def report(self, row: int) -> str:
        return self.reports[row] if self.reports else ""


@dataclass(frozen=True, eq=False)
class Material:
    """Cases of one task at the generalist's size, each with the evidence there is about it.

    `rows` name the neighbours in `known`, -1 where there are fewer.
    """

    task: Task
    images: Images
    targets: Marks
    reports: tuple[str, ...]
    specialists: tuple[tuple[str, float], ...]  # with the accuracy on validation
    probabilities: NDArray[np.float32]  # (cases, specialists, labels)
    known: tuple[ReferenceCase, ...]
    rows: NDArray[np.int32]  # (cases, neighbours)
    similarities: NDArray[np.float32]  # (cases, neighbours)
    typicality: NDArray[np.float32]  # (cases,)

    def __len__(self) -> int:
        return len(self.images)

    def evidence(self, case: int) -> Evidence:
        """What specialists and reference cases really said of a case."""
        return Evidence(
            moed=tuple(
                SpecialistPrediction(name, tuple(map(float, said)), "", accuracy)
                for (name, accuracy), said in zip(
                    self.specialists, self.probabilities[case], strict=True
                )
            ),
            rad=tuple(self._neighbours(case)),
            typicality=float(self.typicality[case]),
        )

    def labels(self, case: int) -> tuple[str, ...]:
        """The truth."""
        return named(self.task, self.targets[case])

    def chosen(self, cases: Sequence[int]) -> "Material":
        """Some of the cases."""
        rows = np.asarray(cases)
        return replace(
            self,
            images=self.images[rows],
            targets=self.targets[rows],
            reports=tuple(self.reports[row] for row in cases),
            probabilities=self.probabilities[rows],
            rows=self.rows[rows],
            similarities=self.similarities[rows],
            typicality=self.typicality[rows],
        )

    def _neighbours(self, case: int) -> Iterator[Neighbour]:
        for row, similarity in zip(self.rows[case], self.similarities[case], strict=True):
            if row >= 0:
                yield Neighbour(self.known[row], float(similarity), 0.0, ())


def named(task: Task, marks: NDArray[np.float32]) -> tuple[str, ...]:
    """The labels that marks of 0 and 1 stand for."""
    return tuple(name for name, mark in zip(task.label_names, marks, strict=True) if mark > 0)


def material(
    task: Task,
    panel: Sequence[Specialist],
    known: Labelled,
    cases: Labelled,
    size: int,
    *,
    versions: int,
    seed: int,
    shifted: float = 0.5,
    mirrored: bool = True,
) -> Material:
    """Every case in several versions: the first as it is, of the others a share `shifted`.

    A shifted version is what a strange scanner would show. Nothing of `known` may have been seen
    by the panel in another role than training.
    """
    rng = np.random.default_rng(seed)
    seen: list[Pixels] = []
    for version in range(versions):
        share = shifted if version else 0.0
        seen += [_version(pixels, share, rng, mirrored=mirrored) for pixels in cases.images]
    told = evaluate.run(panel, seen)
    remembered = evaluate.run(panel, known.images)
    rows, similarities, typical = _retrieved(told, remembered)
    return Material(
        task=task,
        images=np.stack([resize(pixels, size) for pixels in seen]),
        targets=np.tile(cases.targets, (versions, 1)),
        reports=tuple(cases.report(row) for row in range(len(cases.images))) * versions,
        specialists=tuple((one.name, _accuracy(one)) for one in panel),
        probabilities=np.stack([said for said, _ in told.values()], axis=1),
        known=tuple(_known(task, known)),
        rows=rows,
        similarities=similarities,
        typicality=typical,
    )


def resize(pixels: Pixels, size: int) -> Pixels:
    """RGB pixels squeezed to (size, size, 3), bicubic, aspect ratio not kept (as MedDr does)."""
    image = Image.fromarray(pixels).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def write(pool: Material, path: Path) -> None:
    """Keep a material; texts and arrays only, nothing to unpickle."""
    fresh = path.with_name(path.name + ".part")
    with fresh.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            images=pool.images,
            targets=pool.targets,
            reports=np.array(pool.reports),
            specialists=np.array([name for name, _ in pool.specialists]),
            accuracies=np.array([accuracy for _, accuracy in pool.specialists]),
            probabilities=pool.probabilities,
            known=np.array([" | ".join(one.labels) for one in pool.known]),
            known_reports=np.array([one.report for one in pool.known]),
            rows=pool.rows,
            similarities=pool.similarities,
            typicality=pool.typicality,
        )
    fresh.replace(path)


def read(task: Task, path: Path) -> Material:
    """The material that `write` kept."""
    with np.load(path, allow_pickle=False) as kept:
        pairs = zip(kept["specialists"].tolist(), kept["accuracies"].tolist(), strict=True)
        known = zip(kept["known"].tolist(), kept["known_reports"].tolist(), strict=True)
        return Material(
            task=task,
            images=kept["images"],
            targets=kept["targets"],
            reports=tuple(kept["reports"].tolist()),
            specialists=tuple(pairs),
            probabilities=kept["probabilities"],
            known=tuple(
                _reference(task, row, tuple(labels.split(" | ")), report)
                for row, (labels, report) in enumerate(known)
            ),
            rows=kept["rows"],
            similarities=kept["similarities"],
            typicality=kept["typicality"],
        )


def _version(pixels: Pixels, share: float, rng: np.random.Generator, *, mirrored: bool) -> Pixels:
    rgb = np.asarray(Image.fromarray(pixels).convert("RGB"))
    if rng.random() >= share:
        return rgb
    how = EVERYDAY.scaled(float(rng.uniform(0.5, 2.2)), mirrored=mirrored)
    return varied(rgb, how, rng)


def _accuracy(specialist: Specialist) -> float:
    return float(specialist.manifest.validation["accuracy"] or 0.0)


def _known(task: Task, known: Labelled) -> Iterator[ReferenceCase]:
    for row, marks in enumerate(known.targets):
        yield _reference(task, row, named(task, marks), known.report(row))


def _reference(task: Task, row: int, labels: tuple[str, ...], report: str) -> ReferenceCase:
    return ReferenceCase(str(row), task.name, labels, "", str(row), report)


def _retrieved(
    told: Mapping[str, Arrays], remembered: Mapping[str, Arrays]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Fused neighbours and typicality of every case, as the service's retriever finds them."""
    tables = {name: queries @ remembered[name][1].T for name, (_, queries) in told.items()}
    spread = {name: typicality.quantiles(vectors) for name, (_, vectors) in remembered.items()}
    count = len(next(iter(tables.values())))
    rows = np.full((count, NEIGHBOURS), -1, np.int32)
    similarities = np.zeros((count, NEIGHBOURS), np.float32)
    typical = np.zeros(count, np.float32)
    for case in range(count):
        rankings = [_ranking(name, table[case]) for name, table in tables.items()]
        near = fusion.within_cut(fusion.fuse(rankings), fusion.CUT)[:NEIGHBOURS]
        rows[case, : len(near)] = [one.key for one in near]
        similarities[case, : len(near)] = [one.similarity for one in near]
        ranks = [typicality.rank(one.similarities[0], spread[one.retriever]) for one in rankings]
        typical[case] = np.mean(ranks)
    return rows, similarities, typical


def _ranking(retriever: str, similarities: NDArray[np.float32]) -> Ranking:
    depth = min(DEPTH, len(similarities))
    best = np.argpartition(-similarities, depth - 1)[:depth]
    best = best[np.argsort(-similarities[best], kind="stable")]
    return Ranking(retriever, tuple(best.tolist()), tuple(similarities[best].tolist()))
