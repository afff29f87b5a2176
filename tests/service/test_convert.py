"""From files as MedDr was published to a folder that both engines read."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lookalike import RANK, a_lookalike, a_sentencepiece_model, a_state, a_vocabulary
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_generalist import a_checkpoint

from service.cli.main import main
from service.errors import InvalidCheckpoint, Misconfigured
from service.generalist import chat, checkpoint, convert, sentencepiece

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
QUERY = "language_model.model.layers.0.self_attn.q_proj"
PEFT_QUERY = QUERY.replace("language_model.", "language_model.base_model.model.")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "MedDr_0401"
    a_lookalike(folder)
    return folder


@pytest.fixture
def published(original: Path, tmp_path: Path) -> Path:
    """A copy of its own for a test that damages it."""
    return Path(shutil.copytree(original, tmp_path / "MedDr_0401"))


def test_a_converted_checkpoint_is_one_that_we_load(original: Path, tmp_path: Path) -> None:
    convert.convert(original, tmp_path / "meddr")

    loaded = checkpoint.load(tmp_path / "meddr")

    assert loaded.config.ps_version == "v1"
    assert loaded.config.use_llm_lora == 0
    assert loaded.config.text_config.rope_parameters["rope_theta"] == 5_000_000
    assert loaded.tokenizer.chat_template == chat.TEMPLATE
    assert not leftovers(tmp_path)


def test_lora_is_merged_and_everything_else_is_kept_bit_by_bit(
    original: Path, tmp_path: Path
) -> None:
    convert.convert(original, tmp_path / "meddr")

    base = a_state(json.loads((original / "config.json").read_text()), seed=0)
    merged = load_file(tmp_path / "meddr" / "model.safetensors")
    down, up = lora_of(original, PEFT_QUERY)

    expected = base[f"{QUERY}.weight"].float() + 2 * up.float() @ down.float()
    assert torch.equal(merged[f"{QUERY}.weight"], expected.bfloat16())
    assert merged.keys() == base.keys()
    assert all(tensor.dtype == torch.bfloat16 for tensor in merged.values())
    untouched = [name for name in base if name.startswith(("vision_model.", "mlp1."))]
    assert all(torch.equal(merged[name], base[name]) for name in untouched)


def test_both_ends_of_a_text_are_ends(original: Path, tmp_path: Path) -> None:
    convert.convert(original, tmp_path / "meddr")

    generation = json.loads((tmp_path / "meddr" / "generation_config.json").read_text())

    assert generation["eos_token_id"] == [2, 7]


def test_the_card_goes_with_the_weights(original: Path, tmp_path: Path) -> None:
    convert.convert(original, tmp_path / "meddr")

    card = (tmp_path / "meddr" / "README.md").read_text()

    assert "The original's card" in card


def test_large_weights_are_written_in_shards_with_an_index(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 200_000)
    shown: list[tuple[int, int]] = []

    convert.convert(original, tmp_path / "meddr", show=lambda *at: shown.append(at))

    index = json.loads((tmp_path / "meddr" / "model.safetensors.index.json").read_text())
    files = sorted(file.name for file in (tmp_path / "meddr").glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files
    assert shown[-1] == (index["metadata"]["total_size"],) * 2
    assert checkpoint.load(tmp_path / "meddr").model.training is False


def test_weights_already_merged_are_taken_as_they_are(published: Path, tmp_path: Path) -> None:
    config = json.loads((published / "config.json").read_text())
    state = a_state(config, seed=3)
    rewrite(published, lambda _: state)

    convert.convert(published, tmp_path / "meddr")

    merged = load_file(tmp_path / "meddr" / "model.safetensors")
    assert torch.equal(merged[f"{QUERY}.weight"], state[f"{QUERY}.weight"])


def test_buffers_of_older_versions_are_left_out(published: Path, tmp_path: Path) -> None:
    name = "language_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(published, lambda tensors: {**tensors, name: torch.ones(16)})

    convert.convert(published, tmp_path / "meddr")

    assert checkpoint.load(tmp_path / "meddr")


def test_a_folder_with_a_fast_tokenizer_keeps_it(tmp_path: Path) -> None:
    a_checkpoint(tmp_path / "tiny")

    convert.convert(tmp_path / "tiny", tmp_path / "again")

    before, after = checkpoint.load(tmp_path / "tiny"), checkpoint.load(tmp_path / "again")
    text = "Answer with exactly one option."
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
    assert after.weights_sha256 == before.weights_sha256


def test_an_existing_folder_is_replaced_only_when_forced(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "meddr"
    convert.convert(original, target)
    (target / "model-00001-of-00009.safetensors").write_text("stale")

    with pytest.raises(Misconfigured, match="exists: --force"):
        convert.convert(original, target)
    convert.convert(original, target, force=True)

    assert [file.name for file in target.glob("*.safetensors")] == ["model.safetensors"]
    assert not leftovers(tmp_path)


def test_not_even_force_replaces_what_is_no_checkpoint(original: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.tex").write_text("years of work")

    with pytest.raises(Misconfigured, match="is no checkpoint"):
        convert.convert(original, tmp_path / "thesis", force=True)

    assert (tmp_path / "thesis" / "chapter-1.tex").exists()


@pytest.mark.parametrize("place", [".", "converted", ".."])
def test_the_original_is_never_overwritten(original: Path, place: str) -> None:
    with pytest.raises(Misconfigured, match="the original"):
        convert.convert(original, original / place, force=True)


def test_a_full_disk_is_told_before_anything_is_written(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    with pytest.raises(OSError, match="too little room") as full:
        convert.convert(original, tmp_path / "meddr")

    assert full.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_failure_half_way_leaves_nothing(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 200_000)

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert.convert(original, tmp_path / "meddr", show=interrupt)

    assert not list(tmp_path.iterdir())


def without_a_shard(folder: Path) -> None:
    (folder / SECOND).unlink()


def with_a_cut_shard(folder: Path) -> None:
    octets = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(octets[: len(octets) // 2])


def with_a_pointer(folder: Path) -> None:
    (folder / SECOND).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def with_a_strange_index(folder: Path) -> None:
    document = {"weight_map": {"a": "../../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))


def with_pickles_only(folder: Path) -> None:
    for file in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")


def without_weights(folder: Path) -> None:
    for file in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        file.unlink()


def with_an_unknown_tensor(folder: Path) -> None:
    rewrite(folder, lambda tensors: {**tensors, "qformer.weight": torch.ones(2)})


def without_a_tensor(folder: Path) -> None:
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "mlp1.1.bias"})


def with_half_a_lora(folder: Path) -> None:
    name = f"{PEFT_QUERY}.lora_B.default.weight"
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if k != name})


def with_a_lora_of_another_width(folder: Path) -> None:
    name = f"{PEFT_QUERY}.lora_A.default.weight"
    rewrite(folder, lambda tensors: {**tensors, name: torch.ones(RANK, 7)})


def with_another_rank_configured(folder: Path) -> None:
    configure(folder, use_llm_lora=16)


def with_another_model(folder: Path) -> None:
    configure(folder, model_type="qwen3_vl")


def with_quantised_weights(folder: Path) -> None:
    rewrite(folder, lambda tensors: {**tensors, "mlp1.1.bias": torch.ones(128, dtype=torch.int8)})


def with_another_image_size(folder: Path) -> None:
    configure(folder, force_image_size=112)


def with_a_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def with_no_language_model(folder: Path) -> None:
    configure(folder, llm_config=None)


def without_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def with_a_damaged_tokenizer(folder: Path) -> None:
    octets = (folder / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(octets[:-7])


def with_a_unigram_tokenizer(folder: Path) -> None:
    octets = a_sentencepiece_model(a_vocabulary(), model_type=1)
    (folder / "tokenizer.model").write_bytes(octets)


def with_damaged_added_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<late>": "last"}))


def with_token_ids_apart(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<late>": 9999}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_a_shard, f"lacks the shard {SECOND} of 2"),
        (with_a_cut_shard, f"{SECOND}' is damaged"),
        (with_a_pointer, "is a Git LFS pointer: fetch the file itself"),
        (with_a_strange_index, "names '../../elsewhere.safetensors'"),
        (with_pickles_only, "holds pickled weights"),
        (without_weights, "holds no safetensors"),
        (with_an_unknown_tensor, "hold the unknown 'qformer.weight'"),
        (without_a_tensor, "lack 'mlp1.1.bias'"),
        (with_half_a_lora, f"the LoRA of '{QUERY}' lacks its other half"),
        (with_a_lora_of_another_width, f"the LoRA of '{QUERY}' does not fit its weight"),
        (with_another_rank_configured, "config.json says use_llm_lora 16"),
        (with_another_model, "holds a model of type 'qwen3_vl'"),
        (with_quantised_weights, "'mlp1.1.bias' in .* is torch.int8"),
        (with_another_image_size, "position_embedding' in .* has the shape"),
        (with_a_damaged_config, "config.json' is damaged"),
        (with_no_language_model, "config.json' is not valid"),
        (without_a_tokenizer, "neither tokenizer.model nor a readable tokenizer.json"),
        (with_a_damaged_tokenizer, "tokenizer.model' is no sentencepiece model"),
        (with_a_unigram_tokenizer, "not of the type BPE"),
        (with_damaged_added_tokens, "damaged lists of added tokens"),
        (with_token_ids_apart, "'<late>' of .* should have the id 9999"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_with_the_original_is_named_and_nothing_written(
    damage: Callable[[Path], None], sentence: str, published: Path, tmp_path: Path
) -> None:
    damage(published)

    with pytest.raises(InvalidCheckpoint, match=sentence):
        convert.convert(published, tmp_path / "meddr")

    assert [path.name for path in tmp_path.iterdir()] == ["MedDr_0401"]


def test_the_command_fails_with_one_sentence(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_pickles_only(published)

    with pytest.raises(SystemExit) as end:
        main(["generalist", "convert", str(published), str(tmp_path / "meddr")])

    assert end.value.code == 1
    assert capsys.readouterr().err.startswith(f"gsco: '{published}' holds pickled weights")


def test_a_space_goes_before_a_text_only_where_the_tokenizer_says_so(tmp_path: Path) -> None:
    for prefix, first in ((False, "heart"), (True, " heart")):
        path = tmp_path / f"{prefix}.model"
        path.write_bytes(a_sentencepiece_model(a_vocabulary(), dummy_prefix=prefix))
        tokenizer = sentencepiece.tokenizer(sentencepiece.read(path))
        pieces = tokenizer.encode("heart", add_special_tokens=False).tokens
        assert "".join(pieces).replace("▁", " ") == first


def test_every_text_comes_back_from_its_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(a_sentencepiece_model(a_vocabulary()))
    tokenizer = sentencepiece.tokenizer(sentencepiece.read(tmp_path / "tokenizer.model"))

    for text in ("The heart is normal.", "  two  spaces ", "é 漢字 🩻", "a\nb", "<img>x</img>"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def configure(folder: Path, **fields: Any) -> None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | fields))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """All tensors in one shard without an index, changed."""
    tensors = load_file(folder / FIRST) | load_file(folder / SECOND)
    (folder / "model.safetensors.index.json").unlink()
    (folder / SECOND).unlink()
    save_file(change(tensors), folder / FIRST)


def lora_of(folder: Path, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    with safe_open(folder / FIRST, "pt") as shard:
        down = shard.get_tensor(f"{module}.lora_A.default.weight")
        return down, shard.get_tensor(f"{module}.lora_B.default.weight")
