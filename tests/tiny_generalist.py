"""A generalist of random weights: MedDr's architecture at 0.1 M parameters, made in a second."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from service.generalist import checkpoint
from service.generalist.architecture import InternVLChat

TINY: dict[str, Any] = {
    "force_image_size": 56,
    "vision_config": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "patch_size": 14,
        "initializer_factor": 1.0,
    },
    "llm_config": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,  # vLLM on a CPU needs heads of at least 32 features
        "num_key_value_heads": 1,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        # Ten times the usual: distributions far from even, so that a difference would show.
        "initializer_range": 0.2,
    },
}
CORPUS = (
    "You are a medical imaging assistant. Answer with exactly one option.",
    "normal nodule pneumonia mass effusion benign malignant no finding",
)


def a_tokenizer(vocabulary_size: int = 400) -> PreTrainedTokenizerFast:
    return checkpoint.create_tokenizer(CORPUS * 3, vocabulary_size)


def a_checkpoint(folder: Path, seed: int = 0) -> InternVLChat:
    """The folder as `load` and vLLM read it, and the model that was saved there."""
    return checkpoint.create(folder, TINY, a_tokenizer(), seed)
