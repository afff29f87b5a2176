"""A DICOM object without the patient: PS3.15 Annex E, Basic Application Level Confidentiality.

For objects that leave for elsewhere than the PACS they came from. `basic_profile.csv` is table
E.1-1 of the 2026c edition: what is done with each attribute. What the table does not list is kept
only if it cannot be free text, a date or a name; private and unknown attributes are removed. The
pixels are not touched: text that is burned into them stays.
"""

import csv
import hmac
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ImplicitVRLittleEndian

from service.errors import InvalidInput

METHOD = "PS3.15 Basic Application Level Confidentiality Profile"
_TABLE = Path(__file__).with_name("basic_profile.csv")
_UNSAFE = ("AE", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UN", "UR", "UT")
_OF_CODES = frozenset(
    {"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"}
)
_DUMMIES = {
    **dict.fromkeys(("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "ANONYMOUS"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"), 0),
    **dict.fromkeys(("OB", "OW", "OF", "OD", "OL", "OV", "UN"), b"\0\0"),
    "AS": "000Y",
    "CS": "ANONYMOUS",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:anonymous",
}
# Where the table leaves a choice by the type of the attribute, the one that is always valid.
_CHOICES = {"X/Z": "Z", "X/D": "D", "X/Z/D": "D", "Z/D": "D", "X/Z/U*": "U"}
_REMOVED_GROUPS = (*range(0x5000, 0x5100), *range(0x6000, 0x6100))  # curves and overlays


def deidentified(dataset: Any, key: bytes) -> FileDataset:
    """A copy that names nobody, to be written as a file.

    UIDs are replaced by others that only `key` can make, the same for the same UID, so that the
    objects of a study stay together. Raises InvalidInput without a key: a UID hashed without one
    is found again by whoever has the original.
    """
    if not key:
        raise InvalidInput("de-identification needs a key: set GSCO_PSEUDONYM_KEY")
    copy = FileDataset(BytesIO(), _without_identity(dataset, key, _table()))
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = METHOD
    copy.DeidentificationMethodCodeSequence = [_code("113100", "DCM", METHOD[7:])]
    copy.LongitudinalTemporalInformationModified = "REMOVED"
    copy.file_meta = _meta(dataset, copy)
    return copy


def replaced_uid(uid: str, key: bytes) -> str:
    """Another UID for the same thing, under the root for UUIDs (PS3.5 section B.2)."""
    digest = hmac.new(key, uid.encode(), sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _table() -> dict[str, str]:
    with _TABLE.open(newline="") as lines:
        return {row["keyword"]: row["action"] for row in csv.DictReader(lines)}


def _without_identity(dataset: Any, key: bytes, table: dict[str, str]) -> Dataset:
    copy = Dataset()
    for element in _elements(dataset):
        action = table.get(keyword_for_tag(element.tag)) or _unlisted(element)
        _act(copy, element, _CHOICES.get(action, action), key, table)
    return copy


def _elements(dataset: Any) -> Iterator[Any]:
    """Those of the standard; one that cannot be read is as good as not there."""
    for tag in sorted(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag.group in _REMOVED_GROUPS:
            continue
        if not dictionary_has_tag(tag):
            continue
        try:
            yield dataset[tag]
        except Exception:  # noqa: BLE001, S112 - a hostile value raises anything, and quotes itself
            continue


def _unlisted(element: Any) -> str:
    if element.VR == "UI" and not _is_standard(element.value):
        return "U"
    is_code = keyword_for_tag(element.tag) in _OF_CODES
    return "X" if element.VR in _UNSAFE and not is_code else "K"


def _is_standard(value: Any) -> bool:
    """Whether UIDs name things of the standard, such as an SOP class, and not a patient's."""
    several = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return all(UID(str(one)).name != str(one) for one in several if one)


def _act(copy: Dataset, element: Any, action: str, key: bytes, table: dict[str, str]) -> None:
    tag, vr = element.tag, element.VR
    if action == "X":
        return
    if vr == "SQ":
        items = [] if action in "ZD" else element.value
        copy.add_new(tag, vr, Sequence([_without_identity(one, key, table) for one in items]))
    elif action == "Z":
        copy.add_new(tag, vr, None)
    elif action == "D":
        copy.add_new(tag, vr, replaced_uid("", key) if vr == "UI" else _DUMMIES[vr])
    elif action == "U":
        copy.add_new(tag, vr, _replaced(element.value, key))
    else:
        copy.add(element)


def _replaced(value: Any, key: bytes) -> Any:
    if isinstance(value, str):
        return replaced_uid(value, key) if value else ""
    return [replaced_uid(str(one), key) for one in value or ()]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _meta(dataset: Any, copy: Any) -> FileMetaDataset:
    """Nothing of the old one but how the pixels are encoded: it may name sender and receiver."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = copy.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = copy.get("SOPInstanceUID", "")
    old = getattr(dataset, "file_meta", {})
    meta.TransferSyntaxUID = old.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    return meta
