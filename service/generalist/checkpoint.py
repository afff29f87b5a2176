"""A generalist's folder: the files that both engines read, in the layout of MedDr.

    config.json  generation_config.json  model.safetensors (bfloat16)
    tokenizer.json  tokenizer_config.json  chat_template.jinja

Only safetensors and JSON are read: no pickle, no remote code.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from service.errors import InvalidCheckpoint
from service.generalist import chat, lora
from service.generalist.architecture import InternVLChat
from service.generalist.chat import chat_ids
from service.generalist.configuration import ARCHITECTURE, InternVLChatConfig

__all__ = ["Checkpoint", "chat_ids", "create", "create_tokenizer", "load", "save"]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
FILES = (
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "chat_template.jinja",
)
BLOCK_BYTES = 1 << 20
PHRASE = r' ?\d+%?[,.]?|[^,.":;?!\n\d]*[^,.":;?!\n\d\s],?|[,.":;?!\n]+(?: ")?|\s+'
VOCABULARY_MULTIPLE = 64  # rows of the embedding, so that every kernel finds them aligned


class Checkpoint(NamedTuple):
    """What `load` returns: the model in float32 and eval mode, and what belongs to it."""

    model: InternVLChat
    tokenizer: Any
    config: InternVLChatConfig
    weights_sha256: str


def create_tokenizer(corpus: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the corpus, the chat's control tokens at ids 0 to 7.

    Tokens may span the words of a phrase: the sentences and labels of prompts recur, and one
    token for each makes prompts of a small model several times shorter.
    """
    backend = Tokenizer(models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PHRASE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(chat.SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    return _wrapped(backend)


def create(
    folder: Path, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int
) -> InternVLChat:
    """A checkpoint of random weights in `folder`, and the model in float32.

    `config` is the document of config.json; vocabulary and token ids come from the tokenizer.
    """
    completed = InternVLChatConfig(**_completed(config, tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InternVLChat(completed, _image_token_id(tokenizer)).eval()
    save(model, tokenizer, completed, folder)
    return model


def save(
    model: InternVLChat,
    tokenizer: PreTrainedTokenizerFast,
    config: InternVLChatConfig,
    folder: Path,
) -> None:
    """Write the folder that vLLM and `load` read, whole or not at all.

    Files of the folder that are no part of a checkpoint, such as a card, are kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        _write(model, tokenizer, config, staging)
        _replace(folder, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load(folder: Path, adapter: Path | None = None) -> Checkpoint:
    """The checkpoint of a folder, an adapter's LoRA weights added to it where one is given.

    Raises InvalidCheckpoint, which names what is wrong with either.
    """
    config = _config(folder)
    tokenizer = load_tokenizer(folder)
    files = _weight_files(folder)
    model = InternVLChat(config, _image_token_id(tokenizer))
    _fill(model, files, folder)
    if adapter is not None:
        lora.add(model, adapter)
        files.append(adapter / lora.WEIGHTS)
    return Checkpoint(model.float().eval(), tokenizer, config, _sha256(files))


def fingerprint(folder: Path) -> str:
    """sha256 of a checkpoint's weights; raises InvalidCheckpoint where there are none."""
    return _sha256(_weight_files(folder))


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=chat.START,
        eos_token=chat.END_OF_TURN,
        unk_token=chat.UNKNOWN,
        pad_token=chat.UNKNOWN,
        additional_special_tokens=[
            chat.TURN, chat.IMAGE_START, chat.IMAGE_END, chat.IMAGE_PLACE,
        ],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = chat.TEMPLATE
    return tokenizer


def _completed(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    rows = -(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    ids = {
        "vocab_size": rows,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    language = {**config["llm_config"], **ids}
    fixed = {"architectures": [ARCHITECTURE], "dtype": "bfloat16", "llm_config": language}
    return {**config, **fixed}


def _write(
    model: InternVLChat,
    tokenizer: PreTrainedTokenizerFast,
    config: InternVLChatConfig,
    folder: Path,
) -> None:
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    write_json(folder / CONFIG, config.to_dict())
    write_json(folder / "generation_config.json", generation_config(tokenizer))
    weights = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in _state(model).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors keeps it to its owner, a server may be another


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def generation_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids(list(chat.STOP_TOKENS)),
        "pad_token_id": tokenizer.pad_token_id,
    }


def _replace(folder: Path, staging: Path) -> None:
    """Rename `staging` to `folder`, after carrying over what else `folder` holds."""
    if not folder.exists():
        staging.rename(folder)
        return
    for extra in folder.iterdir():
        if not (staging / extra.name).exists() and ".safetensors" not in extra.suffixes:
            _copy(extra, staging / extra.name)
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(retired)
    staging.rename(folder)
    shutil.rmtree(retired)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _config(folder: Path) -> InternVLChatConfig:
    document = read_json(folder / CONFIG)
    kind = document.pop("model_type", None)
    if kind != InternVLChatConfig.model_type:
        raise InvalidCheckpoint(
            f"'{folder}' holds a model of type '{kind}', not '{InternVLChatConfig.model_type}'"
        )
    if document.get("use_llm_lora") or document.get("use_backbone_lora"):
        raise InvalidCheckpoint(f"'{folder}' has LoRA weights not merged: convert it first")
    try:
        return InternVLChatConfig(**document)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(
            f"'{folder / CONFIG}' is no valid configuration: {error}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidCheckpoint(f"'{path.parent}' has no {path.name}") from None
    except ValueError as error:
        raise InvalidCheckpoint(f"'{path}' is damaged: {error}") from error
    if not isinstance(document, dict):
        raise InvalidCheckpoint(f"'{path}' is damaged: not a JSON object")
    return document


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """From tokenizer.json alone: the other tokenizer files repeat what the chat module fixes."""
    read_json(folder / TOKENIZER)
    try:
        backend = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InvalidCheckpoint(f"'{folder / TOKENIZER}' is damaged: {error}") from error
    missing = [token for token in chat.SPECIAL_TOKENS if backend.token_to_id(token) is None]
    if missing:
        raise InvalidCheckpoint(f"the tokenizer of '{folder}' lacks {', '.join(missing)}")
    return _wrapped(backend)


def _image_token_id(tokenizer: PreTrainedTokenizerFast) -> int:
    return int(tokenizer.convert_tokens_to_ids(chat.IMAGE_PLACE))


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidCheckpoint(f"'{folder}' has no {WEIGHTS}")
    return files


def _fill(model: InternVLChat, files: list[Path], folder: Path) -> None:
    expected, weights = _state(model), dict(_tensors(files))
    for name, parameter in expected.items():
        if name not in weights:
            raise InvalidCheckpoint(f"the weights of '{folder}' lack '{name}'")
        if weights[name].shape != parameter.shape:
            raise InvalidCheckpoint(
                f"'{name}' in '{folder}' has the shape {tuple(weights[name].shape)}, "
                f"its configuration asks for {tuple(parameter.shape)}"
            )
    if unknown := sorted(weights.keys() - expected.keys()):
        raise InvalidCheckpoint(f"the weights of '{folder}' hold the unknown '{unknown[0]}'")
    model.load_state_dict(weights)


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        try:
            yield from load_file(file).items()
        except SafetensorError as error:
            raise InvalidCheckpoint(f"'{file}' is damaged: {error}") from error


def _state(model: InternVLChat) -> dict[str, Tensor]:
    return dict(model.state_dict())


def _sha256(files: list[Path]) -> str:
    """Of the weight files in the order given: of one file, its own."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
