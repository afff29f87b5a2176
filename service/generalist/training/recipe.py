"""How MedDr-nano is built and trained: data in `nano.toml`, read here."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from service.generalist import prompt
from service.generalist.chat import SYSTEM
from service.generalist.training.evidence import EvidenceMix
from specialists.task import Task


@dataclass(frozen=True, slots=True)
class Size:
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    language_width: int
    language_layers: int
    language_heads: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Stage:
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int
    model: Size
    vision: Stage
    arbitration: Stage
    evidence: EvidenceMix

    def scaled(self, effort: float) -> "Recipe":
        """The same recipe with more or fewer steps."""
        return replace(
            self,
            vision=replace(self.vision, steps=max(1, round(self.vision.steps * effort))),
            arbitration=replace(
                self.arbitration, steps=max(1, round(self.arbitration.steps * effort))
            ),
        )


def nano() -> Recipe:
    """The recipe of the weights in `service/generalist/nano`."""
    text = files("service.generalist.training").joinpath("nano.toml").read_text("utf-8")
    return from_mapping(tomllib.loads(text))


def from_mapping(fields: dict[str, Any]) -> Recipe:
    return Recipe(
        seed=fields["seed"],
        model=Size(**fields["model"]),
        vision=Stage(**fields["vision"]),
        arbitration=Stage(**fields["arbitration"]),
        evidence=EvidenceMix(**fields["evidence"]),
    )


def configuration(size: Size) -> dict[str, Any]:
    """The document of config.json: InternVL-Chat-V1-2 as MedDr uses it, in small."""
    return {
        "force_image_size": size.image_size,
        "vision_config": {
            "hidden_size": size.vision_width,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "intermediate_size": 3 * size.vision_width,
            "patch_size": size.patch_size,
            "image_size": size.image_size,
            "initializer_factor": 1.0,
        },
        "llm_config": {
            "model_type": "llama",
            "hidden_size": size.language_width,
            "num_hidden_layers": size.language_layers,
            "num_attention_heads": size.language_heads,
            "num_key_value_heads": size.language_heads,
            "intermediate_size": 3 * size.language_width,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
        },
    }


def corpus(tasks: Iterable[Task]) -> list[str]:
    """The words of every prompt and answer, for the tokenizer."""
    return [text for task in tasks for text in _texts(task)]


def _texts(task: Task) -> list[str]:
    answers = [(name,) for name in task.label_names]
    instruction = prompt.instruction(task)
    evidence = prompt.evidence_sentences(answers, answers[::-1])
    turns = f"system\n{SYSTEM}", "user\n", "assistant\n"
    return [instruction + evidence, instruction, *task.label_names, *turns] * 8
