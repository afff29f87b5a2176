"""Greedy tokens, as vLLM writes them and as our architecture computes them."""

from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image as Pictures
from transformers import DynamicCache

from service.domain import Image, Prompt
from service.generalist import protocol
from service.generalist.architecture import preprocess
from service.generalist.checkpoint import Checkpoint


def from_vllm(base_url: str, model: str, prompt: Prompt) -> tuple[list[int], list[int]]:
    """The ids of the prompt and of the answer, which no end of text cuts short."""
    body = {
        "model": model,
        "messages": [protocol.message(prompt)],
        "max_tokens": prompt.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    url = f"{base_url}/v1/chat/completions"
    reply: dict[str, Any] = httpx.post(url, json=body, timeout=120, trust_env=False).json()
    return reply["prompt_token_ids"], reply["choices"][0]["token_ids"]


@torch.inference_mode()
def computed(loaded: Checkpoint, image: Image, ids: list[int], tokens: int) -> list[int]:
    """As many greedy tokens of our architecture, in float32."""
    model, written = loaded.model, list[int]()
    pixels = preprocess(image.pixels, loaded.config.force_image_size)
    embeddings = model.embed(torch.tensor([ids]), model.image_features(pixels[None]))
    past = DynamicCache()
    while len(written) < tokens:
        output = model.language_model(
            inputs_embeds=embeddings, past_key_values=past, use_cache=True, logits_to_keep=1
        )
        written.append(int(output.logits[0, -1].argmax()))
        embeddings = model.language_model.get_input_embeddings()(torch.tensor([written[-1:]]))
    return written


def an_image(seed: int) -> Image:
    blotches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    stretched = Pictures.fromarray(blotches).resize((200, 160), Pictures.Resampling.BICUBIC)
    return Image(np.asarray(stretched), sha256=f"blotches-{seed}", media_type="image/png")
