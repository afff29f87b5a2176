"""The configuration of InternVL-Chat-V1-2 (`model_type` internvl_chat), the architecture of MedDr.

Neither transformers 5 nor vLLM knows this model type without remote code. vLLM loads `register`
through its plug-in entry point in an environment of its own, so this module imports nothing
but transformers. The defaults are those that vLLM reads and MedDr's config.json leaves out.
"""

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

ARCHITECTURE = "InternVLChatModel"  # the name under which vLLM keeps this model


class InternVisionConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """InternViT; the defaults are those of InternViT-6B. Sizes in pixels and features."""

    model_type = "intern_vit_6b"

    num_channels: int = 3
    image_size: int = 448
    patch_size: int = 14
    hidden_size: int = 3200
    num_hidden_layers: int = 48
    num_attention_heads: int = 25
    intermediate_size: int = 12800
    hidden_act: str = "gelu"
    norm_type: str = "rms_norm"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_normalization: bool = True
    initializer_factor: float = 0.1  # first value of the layer scales; 1.0 to train from scratch
    initializer_range: float = 0.02
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0
    use_flash_attn: bool = False


class InternVLChatConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """InternViT + MLP + a language model; `llm_config` on disk, `text_config` for libraries.

    One image is one tile of `force_image_size` pixels, its aspect ratio not kept (MedDr's own
    preprocessing), so tiling is off unless a checkpoint asks for it.
    """

    model_type = "internvl_chat"
    has_no_defaults_at_init = True

    vision_config: Any = None  # a document or an InternVisionConfig; afterwards the latter
    text_config: Any = None
    template: str = "Hermes-2"
    select_layer: int = -1
    force_image_size: int | None = None
    downsample_ratio: float = 0.5
    ps_version: str = "v1"
    pad2square: bool = False
    dynamic_image_size: bool = False
    use_thumbnail: bool = False
    min_dynamic_patch: int = 1
    max_dynamic_patch: int = 1
    use_backbone_lora: int = 0
    use_llm_lora: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, llm_config: Any = None, **others: Any) -> None:
        self.vision_config = _vision(self.vision_config)
        self.text_config = _language(llm_config if llm_config is not None else self.text_config)
        self.force_image_size = self.force_image_size or self.vision_config.image_size
        self.vision_config.image_size = self.force_image_size  # vLLM's image processor reads this
        super().__post_init__(**others)

    @property
    def llm_config(self) -> Any:
        return self.text_config

    @property
    def image_tokens(self) -> int:
        """How many tokens of the prompt one image takes: 256 for MedDr."""
        patches = self.force_image_size // self.vision_config.patch_size
        return int((patches * self.downsample_ratio) ** 2)

    def to_dict(self) -> dict[str, Any]:
        """The document as MedDr's config.json has it."""
        document: dict[str, Any] = super().to_dict()
        document["llm_config"] = document.pop("text_config")
        return document


def _vision(given: Any) -> InternVisionConfig:
    if isinstance(given, InternVisionConfig):
        return given
    return InternVisionConfig(**{k: v for k, v in (given or {}).items() if k != "model_type"})


def _language(given: Any) -> Any:
    if isinstance(given, PreTrainedConfig):
        return given
    fields = dict(given or {})
    return CONFIG_MAPPING[fields.pop("model_type", "llama")](**fields)


def register() -> None:
    """Teach transformers, and so vLLM, the model type; calling it again does no harm."""
    AutoConfig.register(InternVLChatConfig.model_type, InternVLChatConfig, exist_ok=True)
