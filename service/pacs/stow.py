"""The answer of STOW-RS: which instances were taken, and why the others were not.

PS3.18 section 10.5.3 and annex I.2, as DICOM JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from service.domain import Instance
from service.intake.deidentify import DicomReferences
from service.pacs.status import SUCCESS, Status


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance of a request: which it is, where that could be told, and what became of it."""

    references: DicomReferences | Instance | None
    status: Status


def response_document(stored: Sequence[Stored]) -> dict[str, Any]:
    """The instances by what became of them, in the DICOM JSON model.

    Nothing can be retrieved here, so there is no RetrieveURL to give. An instance that is unknown
    is among the other failures.
    """
    document = Dataset()
    document.RetrieveURL = None
    document.ReferencedSOPSequence = [_taken(one) for one in stored if not one.status.is_failure]
    failed = [one for one in stored if one.status.is_failure]
    if any(one.references for one in failed):
        document.FailedSOPSequence = [_failed(one) for one in failed if one.references]
    if not all(one.references for one in failed):
        document.OtherFailuresSequence = [_failed(one) for one in failed if not one.references]
    found: dict[str, Any] = document.to_json_dict()
    return found


def _taken(one: Stored) -> Dataset:
    item = _referenced(one)
    item.RetrieveURL = None
    if one.status.code != SUCCESS:
        item.WarningReason = one.status.code
    return item


def _failed(one: Stored) -> Dataset:
    item = _referenced(one)
    item.FailureReason = one.status.code
    return item


def _referenced(one: Stored) -> Dataset:
    item = Dataset()
    if one.references is not None:
        item.ReferencedSOPClassUID = one.references.sop_class_uid
        item.ReferencedSOPInstanceUID = one.references.sop_instance_uid
    return item
