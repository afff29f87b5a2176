"""InternVL-Chat-V1-2, the architecture of MedDr, in plain PyTorch around transformers' Llama.

Attribute names are the names of the weights in MedDr's files, so a state dict loads unchanged.
Sources: MedDr's modeling_internvl_chat.py and InternVL's modeling_intern_vit.py; same tokens as
vLLM's implementation at float32.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutputWithPast

from service.generalist.asked import resized
from service.generalist.configuration import InternVisionConfig, InternVLChatConfig

IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
IMAGENET_STD = np.array((0.229, 0.224, 0.225), np.float32)


def preprocess(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """(height, width, 3) RGB → (3, size, size) float32: resized as in `resized`, normalised."""
    scaled = resized(pixels, size).astype(np.float32) / np.float32(255)
    return torch.from_numpy((scaled - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1).contiguous()


class InternVLChat(nn.Module):
    """Image and chat in, logits of the next token out.

    `image_token_id` marks the places of a prompt that the image's features take,
    `config.image_tokens` of them per image.
    """

    def __init__(self, config: InternVLChatConfig, image_token_id: int) -> None:
        super().__init__()
        self.config = config
        self.image_token_id = image_token_id
        folded = int(config.vision_config.hidden_size / config.downsample_ratio**2)
        width = config.text_config.hidden_size
        self.vision_model = InternVisionModel(config.vision_config)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(folded), nn.Linear(folded, width), nn.GELU(), nn.Linear(width, width)
        )
        self.language_model = LlamaForCausalLM(config.text_config)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, tokens, vocabulary), and with `labels` the mean loss of the next token.

        `input_ids` and `labels` (batch, tokens), labels of -100 not counted; `pixel_values`
        (batch, 3, size, size) from `preprocess`; rows are padded to the right.
        """
        embeddings = self.embed(input_ids, self.image_features(pixel_values))
        return self.language_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, labels=labels, use_cache=False
        )

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """(images, 3, size, size) → (images, image tokens, width of the language model)."""
        patches = self.vision_model(pixel_values, self.config.select_layer)[:, 1:]
        folded: Tensor = self.mlp1(self._fold(patches))
        return folded

    def embed(self, input_ids: Tensor, features: Tensor) -> Tensor:
        """(batch, tokens) → (batch, tokens, width), the image's places filled with its features.

        Raises ValueError when the places and the features differ in number: training on such
        a prompt would be blind.
        """
        words: Tensor = self.language_model.get_input_embeddings()(input_ids)
        places = input_ids == self.image_token_id
        if int(places.sum()) != features.shape[0] * features.shape[1]:
            raise ValueError(
                f"{int(places.sum())} image tokens in the prompt for "
                f"{features.shape[0]} images of {features.shape[1]} tokens each"
            )
        return words.masked_scatter(places.unsqueeze(-1), features.to(words.dtype))

    def _fold(self, patches: Tensor) -> Tensor:
        """Pixel shuffle: a square of neighbouring patches becomes one token of more features.

        Version 1 swaps rows and columns on the way, an oversight that MedDr was trained with.
        """
        images, count, width = patches.shape
        side, ratio = int(count**0.5), self.config.downsample_ratio
        fewer = int(side * ratio)
        grid = patches.reshape(images, side, fewer, int(width / ratio)).permute(0, 2, 1, 3)
        grid = grid.reshape(images, fewer, fewer, int(width / ratio**2))
        if self.config.ps_version != "v1":
            grid = grid.permute(0, 2, 1, 3)
        return grid.reshape(images, fewer * fewer, -1)


class InternVisionModel(nn.Module):
    """InternViT: (images, 3, size, size) → (images, 1 + patches, width)."""

    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)

    def forward(self, pixel_values: Tensor, select_layer: int = -1) -> Tensor:
        hidden: Tensor = self.encoder(self.embeddings(pixel_values), select_layer)
        return hidden


class VisionEmbeddings(nn.Module):
    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        places = 1 + (config.image_size // patch) ** 2
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width) * config.initializer_range)
        self.patch_embedding = nn.Conv2d(config.num_channels, width, patch, patch)
        self.position_embedding = nn.Parameter(
            torch.randn(1, places, width) * config.initializer_range
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embedding


class VisionEncoder(nn.Module):
    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, select_layer: int) -> Tensor:
        """The output of layer `select_layer`, counted from the embeddings, or backwards from -1."""
        used = select_layer if select_layer >= 0 else len(self.layers) + 1 + select_layer
        for layer in self.layers[:used]:
            hidden = layer(hidden)
        return hidden


class VisionLayer(nn.Module):
    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        width, scale = config.hidden_size, config.initializer_factor
        self.attn = VisionAttention(config)
        self.mlp = VisionMlp(config)
        self.norm1 = _norm(config)
        self.norm2 = _norm(config)
        self.ls1 = nn.Parameter(scale * torch.ones(width))
        self.ls2 = nn.Parameter(scale * torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden)) * self.ls1
        result: Tensor = hidden + self.mlp(self.norm2(hidden)) * self.ls2
        return result


class VisionAttention(nn.Module):
    """Self-attention with queries and keys normalised over all heads together."""

    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.normalised = config.qk_normalization
        if self.normalised:
            self.q_norm = RmsNorm(width, config.layer_norm_eps)
            self.k_norm = RmsNorm(width, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = self.qkv(hidden).chunk(3, dim=-1)
        if self.normalised:
            query, key = self.q_norm(query), self.k_norm(key)
        attended = functional.scaled_dot_product_attention(
            self._by_head(query), self._by_head(key), self._by_head(value)
        )
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return result

    def _by_head(self, features: Tensor) -> Tensor:
        rows, tokens, width = features.shape
        return features.view(rows, tokens, self.heads, width // self.heads).transpose(1, 2)


class VisionMlp(nn.Module):
    def __init__(self, config: InternVisionConfig) -> None:
        super().__init__()
        self.act = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.fc2(self.act(self.fc1(hidden)))
        return result


class RmsNorm(nn.Module):
    """Root-mean-square norm, computed in float32 whatever the dtype of the features."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * scale).to(hidden.dtype)


def _norm(config: InternVisionConfig) -> nn.Module:
    if config.norm_type == "rms_norm":
        return RmsNorm(config.hidden_size, config.layer_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
