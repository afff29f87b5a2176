"""Whether what a DICOM file says it is can be what a task is for."""

import re
from collections.abc import Mapping

_CODES: Mapping[str, frozenset[str]] = {
    r"x-?ray|radiograph": frozenset({"CR", "DX", "RG", "RF", "XA", "PX", "IO"}),
    r"mammogra": frozenset({"MG"}),
    r"\bct\b|computed tomogra": frozenset({"CT"}),
    r"\bmri?\b|magnetic resonance": frozenset({"MR"}),
    r"ultrasound|sonogra": frozenset({"US", "IVUS"}),
    r"\bpet\b|positron": frozenset({"PT"}),
    r"fundus": frozenset({"OP"}),
    r"photogra": frozenset({"OP", "XC", "DMS", "GM"}),
    r"\boct\b|optical coherence": frozenset({"OPT"}),
    r"dermoscop|dermatoscop": frozenset({"DMS", "XC"}),
    r"endoscop|colonoscop": frozenset({"ES", "XC"}),
    r"patholog|histolog|microscop": frozenset({"SM", "GM"}),
}
"""The words of a task's modality, and the codes of DICOM PS3.3 section C.7.3.1.1.1 that they mean.

A task that says none of these words, and a code that is none of these, are never in conflict:
OT and SC may hold anything.
"""

_KNOWN = frozenset[str]().union(*_CODES.values())


def differs(task_modality: str, code: str) -> bool:
    """Whether a file of this DICOM modality is certainly of another kind than the task's images."""
    meant = frozenset[str]().union(
        *(codes for words, codes in _CODES.items() if re.search(words, task_modality.lower()))
    )
    return bool(meant) and code in _KNOWN - meant
