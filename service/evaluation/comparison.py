"""Who is the better teacher? Every backbone under one recipe, on few patients, over several seeds.

A seed draws the patients, the first weights and the order of the images, for every backbone alike;
so backbones are compared pairwise. Nobody stops early: all see the same number of epochs, and each
keeps its best on validation. What a specialist says of the cases is kept as soon as it is trained.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Misconfigured
from service.evaluation.comparison_folder import ComparisonFolder, Plan, Run
from service.evaluation.few import few, groups_of
from specialists import catalogue, loader, transforms
from specialists.catalogue import Recipe, Scale
from specialists.forward import forward
from specialists.loader import Specialist
from specialists.task import Task
from specialists.training import pretrained
from specialists.training.dataset import Dataset
from specialists.training.evaluate import run as ask
from specialists.training.finetune import finetune
from specialists.training.pretrained import Pretrained
from specialists.training.split import Split, Targets
from specialists.training.trainer import Epoch

TIMED_FORWARDS = 15


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be compared; `epochs` and `split` where the recipe's and `test` are not wanted."""

    backbones: tuple[str, ...]
    scale: Scale = Scale.NANO
    seeds: int = 3
    fraction: float = 0.1
    epochs: int | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a comparison is, for whoever watches; epochs of runs that were not there before."""

    done: int
    of: int
    seed: int
    epoch: Epoch


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All runs of the backbones asked for, on the same cases."""

    plan: Plan
    backbones: tuple[str, ...]
    runs: tuple[Run, ...]
    targets: Targets  # of the cases
    groups: tuple[str, ...]
    shared_groups: int  # patients of the training split who are among the cases too


def plan_of(task: Task, dataset: Dataset, wish: Wish) -> Plan:
    """What the runs of one folder have in common; raises Misconfigured, InvalidDataset."""
    split = wish.split or ("test" if "test" in dataset.splits else "val")
    if not len(dataset.split(split)):
        raise Misconfigured(f"{dataset.source} has no images in its split {split!r}")
    return Plan(
        task=task.name,
        kind=task.kind,
        labels=task.label_names,
        data=dataset.source,
        data_fingerprint=dataset.fingerprint(),
        split=split,
        scale=wish.scale,
        fraction=wish.fraction,
        recipe=asdict(_recipe(task, dataset, wish)),
    )


def compare(
    task: Task,
    dataset: Dataset,
    wish: Wish,
    plan: Plan,
    out: Path,
    *,
    weights: Mapping[str, Path] | None = None,
    device: str = "cpu",
    workers: int = 1,
    on_advance: Callable[[Advance], None] | None = None,
) -> Comparison:
    """Trains what is not in the folder yet, and gives every run; killed, the same call goes on.

    Raises Misconfigured where the folder is of another plan, a run in it began from other weights,
    or the fraction is too small; UnknownBackbone, InvalidWeights.
    """
    begins = pretrained.choose(wish.backbones, wish.scale, len(task.labels), weights or {})
    teaching = [_taught(task, dataset, wish, seed) for seed in range(wish.seeds)]
    folder = ComparisonFolder(out)
    with folder.opened(plan):
        pending = [_pending(folder, wish, seed, begins) for seed in range(wish.seeds)]
        watch = _Watch(pending, plan.recipe["epochs"], on_advance)
        for seed, keys in enumerate(pending):
            if keys:
                train = _Training(task, teaching[seed], dataset.split(plan.split), plan, folder)
                train(seed, keys, weights or {}, device, workers, watch.of_seed(seed))
        folder.tidy()
        runs = tuple(folder.run(key, seed) for key in wish.backbones for seed in range(wish.seeds))
    cases = dataset.split(plan.split)
    return Comparison(
        plan=plan,
        backbones=wish.backbones,
        runs=tuple(run for run in runs if run is not None),
        targets=cases.targets,
        groups=tuple(groups_of(cases)),
        shared_groups=len(_known(dataset.split("train")) & _known(cases)),
    )


def _recipe(task: Task, dataset: Dataset, wish: Wish) -> Recipe:
    """The scale's, without early stopping; as many epochs as the first seed's images want."""
    images = len(few(task, dataset.split("train"), wish.fraction, seed=0))
    epochs = wish.epochs or catalogue.recipe_of(wish.scale, images).epochs
    return replace(catalogue.recipe_of(wish.scale), epochs=epochs, patience=epochs)


def _taught(task: Task, dataset: Dataset, wish: Wish, seed: int) -> Dataset:
    train = few(task, dataset.split("train"), wish.fraction, seed)
    return replace(dataset, splits={"train": train, "val": dataset.split("val")})


def _known(split: Split) -> set[str]:
    return {group for group in split.groups if group}


def _pending(
    folder: ComparisonFolder, wish: Wish, seed: int, begins: Mapping[str, Pretrained]
) -> list[str]:
    """The backbones without a run of this seed; raises Misconfigured where one began elsewhere."""
    pending = []
    for key in wish.backbones:
        run = folder.run(key, seed)
        began = begins[key].sha256 if key in begins else None
        if run is None:
            pending.append(key)
        elif run.weights_sha256 != began:
            raise Misconfigured(
                f"'{folder.path}' holds a {key!r} that began from other weights: "
                "choose another folder"
            )
    return pending


class _Watch:
    """Counts the epochs of all runs together."""

    def __init__(
        self,
        pending: Sequence[Sequence[str]],
        epochs: int,
        on_advance: Callable[[Advance], None] | None,
    ) -> None:
        self._total = epochs * sum(map(len, pending))
        self._done: dict[tuple[int, str], int] = {}
        self._on_advance = on_advance

    def of_seed(self, seed: int) -> Callable[[Epoch], None]:
        def see(epoch: Epoch) -> None:
            self._done[seed, epoch.backbone] = epoch.number
            if self._on_advance is not None:
                done = sum(self._done.values())
                self._on_advance(Advance(done, self._total, seed, epoch))

        return see


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """The backbones of one seed, from few images to what they say of the cases."""

    task: Task
    dataset: Dataset
    cases: Split
    plan: Plan
    folder: ComparisonFolder

    def __call__(
        self,
        seed: int,
        keys: Sequence[str],
        weights: Mapping[str, Path],
        device: str,
        workers: int,
        on_epoch: Callable[[Epoch], None],
    ) -> None:
        work = self.folder.work(seed)
        finetune(
            self.task,
            self.dataset,
            keys,
            self.plan.scale,
            work,
            seed=seed,
            epochs=self.plan.recipe["epochs"],
            patience=self.plan.recipe["patience"],
            weights={key: weights[key] for key in keys if key in weights},
            device=device,
            workers=workers,
            on_progress=on_epoch,
        )
        for key in keys:
            specialist = loader.load(work / key, self.task, device)
            self.folder.keep(self._run(specialist, seed))

    def _run(self, specialist: Specialist, seed: int) -> Run:
        manifest = specialist.manifest
        recipe: Mapping[str, Any] = manifest.recipe
        probabilities, _ = ask([specialist], self.cases.images)[specialist.name]
        return Run(
            backbone=specialist.name,
            seed=seed,
            weights=recipe.get("begun_from"),
            weights_sha256=recipe.get("begun_from_sha256"),
            images=len(self.dataset.split("train")),
            patients=len(set(groups_of(self.dataset.split("train")))),
            parameters=manifest.parameters,
            best_epoch=recipe["best_epoch"],
            training_seconds=recipe["seconds"],
            milliseconds_per_image=_milliseconds(specialist, self.cases),
            probabilities=tuple(tuple(row) for row in probabilities.astype(float).tolist()),
        )


def _milliseconds(specialist: Specialist, cases: Split) -> float:
    """The median of one image alone through the network, once it is warm."""
    how = specialist.manifest.preprocessing
    pixels = transforms.resize(cases.images[0], how.input_size)
    image = transforms.normalise(pixels[None], how.mean, how.std)
    taken = []
    for _ in range(TIMED_FORWARDS):
        started = time.perf_counter()
        forward(specialist, image)
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken[TIMED_FORWARDS // 3 :]))
