"""A generalist's training in miniature: images of two shades, panels of three, one layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from builders import a_task

from retrieval.neighbour import ReferenceCase
from service.generalist import checkpoint, template
from service.generalist.training import examples, recipe
from service.generalist.training.arbitrating import Curriculum, Reader
from service.generalist.training.optimisation import Progress, Stage
from service.generalist.training.panels import Material
from service.generalist.training.recipe import Recipe
from specialists.task import Task

SHADES = (40, 200)


def bright_and_dark(count: int = 40, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A task that can be learned in seconds: images and targets."""
    truth = np.arange(count) % 2
    images = np.stack([np.full((size, size, 3), SHADES[label], np.uint8) for label in truth])
    return images, np.eye(2, dtype=np.float32)[truth]


def a_material(task: Task | None = None, cases: int = 12) -> Material:
    """Cases whose panel of three is right, wrong and unsure, with two neighbours each."""
    task = task or a_task()
    labels = len(task.labels)
    truth = np.arange(cases) % labels
    images = np.stack([np.full((32, 32, 3), 40 + 60 * label, np.uint8) for label in truth])
    said = np.full((cases, 3, labels), 0.2 / (labels - 1), np.float32)
    said[np.arange(cases), 0, truth] = 0.8
    said[np.arange(cases), 1, (truth + 1) % labels] = 0.8
    said[:, 2] = 1 / labels
    known = tuple(
        ReferenceCase(str(row), task.name, (name,), "", str(row), f"Findings: {name}.")
        for row, name in enumerate(task.label_names)
    )
    return Material(
        task=task,
        images=images,
        targets=np.eye(labels, dtype=np.float32)[truth],
        reports=tuple(f"Findings: {task.label_names[t]}. Impression: same." for t in truth),
        specialists=(("one", 0.9), ("two", 0.6), ("three", 0.5)),
        probabilities=said,
        known=known,
        rows=np.stack([truth, np.full(cases, -1)], axis=1).astype(np.int32),
        similarities=np.full((cases, 2), 0.9, np.float32),
        typicality=np.full(cases, 0.5, np.float32),
    )


def a_tiny_recipe(steps: int = 30) -> Recipe:
    nano = recipe.nano()
    size = replace(
        nano.model, image_size=32, vision_width=64, vision_heads=1, vision_layers=1,
        language_width=64, language_heads=1, language_layers=1, vocabulary=1024,
    )  # fmt: skip
    stage = Stage(steps, 16, 3e-3, 0.02)
    return replace(nano, model=size, vision=stage, arbitration=stage, polish=stage)


def a_curriculum(*materials: Material) -> Curriculum:
    nano = recipe.nano()
    return Curriculum(
        rich=template.find("rich"),
        plain=template.find("paper"),
        materials=materials,
        weights=(1.0,) * len(materials),
        told=(),
        dialogues=(),
        looks=(),
        few=frozenset(),
        shares=nano.shares["arbitration"],
        evidence=nano.evidence["arbitration"],
    )


def a_reader(tmp_path: Path, *tasks: Task) -> Reader:
    rich = template.find("rich")
    words = [text for task in tasks for text in examples.corpus(rich, task)]
    tokenizer = checkpoint.create_tokenizer(words * 4, 1024)
    size = a_tiny_recipe().model
    model = checkpoint.create(tmp_path / "begun", recipe.configuration(size), tokenizer, seed=1)
    return Reader(model, tokenizer)


def nobody(at: Progress) -> None:
    del at
