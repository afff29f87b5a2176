"""Diagnosis, report or answer ↔ a dictionary of JSON types, without loss.

A field that is added to a stored value later needs a default, so that older documents still read.
"""

from datetime import datetime
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from service.domain import Result
from specialists.prediction import Segmentation

Kept = TypeVar("Kept", bound=Result)


def encode(result: Result) -> dict[str, Any]:
    """The result in dictionaries, lists, strings, numbers, booleans and None."""
    document: dict[str, Any] = _CONVERTER.unstructure(result)
    return document


def decode(kind: type[Kept], document: dict[str, Any]) -> Kept:
    """The result that `encode` was given; raises ValueError for any other document."""
    try:
        return _CONVERTER.structure(document, kind)
    except BaseValidationError as error:
        raise ValueError(f"not the document of a {kind.__name__.lower()}") from error


def _converter() -> Converter:
    converter = Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    # NumPy's scalars are declared as float here and there, and JSON does not know them.
    converter.register_unstructure_hook(float, float)
    # A mask shows the patient's image: it lives as long as the request, and is not stored.
    unseen = override(omit=True)
    converter.register_unstructure_hook(
        Segmentation, make_dict_unstructure_fn(Segmentation, converter, map=unseen)
    )
    converter.register_structure_hook(
        Segmentation, make_dict_structure_fn(Segmentation, converter, map=unseen)
    )
    return converter


_CONVERTER = _converter()
