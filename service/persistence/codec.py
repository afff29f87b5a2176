"""Diagnosis ↔ a dictionary of JSON types, without loss.

A field that is added to a stored value later needs a default, so that older documents still read.
"""

from datetime import datetime
from typing import Any

from cattrs import Converter
from cattrs.errors import BaseValidationError

from service.domain import Diagnosis


def encode(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis in dictionaries, lists, strings, numbers, booleans and None."""
    document: dict[str, Any] = _CONVERTER.unstructure(diagnosis)
    return document


def decode(document: dict[str, Any]) -> Diagnosis:
    """The diagnosis that `encode` was given; raises ValueError for any other document."""
    try:
        return _CONVERTER.structure(document, Diagnosis)
    except BaseValidationError as error:
        raise ValueError("not the document of a diagnosis") from error


def _converter() -> Converter:
    converter = Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    # NumPy's scalars are declared as float here and there, and JSON does not know them.
    converter.register_unstructure_hook(float, float)
    return converter


_CONVERTER = _converter()
