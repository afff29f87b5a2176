"""What the manifest of a specialist may say when it crosses the border, coming in or going out.

An allow-list: every field has its kind of value, and what is not listed does not pass. The task's
name and its labels are what the specialist is; they pass as they are.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import cattrs

from specialists.catalogue import Augmentation, Precision, Procedure, Recipe
from specialists.errors import SpecialistRefused
from specialists.loader import Manifest
from specialists.segmentation.measure import Overlap
from specialists.training.metrics import Metrics

MAX_BYTES = 64 * 1024
MAX_TEXT = 200
NOT_STATED = "not stated"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}(\+(cpu|cu\d{2,4}))?")
_ORIGIN = re.compile(r"timm/[\w.-]{1,96}@[0-9a-f]{40}|[a-z0-9][a-z0-9-]{0,63}/[a-z0-9-]{1,64}")
"""What a specialist began from: the hub's repository and revision, or task and backbone."""
_TELLING = {
    "a path": re.compile(r"[\\~]|(^|[\s\"'(=:])\.{0,2}/|/[^/]*/"),
    "an address": re.compile(r"@|://|\b\w+\.(?i:local|lan|internal|intranet|corp|home)\b"),
    "a UID or an address": re.compile(r"\d+(\.\d+){3,}"),
    "a person's name as DICOM writes it": re.compile(r"\^"),
    "a long number or a date": re.compile(r"\d{5,}|\d{4}-\d{2}-\d{2}"),
}
_LICENCES = (
    "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0",
    "CC-BY-3.0", "ODbL-1.0", "PDDL-1.0", "Apache-2.0", "MIT", "BSD-3-Clause", "BSD-2-Clause",
)  # fmt: skip

Check = Callable[[Any], bool]


def read(content: bytes) -> Manifest:
    """The manifest in a file from elsewhere; raises SpecialistRefused naming the first fault."""
    document = _object(content)
    _check_fields(document, "", _MANIFEST)
    if problem := telling(document["licence"]):
        _refuse(f"its licence holds {problem}, which could name somebody")
    try:
        return cattrs.structure(document, Manifest)
    except (ValueError, cattrs.BaseValidationError):
        _refuse("it cannot be read")


def telling(text: str) -> str | None:
    """What in a free text could name a patient, a user, a host or a place; None where nothing."""
    return next((what for what, looks in _TELLING.items() if looks.search(text)), None)


def licence(text: str) -> str:
    """A licence in the words of whoever hands weights on; raises SpecialistRefused."""
    problem = telling(text) if is_text(text) else "more than one short line"
    if problem:
        raise SpecialistRefused(f"--licence holds {problem}, which could name somebody")
    return text


@dataclass(frozen=True, slots=True)
class Cleared:
    """Fields that may leave the house, and the names of those that were left behind."""

    recipe: dict[str, Any]
    validation: dict[str, float | None]
    licence: str
    dropped: tuple[str, ...]


def clear(manifest: Manifest) -> Cleared:
    """A manifest's free fields without what could name anybody; a licence by its usual name."""
    dropped: list[str] = []
    recipe = _cleared(dict(manifest.recipe), "recipe", _RECIPE, dropped)
    validation = _cleared(dict(manifest.validation), "validation", _VALIDATION, dropped)
    known = _known_licence(manifest.licence)
    if known != manifest.licence:
        dropped.append("licence" if known == NOT_STATED else "licence (shortened)")
    return Cleared(recipe, validation, known, tuple(dropped))


def _known_licence(text: str) -> str:
    """The licence that a text begins with, where it is one that everybody knows."""
    known = (name for name in _LICENCES if re.match(rf"{re.escape(name)}(?![\w.+-])", text))
    return next(known, NOT_STATED)


def _cleared(
    document: dict[str, Any], where: str, checks: Mapping[str, Check], dropped: list[str]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in document.items():
        short = _short_version(name, value)
        if name in checks and checks[name](short):
            kept[name] = short
        else:
            dropped.append(f"{where}.{name}" if name in _KNOWN else f"a field of {where}")
    return kept


def _short_version(name: str, value: Any) -> Any:
    """A version without its local part, which may be anything its builder liked."""
    if name not in _VERSIONS or not isinstance(value, str) or _VERSION.fullmatch(value):
        return value
    return value.partition("+")[0]


def _object(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        _refuse(f"it is larger than {MAX_BYTES} bytes")
    document = strict_json(content)
    if not isinstance(document, dict):
        _refuse("it is not a JSON object")
    return document


def strict_json(content: bytes) -> Any:
    """JSON without repeated names and without numbers that are none; None where it is not that."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def number(_: str) -> NoReturn:
        raise ValueError

    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=number)
    except (ValueError, RecursionError):
        return None


def _check_fields(document: Mapping[str, Any], where: str, checks: Mapping[str, Check]) -> None:
    for name, value in document.items():
        shown = f"{where}{name[:60]!r}"
        if name not in checks:
            _refuse(f"the field {shown} is not known here")
        if not checks[name](value):
            _refuse(f"the field {shown} does not hold what it should")
        if name == "recipe":
            _check_fields(value, "recipe ", _RECIPE)
        if name == "validation":
            _check_fields(value, "validation ", _VALIDATION)
    if not where and (missing := [name for name in _REQUIRED if name not in document]):
        _refuse(f"the field {missing[0]!r} is missing")


def _refuse(problem: str) -> NoReturn:
    raise SpecialistRefused(f"the manifest is refused: {problem}")


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value) and abs(value) < 1e12


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _is_figure(value: Any) -> bool:
    return value is None or _is_number(value)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and bool(_VERSION.fullmatch(value))


def _is_origin(value: Any) -> bool:
    return isinstance(value, str) and bool(_ORIGIN.fullmatch(value))


def _is_augmentation(value: Any) -> bool:
    names = {field.name for field in fields(Augmentation)}
    return isinstance(value, dict) and all(
        name in names and _is_number(one) for name, one in value.items()
    )


def _is_preprocessing(value: Any) -> bool:
    """Whether these are the values of this version is for the loader to say."""
    if not isinstance(value, dict) or set(value) != {"version", "input_size", "mean", "std"}:
        return False
    colours = [value["mean"], value["std"]]
    numbers = all(isinstance(c, list) and len(c) == 3 and all(map(_is_number, c)) for c in colours)
    return numbers and is_text(value["version"]) and _is_count(value["input_size"])


def _are_labels(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 512 and all(map(is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_temperature(value: Any) -> bool:
    return _is_number(value) and not isinstance(value, bool) and 0 < value <= 1000


_VERSIONS = ("torch", "timm")
_RECIPE: dict[str, Check] = {
    **{field.name: _is_number for field in fields(Recipe)},
    **dict.fromkeys(
        ("seed", "seeds", "epochs_done", "best_epoch", "seconds", "penalty"), _is_number
    ),
    **dict.fromkeys(_VERSIONS, _is_version),
    **dict.fromkeys(("run", "begun_from_sha256", "imported_sha256"), is_sha256),
    "augmentation": _is_augmentation,
    "begun_from": _is_origin,
    "precision": lambda value: value in tuple(Precision),
    "procedure": lambda value: value in tuple(Procedure),
}
_FIGURES = (*(field.name for field in fields(Metrics)), "loss")
_VALIDATION: dict[str, Check] = dict.fromkeys(
    (
        *_FIGURES,
        *(f"{name}_{of}" for name in _FIGURES for of in ("mean", "sd")),
        *(field.name for field in fields(Overlap)),
    ),
    _is_figure,
)
_KNOWN = {*_RECIPE, *_VALIDATION}
_MANIFEST: dict[str, Check] = {
    **dict.fromkeys(("task", "kind", "backbone", "scale", "licence"), is_text),
    **dict.fromkeys(("parameters", "embedding_dimension", "format"), _is_count),
    **dict.fromkeys(("recipe", "validation"), _is_object),
    "labels": _are_labels,
    "preprocessing": _is_preprocessing,
    **dict.fromkeys(
        ("data_fingerprint", "trunk_sha256"), lambda value: value == "" or is_sha256(value)
    ),
    "temperature": _is_temperature,
    "weights_sha256": is_sha256,
}
_REQUIRED = tuple(name for name in _MANIFEST if name not in ("format", "trunk_sha256"))
