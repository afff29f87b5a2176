"""The checkpoints that GSCo published, taken in: `{dataset}_224_endToEnd_{arch}_s{seed}_best.pth`.

They are pickles, which run code when they are opened by a plain loader. Here a process of its own
opens them, with bounded memory and time, no environment, and a reader that knows tensors and
nothing else; what comes back is a safetensors file.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from specialists import catalogue, loader
from specialists.architectures import EmbeddingClassifier, build
from specialists.catalogue import Architecture, Scale
from specialists.errors import InvalidWeights, SpecialistRefused
from specialists.exchange import allowed, incoming, pickles, tensors, unpickle
from specialists.exchange.allowed import NOT_STATED
from specialists.exchange.incoming import Added
from specialists.loader import Manifest
from specialists.task import Task
from specialists.training import pretrained

SUFFIXES = (".pth", ".pt")
MAX_BYTES = 2 * 2**30

_NAME = re.compile(r"(?P<dataset>.+?)_224_(?P<how>[A-Za-z]+)_(?P<arch>.+)_s(?P<seed>\d+)_best")


@dataclass(frozen=True, slots=True)
class Name:
    """What a published checkpoint's name says: the architecture by timm's name, and the seed."""

    architecture: str
    seed: int


def take_in(
    file: Path,
    task: Task,
    home: Path,
    *,
    backbone: str | None = None,
    licence: str = NOT_STATED,
    over: bool = False,
    command: tuple[str, ...] = unpickle.COMMAND,
    timeout_seconds: float = pickles.TIMEOUT_SECONDS,
) -> Added:
    """A published checkpoint as a specialist in `home/TASK/BACKBONE`, at full scale.

    The labels are the task's, in the task's order: it must be that of the training. Metrics and
    calibration are unknown. Raises SpecialistRefused, UnknownBackbone; nothing is lost.
    """
    named = name_of(file)
    key = _backbone(backbone, named, file)
    architecture = catalogue.find(key).at(Scale.FULL)
    _check_file(file)
    found = pickles.opened(file, command, timeout_seconds)
    model = build(architecture, len(task.labels)).eval()
    _fill(model, found, f"{file.name} for {key!r}")
    weights = save_tensors(loader.stored(model))
    tensors.read(weights, tensors.expected(architecture, len(task.labels)))
    seed = {} if named is None else {"seed": named.seed}
    recipe = {"imported_sha256": _sha256(file), **seed}
    manifest = _manifest(key, architecture, task, model, recipe)
    manifest = replace(
        manifest, licence=allowed.licence(licence), weights_sha256=loader.sha256(weights)
    )
    return incoming.install(home / task.name / key, weights, manifest, task, replace=over)


def name_of(file: Path) -> Name | None:
    """What the file's name says, where it follows the published pattern."""
    match = _NAME.fullmatch(file.stem)
    return Name(match["arch"], int(match["seed"][:18])) if match else None


def _backbone(given: str | None, named: Name | None, file: Path) -> str:
    """The one that is named, by the caller or the file; both must mean the same."""
    by_file = _by_architecture(named.architecture) if named else None
    if given is None and by_file is None:
        raise SpecialistRefused(f"{file.name} does not name its backbone: --backbone NAME")
    if given is not None and named is not None and by_file is not None:
        wanted = catalogue.find(given).at(Scale.FULL).constructor.partition(":")[2]
        if wanted != named.architecture:
            raise SpecialistRefused(f"{file.name} is a {named.architecture}, not a {given!r}")
    return given or by_file or ""


def _by_architecture(name: str) -> str | None:
    backbones = (one for one in catalogue.CATALOGUE.values() if not one.from_file)
    constructors = {one.at(Scale.FULL).constructor.partition(":")[2]: one.key for one in backbones}
    return constructors.get(name)


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise SpecialistRefused(f"there is nothing at {file}")
    if file.suffix not in SUFFIXES:
        raise SpecialistRefused(f"{file.name} is not a .pth file: for others, gsco specialists add")
    if file.stat().st_size > MAX_BYTES:
        raise SpecialistRefused(f"{file.name} is larger than {MAX_BYTES} bytes")


def _fill(model: EmbeddingClassifier, found: tensors.Tensors, where: str) -> None:
    """Puts every tensor into its place, the last layer's too."""
    try:
        named = pretrained.fitting(model, found, where)
    except InvalidWeights as error:
        raise SpecialistRefused(str(error)) from error
    wanted = model.backbone.state_dict()
    for name in sorted(model.classifier_names()):
        if name not in named:
            raise SpecialistRefused(f"{where}: no tensor {name!r}, so it predicts nothing")
        if named[name].shape != wanted[name].shape:
            outputs, labels = len(named[name]), len(wanted[name])
            raise SpecialistRefused(f"{where}: it knows {outputs} labels, the task has {labels}")
    tensors.check(named, wanted)
    model.backbone.load_state_dict(named)


def _manifest(
    key: str,
    architecture: Architecture,
    task: Task,
    model: EmbeddingClassifier,
    recipe: dict[str, Any],
) -> Manifest:
    return Manifest(
        task=task.name,
        kind=task.kind,
        labels=task.label_names,
        backbone=key,
        scale=Scale.FULL,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        embedding_dimension=architecture.dimension,
        preprocessing=loader.preprocessing_of(architecture),
        recipe=recipe,
        data_fingerprint="",
        validation={},
        temperature=1.0,
        licence=NOT_STATED,
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
