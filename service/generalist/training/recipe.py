"""How MedDr-nano is built and trained: data in `nano.toml`, read here."""

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from service.errors import Misconfigured
from service.generalist.training import arbitrating
from service.generalist.training.arbitrating import Shares
from service.generalist.training.evidence import EvidenceMix
from service.generalist.training.optimisation import Stage


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
class Material:
    """How much of what is prepared; `held_out` is the share of real images kept from seeing."""

    held_out: float
    phantoms_to_see: int  # per demo task
    phantoms_to_arbitrate: int
    phantoms_to_judge: int
    reference_phantoms: int
    cases_at_least: int  # versions of few real cases are drawn until there are about as many
    cases_to_judge: int
    stand_in_steps: int = 500  # of the specialists that stand in for a hospital's own,
    stand_in_epochs: int = 9  # and as many epochs at least


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int
    model: Size
    material: Material
    words_to_see: tuple[str, ...]
    weights: dict[str, float]  # of lessons by name; 1 where not given
    material_weights: dict[str, float]  # of what arbitration is learned on
    vision: Stage
    arbitration: Stage
    polish: Stage
    shares: dict[str, Shares]  # of each of these two stages
    evidence: dict[str, EvidenceMix]  # by the stage of arbitration

    def scaled(self, effort: float) -> "Recipe":
        """The same recipe with more or fewer steps."""
        return replace(
            self,
            vision=_longer(self.vision, effort),
            arbitration=_longer(self.arbitration, effort),
            polish=_longer(self.polish, effort),
        )

    def arbitrations(self) -> tuple[tuple[str, Stage], ...]:
        """The two times that arbitration is learned, the second at a lower rate."""
        return (arbitrating.NAME, self.arbitration), (arbitrating.POLISH, self.polish)


def nano() -> Recipe:
    """The recipe of the weights in `service/generalist/nano`."""
    text = files("service.generalist.training").joinpath("nano.toml").read_text("utf-8")
    return from_mapping(tomllib.loads(text))


def read(path: Path) -> Recipe:
    """A recipe of one's own, written as `nano.toml`; raises Misconfigured."""
    try:
        return from_mapping(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise Misconfigured(f"no recipe at '{path}': {error.strerror}") from error
    except KeyError as error:
        raise Misconfigured(f"the recipe '{path}' lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise Misconfigured(f"'{path}' is no recipe: {error}") from error


def from_mapping(fields: dict[str, Any]) -> Recipe:
    return Recipe(
        seed=fields["seed"],
        model=Size(**fields["model"]),
        material=Material(**fields["material"]),
        words_to_see=tuple(fields["words_to_see"]),
        weights=fields["weights"],
        material_weights=fields["material_weights"],
        vision=_stage(fields["vision"]),
        arbitration=_stage(fields["arbitration"]),
        polish=_stage(fields["polish"]),
        shares={name: Shares(**fields[name]["shares"]) for name in arbitrating.STAGES},
        evidence={n: EvidenceMix(**fields[n]["evidence"]) for n in arbitrating.STAGES},
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


def _stage(fields: dict[str, Any]) -> Stage:
    mixes = {"shares", "evidence"}
    return Stage(**{name: value for name, value in fields.items() if name not in mixes})


def _longer(stage: Stage, effort: float) -> Stage:
    return replace(stage, steps=max(1, round(stage.steps * effort)))
