"""What the panel's machines and their callers send each other: safetensors, and never pickle.

A message is one safetensors file: arrays under their names, and beside them a JSON document as
the bytes of `document`. A question holds a task and, mostly, an image; an answer holds what
`SpecialistPool` would have returned.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from cattrs import BaseValidationError
from cattrs.preconf.json import make_converter
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from specialists.arithmetic import NUMBERS
from specialists.catalogue import panel_of
from specialists.description import LoadedPanel
from specialists.errors import InvalidMessage, SpecialistsError
from specialists.prediction import (
    Consultation,
    Embedding,
    Explanation,
    MissingSpecialist,
    Pixels,
    Segmentation,
    SpecialistPrediction,
)
from specialists.segmentation import models
from specialists.segmentation.serving import Segmented
from specialists.task import Task

MEDIA_TYPE = "application/octet-stream"
DOCUMENT = "document"

Arrays = dict[str, NDArray[Any]]
Document = dict[str, Any]
T = TypeVar("T")

_converter = make_converter(forbid_extra_keys=True)


@dataclass(frozen=True, slots=True)
class _Told:
    """What an explanation says beside its grid."""

    specialist: str
    weights_sha256: str
    label: str
    probability: float
    layer: str


def pack(document: Document, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save({**kept, DOCUMENT: text})


def unpack(body: bytes) -> tuple[Document, Arrays]:
    """The document and the arrays; raises InvalidMessage."""
    try:
        arrays = load(body)
        document = json.loads(arrays.pop(DOCUMENT).tobytes())
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"not a message of the panel: {error}"[:200]) from error
    if not isinstance(document, dict):
        raise InvalidMessage("not a message of the panel: its document is no object")
    return document, arrays


def question(task: Task, pixels: Pixels | None = None, **asked: str | None) -> bytes:
    document = {"task": _converter.unstructure(task), **asked}
    return pack(document, {} if pixels is None else {"pixels": pixels})


def read_question(body: bytes) -> tuple[Task, Pixels | None, Document]:
    """Task, image and whatever else is asked; raises InvalidMessage."""
    document, arrays = unpack(body)
    task = _structure(document.pop("task", None), Task)
    if not all(value is None or isinstance(value, str) for value in document.values()):
        raise InvalidMessage("what is asked beside the task is said in texts")
    return task, _pixels(arrays.get("pixels")), document


def consultation(said: Consultation) -> bytes:
    maps = {f"map {i}": one.map for i, one in enumerate(said.segmentations) if one.map is not None}
    vectors = {f"vector {i}": one.vector for i, one in enumerate(said.embeddings)}
    document = {
        "task": said.task,
        "predictions": _converter.unstructure(said.predictions),
        "encoders": [[one.specialist, one.encoder_sha256] for one in said.embeddings],
        "missing": _converter.unstructure(said.missing),
        "segmentations": [
            _converter.unstructure(replace(one, map=None), Segmentation)
            for one in said.segmentations
        ],
    }
    return pack(document, {**maps, **vectors})


def read_consultation(body: bytes, task: Task) -> Consultation:
    """What was said of an image for this task; raises InvalidMessage, also for another's."""
    document, arrays = unpack(body)
    try:
        said = _consultation(document, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidMessage(f"not a consultation: {error!r}"[:200]) from error
    fits = (len(one.probabilities) == len(task.labels) for one in said.predictions)
    if said.task != task.name or not all(fits) or not _is_of(said, task):
        raise InvalidMessage(f"a consultation of another task than {task.name!r}")
    return said


def explanation(said: Explanation) -> bytes:
    told = {one.name: getattr(said, one.name) for one in fields(_Told)}
    return pack(told, {"grid": said.grid})


def read_explanation(body: bytes) -> Explanation:
    document, arrays = unpack(body)
    try:
        told = _structure(document, _Told)
        _shares(told.probability)
        return Explanation(**asdict(told), grid=_floats(arrays["grid"], 2))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidMessage(f"not an explanation: {error!r}"[:200]) from error


def panel(described: LoadedPanel) -> bytes:
    return pack(_converter.unstructure(described), {})


def read_panel(body: bytes, task: Task) -> LoadedPanel:
    """Who can answer for this task; raises InvalidMessage, also for another's."""
    said = _structure(unpack(body)[0], LoadedPanel)
    named = {one.name for one in said.specialists} | {one.specialist for one in said.missing}
    if said.task != task.name or not named <= _expected(task):
        raise InvalidMessage(f"a panel of another task than {task.name!r}")
    return said


def merged(task: Task, said: list[Consultation], segmented: Segmented) -> Consultation:
    """One consultation of what several machines said, in the order given."""
    return Consultation(
        task.name,
        tuple(one for part in said for one in part.predictions),
        tuple(one for part in said for one in part.embeddings),
        (*(one for part in said for one in part.missing), *segmented.missing),
        segmented.segmentations,
    )


def _consultation(document: Document, arrays: Arrays) -> Consultation:
    predictions = tuple(
        one if one.computed_in in NUMBERS else replace(one, computed_in="")
        for one in _structure(document["predictions"], tuple[SpecialistPrediction, ...])
    )
    segmentations = _structure(document["segmentations"], tuple[Segmentation, ...])
    embeddings = tuple(
        Embedding(str(name), str(sha256), _floats(arrays[f"vector {i}"], 1))
        for i, (name, sha256) in enumerate(document["encoders"])
    )
    if [one.specialist for one in predictions] != [one.specialist for one in embeddings]:
        raise ValueError("predictions and embeddings are not of the same specialists")
    _shares(*(share for one in predictions for share in one.probabilities))
    _shares(*(share for one in segmentations for share in (one.share, one.certainty)))
    return Consultation(
        str(document["task"]),
        predictions,
        embeddings,
        _structure(document["missing"], tuple[MissingSpecialist, ...]),
        tuple(
            replace(one, map=_floats(arrays[f"map {i}"], 2)) if f"map {i}" in arrays else one
            for i, one in enumerate(segmentations)
        ),
    )


def _is_of(said: Consultation, task: Task) -> bool:
    """Whether all are of the task's panel, each heard once: their names go on from here."""
    heard = [one.specialist for one in said.predictions]
    named = {*heard, *(one.specialist for one in said.missing)}
    return len(set(heard)) == len(heard) and named <= _expected(task)


def _expected(task: Task) -> set[str]:
    return {*panel_of(task), *models.models_of(task)}


def _shares(*values: float) -> None:
    """Raises ValueError for what lies not between 0 and 1, or is no number."""
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("a probability or share that is none")


def _pixels(array: NDArray[Any] | None) -> Pixels | None:
    if array is None:
        return None
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InvalidMessage(f"no image is an array of {array.dtype} and shape {array.shape}")
    return array


def _floats(array: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    if array.dtype != np.float32 or array.ndim != dimensions or not np.isfinite(array).all():
        raise ValueError(f"an array of {array.dtype} and shape {array.shape}")
    return array


def _structure(document: Any, shape: type[T]) -> T:
    try:
        return _converter.structure(document, shape)
    except (BaseValidationError, SpecialistsError, KeyError, TypeError, ValueError) as error:
        name = getattr(shape, "__name__", "list")
        raise InvalidMessage(f"not a {name}: {error}"[:200]) from error
