"""A trained specialist on disk: a folder of weights, a manifest and a card.

<folder>/<task>/<backbone>/weights.safetensors   the tensors; only this format is ever loaded
                           manifest.json         what they are, for which task, how they came about
                           card.md               the same for people
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cattrs
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from specialists import card, catalogue, transforms, trunk
from specialists.architectures import EmbeddingClassifier, build, on_device
from specialists.catalogue import Architecture, Scale
from specialists.errors import InvalidSpecialist, UnknownBackbone
from specialists.task import Task

FORMAT = 1
WEIGHTS, MANIFEST, CARD = "weights.safetensors", "manifest.json", "card.md"


Trunk = Callable[[Tensor], Tensor]
"""(batch, 3, size, size) normalised images → embeddings (batch, dimension), float32."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What was done to the training images; the same is done to every image asked about."""

    version: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a specialist but its tensors. `labels` are in the order of its outputs."""

    task: str
    kind: str
    labels: tuple[str, ...]
    backbone: str
    scale: Scale
    parameters: int
    embedding_dimension: int
    preprocessing: Preprocessing
    recipe: Mapping[str, Any]
    data_fingerprint: str
    validation: Mapping[str, float | None]  # metrics on the validation split
    temperature: float  # logits are divided by it before they become probabilities
    licence: str
    weights_sha256: str = ""
    trunk_sha256: str = ""  # of a linear probe: who has the same has the same trunk (trunk.py)
    format: int = FORMAT


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Specialist:
    """A trained specialist, ready to answer: the model is in evaluation mode, float32.

    `trunk` is a faster way to the model's embeddings (`runtime.py`), where there is one, in the
    numbers that `computed_in` names. The model may then have a last layer only (`head.py`), and the
    rest of its tensors nowhere.
    """

    manifest: Manifest
    model: EmbeddingClassifier = field(repr=False)
    trunk: Trunk | None = field(default=None, repr=False)
    computed_in: str = "float32"

    @property
    def name(self) -> str:
        return self.manifest.backbone

    @property
    def is_whole(self) -> bool:
        return not any(tensor.is_meta for tensor in self.model.parameters())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save(folder: Path, model: EmbeddingClassifier, manifest: Manifest) -> Manifest:
    """Writes a specialist, whole or not at all, over an earlier one; the sha256 is filled in.

    The weights are stored as float16, which halves the file; `stored` is what will be loaded.
    """
    weights = save_tensors(stored(model))
    manifest = replace(manifest, weights_sha256=sha256(weights))
    install(folder, weights, manifest)
    return manifest


def install(
    folder: Path,
    weights: bytes,
    manifest: Manifest,
    check: Callable[[Path], object] = lambda _: None,
) -> None:
    """Writes a specialist's files, whole or not at all, over an earlier one.

    `check` sees them before they take its place: what it raises leaves everything as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as name:
            fresh = Path(name) / folder.name
            fresh.mkdir()
            _write(fresh / WEIGHTS, weights)
            _write(fresh / MANIFEST, as_json(manifest).encode())
            _write(fresh / CARD, card.write(manifest).encode())
            check(fresh)
            _put_in_place(fresh, folder)
    except BaseException:
        with suppress(OSError):  # others are there
            folder.parent.rmdir()
        raise


def as_json(manifest: Manifest) -> str:
    """The manifest's file."""
    return json.dumps(asdict(manifest), indent=2) + "\n"


def _write(path: Path, content: bytes) -> None:
    """On the disk when this returns, so that a power cut cannot leave a name without content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(fresh: Path, folder: Path) -> None:
    """A crash between the two renames leaves no specialist: missing, but never half-written."""
    old = fresh.with_name("old")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors as they are stored: float16 where the values fit, all else as it is."""
    return {name: _stored(tensor.cpu().contiguous()) for name, tensor in model.state_dict().items()}


def _stored(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if half.isfinite().all() else tensor


def load(folder: Path, task: Task | None = None, device: str = "cpu") -> Specialist:
    """The specialist in a folder, checked against its manifest and, where given, against the task.

    Raises InvalidSpecialist where a file is missing or damaged, the weights' sha256 or shapes are
    not those promised, or the task's labels are others than it was trained on.
    """
    manifest, tensors = read(folder, task)
    model = build(architecture_of(manifest), len(manifest.labels))
    _fill(model, tensors, manifest)
    check_trunk(tensors, model, manifest)
    return Specialist(manifest, on_device(model, device).eval())


def read(folder: Path, task: Task | None = None) -> tuple[Manifest, dict[str, Tensor]]:
    """What `load` makes a specialist of; raises InvalidSpecialist unless it is as promised."""
    manifest = read_manifest(folder)
    if task is not None:
        check_task(manifest, task)
    architecture_of(manifest)
    return manifest, read_weights(folder / WEIGHTS, manifest)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, without the weights; raises InvalidSpecialist."""
    try:
        document = json.loads((folder / MANIFEST).read_text("utf-8"))
        manifest = cattrs.structure(document, Manifest)
    except FileNotFoundError as error:
        raise InvalidSpecialist(f"no specialist {folder.name!r}: {MANIFEST} is missing") from error
    except (OSError, ValueError, RecursionError, cattrs.BaseValidationError) as error:
        raise InvalidSpecialist(f"{MANIFEST} of {folder.name!r} cannot be read") from error
    if manifest.format != FORMAT:
        raise InvalidSpecialist(f"{folder.name!r} has format {manifest.format}, not {FORMAT}")
    return manifest


def check_task(manifest: Manifest, task: Task) -> None:
    """Raises InvalidSpecialist where the task is another than the one it was trained for."""
    if manifest.task != task.name or manifest.kind != task.kind:
        raise InvalidSpecialist(
            f"specialist {manifest.backbone!r} was trained for the {manifest.kind} task "
            f"{manifest.task!r}, not for the {task.kind} task {task.name!r}"
        )
    if manifest.labels != task.label_names:
        raise InvalidSpecialist(
            f"specialist {manifest.backbone!r} knows the labels {', '.join(manifest.labels)}; "
            f"task {task.name!r} has {', '.join(task.label_names)}"
        )


def architecture_of(manifest: Manifest) -> Architecture:
    """Its architecture in the catalogue; raises InvalidSpecialist, also on other preprocessing."""
    try:
        architecture = catalogue.find(manifest.backbone).at(manifest.scale)
    except UnknownBackbone as error:
        raise InvalidSpecialist(str(error)) from error
    if manifest.preprocessing != preprocessing_of(architecture):
        raise InvalidSpecialist(
            f"specialist {manifest.backbone!r} was trained with other preprocessing than this "
            f"version's {transforms.VERSION!r} at {architecture.input_size} px"
        )
    return architecture


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    return Preprocessing(
        transforms.VERSION, architecture.input_size, architecture.mean, architecture.std
    )


def read_weights(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors that a manifest promises; raises InvalidSpecialist for any others."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidSpecialist(
            f"no weights for {manifest.backbone!r} on task {manifest.task!r}"
        ) from error
    if sha256(content) != manifest.weights_sha256:
        raise InvalidSpecialist(
            f"the weights of {manifest.backbone!r} are not those of its manifest: sha256 differs"
        )
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise InvalidSpecialist(f"{path.name} of {manifest.backbone!r} is damaged") from error


def check_trunk(tensors: dict[str, Tensor], model: EmbeddingClassifier, manifest: Manifest) -> None:
    promised = manifest.trunk_sha256
    if promised and trunk.sha256(tensors, model.classifier_names()) != promised:
        raise InvalidSpecialist(
            f"the trunk of {manifest.backbone!r} is not the one of its manifest: sha256 differs"
        )


def check_finite(tensors: dict[str, Tensor], manifest: Manifest) -> None:
    """Raises InvalidSpecialist where a tensor holds what is no number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InvalidSpecialist(
                f"tensor {name[:80]!r} of {manifest.backbone!r} holds numbers that are not finite"
            )


def _fill(model: EmbeddingClassifier, tensors: dict[str, Tensor], manifest: Manifest) -> None:
    check_finite(tensors, manifest)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise unfit(manifest) from error


def unfit(manifest: Manifest) -> InvalidSpecialist:
    """The error of weights whose names or shapes are not those of the architecture."""
    return InvalidSpecialist(
        f"the weights of {manifest.backbone!r} do not fit the {manifest.scale} architecture "
        f"with {len(manifest.labels)} labels"
    )
