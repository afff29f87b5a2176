"""The published MedDr checkpoint to a generalist's folder, as `checkpoint` describes it.

What the original lacks: fields of the configuration that vLLM reads, LoRA merged into the language
model, tokenizer.json, the chat template, the end of a turn as an end of text. Weights stay in
bfloat16 and pass shard by shard: memory for one shard of 2 GB and the largest tensor is enough.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from service.errors import InvalidCheckpoint, Misconfigured
from service.generalist import chat, checkpoint, published, sentencepiece
from service.generalist.architecture import InternVLChat
from service.generalist.configuration import ARCHITECTURE, InternVLChatConfig
from service.generalist.published import Published, Shape

SHARD_BYTES = 2_000_000_000
DTYPE = torch.bfloat16
SPENT = ("auto_map", "_name_or_path", "torch_dtype", "transformers_version", "model_type")
KEPT = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")

Shown = Callable[[int, int], None]  # bytes written, bytes in all


def convert(source: Path, folder: Path, *, force: bool = False, show: Shown | None = None) -> None:
    """Writes `folder`, whole or not at all; `force` replaces an existing one.

    Raises InvalidCheckpoint, which names what is wrong with the original, Misconfigured for a
    folder that exists, and OSError when the disk has too little room.
    """
    _demand_new(source, folder, force=force)
    config = _config(source)
    found, expected = published.find(source, config), _expected(config)
    found.demand(expected)
    with _staging(folder) as staging:
        _demand_room(staging, expected)
        tokenizer = _write_tokenizer(source, staging)
        _write_config(config, tokenizer, staging)
        _write_weights(found, expected, staging, show)
        _copy_papers(source, staging)
        _put_in_place(staging, folder)


def _demand_new(source: Path, folder: Path, *, force: bool) -> None:
    """Nothing that is not a checkpoint is ever replaced, and never the original."""
    original, new = source.resolve(), folder.resolve()
    if new == original or new in original.parents or original in new.parents:
        raise Misconfigured(f"'{folder}' is the original, around it or inside of it")
    if folder.exists() and not force:
        raise Misconfigured(f"'{folder}' exists: --force replaces it, with all that it holds")
    if folder.exists() and not (folder / checkpoint.CONFIG).is_file():
        raise Misconfigured(f"'{folder}' exists and is no checkpoint: it will not be replaced")


def _config(source: Path) -> InternVLChatConfig:
    document = checkpoint.read_json(source / checkpoint.CONFIG)
    kind = document.get("model_type")
    if kind != InternVLChatConfig.model_type:
        raise InvalidCheckpoint(
            f"'{source}' holds a model of type '{kind}', not '{InternVLChatConfig.model_type}'"
        )
    fields = {name: value for name, value in document.items() if name not in SPENT}
    fixed = {"architectures": [ARCHITECTURE], "dtype": "bfloat16"}
    try:
        parts = {name: _said(fields[name]) for name in ("vision_config", "llm_config")}
        parts["vision_config"]["use_flash_attn"] = False
        return InternVLChatConfig(**(fields | fixed | parts))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidCheckpoint(f"'{source / checkpoint.CONFIG}' is not valid: {error}") from error


def _said(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def _expected(config: InternVLChatConfig) -> dict[str, Shape]:
    """Names and shapes of the merged model's tensors, without their memory."""
    with torch.device("meta"):
        model = InternVLChat(config, image_token_id=0)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _demand_room(folder: Path, expected: Mapping[str, Shape]) -> None:
    needed, free = sum(map(_size_bytes, expected.values())), shutil.disk_usage(folder).free
    if free < needed:
        sentence = f"too little room: {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} free"
        raise OSError(errno.ENOSPC, sentence, str(folder))


def _size_bytes(shape: Shape) -> int:
    return int(torch.Size(shape).numel()) * DTYPE.itemsize


def _write_weights(
    source: Published, expected: Mapping[str, Shape], folder: Path, show: Shown | None
) -> None:
    shards = list(_grouped(expected))
    done, total = 0, sum(map(_size_bytes, expected.values()))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = _shard_name(number, len(shards))
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors[name] = source.merged(name).to(DTYPE).contiguous()
            done += tensors[name].nbytes
            if show:
                show(done, total)
        _save(tensors, folder / file)
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        checkpoint.write_json(
            folder / published.INDEX, {"metadata": {"total_size": total}, "weight_map": index}
        )


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:  # a disk that fills up meanwhile, among others
        raise OSError(errno.EIO, f"cannot be written: {error}", str(file)) from error
    file.chmod(0o644)  # safetensors keeps it to its owner, a server may be another


def _grouped(expected: Mapping[str, Shape]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, shape in expected.items():
        if group and size + _size_bytes(shape) > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += _size_bytes(shape)
    yield group


def _shard_name(number: int, count: int) -> str:
    return checkpoint.WEIGHTS if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write_config(config: InternVLChatConfig, tokenizer: Any, folder: Path) -> None:
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise InvalidCheckpoint(f"{len(tokenizer)} tokens, but an embedding of {rows} rows")
    config.use_llm_lora = config.use_backbone_lora = 0
    checkpoint.write_json(folder / checkpoint.CONFIG, config.to_dict())
    generation = checkpoint.generation_config(tokenizer)
    checkpoint.write_json(folder / "generation_config.json", generation)


def _write_tokenizer(source: Path, folder: Path) -> Any:
    _backend(source).save(str(folder / checkpoint.TOKENIZER))
    tokenizer = checkpoint.load_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(chat.TEMPLATE)
    return tokenizer


def _backend(source: Path) -> Tokenizer:
    """The slow tokenizer first: MedDr was trained with it, and fast ones were made of it."""
    model = source / "tokenizer.model"
    if model.exists():
        backend = sentencepiece.tokenizer(sentencepiece.read(model))
        _add_tokens(backend, source)
        return backend
    try:
        return Tokenizer.from_file(str(source / checkpoint.TOKENIZER))
    except Exception as error:  # tokenizers raises nothing more precise
        raise InvalidCheckpoint(
            f"'{source}' has neither tokenizer.model nor a readable tokenizer.json"
        ) from error


def _add_tokens(backend: Tokenizer, source: Path) -> None:
    """What training added behind the vocabulary, at the ids that the embedding has for it."""
    for number, token in sorted(_added(source).items()):
        backend.add_tokens([AddedToken(token, normalized=False, special=True)])
        if backend.token_to_id(token) != number:
            raise InvalidCheckpoint(f"'{token}' of '{source}' should have the id {number}")


def _added(source: Path) -> dict[int, str]:
    config, added = source / "tokenizer_config.json", source / "added_tokens.json"
    decoder = checkpoint.read_json(config).get("added_tokens_decoder", {})
    later = checkpoint.read_json(added) if added.exists() else {}
    try:
        tokens = {int(number): str(entry["content"]) for number, entry in decoder.items()}
        return tokens | {int(number): token for token, number in later.items()}
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise InvalidCheckpoint(f"'{source}' has damaged lists of added tokens") from error


def _copy_papers(source: Path, folder: Path) -> None:
    """The card and the licence go where the weights go."""
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder beside the new one, gone afterwards whatever happens."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.replace(folder, retired)
    staging.rename(folder)
    shutil.rmtree(retired)
