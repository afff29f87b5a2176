"""A look-alike of the published MedDr_0401: its files and its names of tensors, at toy size.

What is known of the original and repeated here: configuration without the fields that vLLM reads,
LoRA of the language model unmerged under peft's names, two shards with an index, a slow
sentencepiece tokenizer in which `<img>` is an ordinary piece, and seven added tokens.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from service.generalist.architecture import InternVLChat
from service.generalist.configuration import InternVLChatConfig

RANK = 4
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONTROL = ("<|startoftext|>", "<|endoftext|>")
USER_DEFINED = ("<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>")
IMAGE = ("<img>", "</img>")
ADDED = ("<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
CORPUS = (
    "You are a medical imaging assistant. Your task is diagnosis. Answer with exactly one option.",
    "Findings: the heart is normal in size. The lungs are clear. Impression: no acute finding.",
    "Diagnoses of the most similar cases: pneumonia, nodule, mass, effusion, benign, malignant.",
)
# Numbers as files hold them: sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL_KIND, USER_KIND, BYTE = 1, 2, 3, 4, 6


def a_lookalike(folder: Path, *, seed: int = 0, image_size: int = 56) -> None:
    """Random weights in bfloat16, LoRA of rank 4 with effects as large as the weights'."""
    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder)
    document = a_config(vocabulary, image_size)
    (folder / "config.json").write_text(json.dumps(document, indent=2))
    (folder / "generation_config.json").write_text('{"transformers_version": "4.38.2"}')
    (folder / "README.md").write_text("---\nlicense: other\n---\nThe original's card.\n")
    write_shards(folder, dict(wrapped(a_state(document, seed), seed)))


def a_config(vocabulary: int, image_size: int) -> dict[str, Any]:
    """Fields as transformers 4.38 wrote them, among them many that mean nothing here."""
    generic = {"return_dict": True, "num_beams": 1, "top_k": 50, "bad_words_ids": None,
               "torch_dtype": "bfloat16", "transformers_version": "4.38.2"}  # fmt: skip
    return {
        "_name_or_path": "OpenGVLab/InternVL-Chat-V1-2-Plus",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "force_image_size": image_size,
        "pad2square": False,
        "select_layer": -1,
        "template": "Hermes-2",
        "torch_dtype": "bfloat16",
        "transformers_version": None,
        "use_backbone_lora": 0,
        "use_llm_lora": RANK,
        "vision_config": {
            **generic,
            "model_type": "intern_vit_6b",
            "architectures": ["InternVisionModel"],
            "hidden_size": 64,
            "image_size": image_size,
            "initializer_factor": 0.1,
            "intermediate_size": 96,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "patch_size": 14,
            "qk_normalization": True,
            "use_flash_attn": True,
        },
        "llm_config": {
            **generic,
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 7,
            "pad_token_id": 0,
            "hidden_act": "silu",
            "hidden_size": 128,
            "intermediate_size": 192,
            "max_position_embeddings": 1024,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": 5000000.0,
            "tie_word_embeddings": False,
            "vocab_size": vocabulary,
        },
    }


def a_state(document: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """The merged model's tensors, far enough from even that differences would show."""
    fields = {k: v for k, v in document.items() if k not in ("model_type", "torch_dtype")}
    torch.manual_seed(seed)
    model = InternVLChat(InternVLChatConfig(**fields), image_token_id=0)
    state = {}
    for name, tensor in model.state_dict().items():
        wide = torch.randn_like(tensor) * 0.2 if tensor.ndim > 1 else tensor
        state[name] = wide.to(torch.bfloat16)
    return state


def wrapped(state: dict[str, Tensor], seed: int) -> Iterator[tuple[str, Tensor]]:
    """The names that peft gives the language model's tensors, and LoRA pairs of their own."""
    torch.manual_seed(seed + 1)
    for name, tensor in state.items():
        if not name.startswith("language_model."):
            yield name, tensor
            continue
        module = name.replace("language_model.", "language_model.base_model.model.", 1)
        if module.split(".")[-2] not in ADAPTED:
            yield module, tensor
            continue
        module = module.removesuffix(".weight")
        rows, columns = tensor.shape
        yield f"{module}.base_layer.weight", tensor
        yield f"{module}.lora_A.default.weight", a_matrix(RANK, columns)
        yield f"{module}.lora_B.default.weight", a_matrix(rows, RANK)


def a_matrix(rows: int, columns: int) -> Tensor:
    return (torch.randn(rows, columns) * 0.1).to(torch.bfloat16)


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Two shards; a LoRA pair and its base lie on both sides of the cut."""
    names = list(tensors)
    cut = next(n for n, name in enumerate(names) if "layers.1.self_attn.q_proj.lora_A" in name)
    index = {}
    for number, part in enumerate((names[:cut], names[cut:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    document = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))


def write_tokenizer(folder: Path) -> int:
    """The files of a slow tokenizer; how many rows the embedding has."""
    pieces = a_vocabulary()
    (folder / "tokenizer.model").write_bytes(a_sentencepiece_model(pieces))
    size = len(pieces)
    ids = {text: number for number, (text, _) in enumerate(pieces)}
    added = {token: size + number for number, token in enumerate(ADDED)}
    special = {t: ids[t] for t in ("<unk>", *CONTROL, *USER_DEFINED[-2:], *IMAGE)} | added
    names = {"bos_token": CONTROL[0], "eos_token": "<|im_end|>", "unk_token": "<unk>",
             "pad_token": "<unk>", "additional_special_tokens": [*IMAGE, *ADDED]}  # fmt: skip
    form = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    config = {
        **names,
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "add_bos_token": False,
        "added_tokens_decoder": {
            str(number): {"content": token, "special": True, **form}
            for token, number in special.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2))
    return size + len(ADDED)


def a_vocabulary() -> list[tuple[str, int]]:
    """Pieces and their kinds in the order of Yi: control, user-defined, bytes, then merges."""
    reserved = [("<unk>", UNKNOWN), *((t, CONTROL_KIND) for t in CONTROL)]
    reserved += [(token, USER_KIND) for token in (*USER_DEFINED, *IMAGE)]
    octets = [(f"<0x{octet:02X}>", BYTE) for octet in range(256)]
    return [*reserved, *octets, *((piece, NORMAL) for piece in learned_pieces(CORPUS))]


def learned_pieces(corpus: Iterable[str], size: int = 300) -> list[str]:
    """Merges before characters, as a sentencepiece trainer orders them."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    by_id = sorted(backend.get_vocab().items(), key=lambda pair: pair[1])
    pieces = [piece for piece, _ in by_id]
    return [p for p in pieces if len(p) > 1] + [p for p in pieces if len(p) == 1]


def a_sentencepiece_model(
    pieces: Iterable[tuple[str, int]], *, model_type: int = 2, dummy_prefix: bool = False
) -> bytes:
    """The file that sentencepiece would write; scores fall with the place."""
    body, place = b"", 0
    for text, kind in pieces:
        score = 0.0 if kind != NORMAL else -float(place)
        place += kind == NORMAL
        octets = text.encode()
        message = _field(1, 2) + _varint(len(octets)) + octets
        message += _field(2, 5) + struct.pack("<f", score) + _field(3, 0) + _varint(kind)
        body += _field(1, 2) + _varint(len(message)) + message
    trainer = _field(3, 0) + _varint(model_type) + _field(35, 0) + _varint(1)
    rules = _field(1, 2) + _varint(8) + b"identity" + _field(3, 0) + _varint(int(dummy_prefix))
    rules += _field(4, 0) + _varint(0) + _field(5, 0) + _varint(1)
    body += _field(2, 2) + _varint(len(trainer)) + trainer
    return body + _field(3, 2) + _varint(len(rules)) + rules


def _field(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
