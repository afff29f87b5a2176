"""Phantoms: procedural, seeded images with known truth, believable enough to be classified.

    phantom = draw("chest", ["effusion"], seed=7)
    write_dicom(phantom, "effusion.dcm")
    write_npz("chest", "chest.npz", train=800, val=100, test=100, test_scanner=HOSPITAL_B)

Four kinds: "chest" (one label, with a report), "findings" (the same radiographs, several labels,
with a report), "dermoscopy" and "fundus" (one label, in colour). No patient data is involved.
"""

from service.demo.drawing import (
    CHEST_LABELS,
    DERMOSCOPY_LABELS,
    FINDINGS_LABELS,
    FUNDUS_LABELS,
    Phantom,
    draw,
    series,
)
from service.demo.export import write_dicom, write_masks, write_npz, write_png, write_reports
from service.demo.scanner import HOSPITAL_A, HOSPITAL_B, Scanner

__all__ = [
    "CHEST_LABELS",
    "DERMOSCOPY_LABELS",
    "FINDINGS_LABELS",
    "FUNDUS_LABELS",
    "HOSPITAL_A",
    "HOSPITAL_B",
    "Phantom",
    "Scanner",
    "draw",
    "series",
    "write_dicom",
    "write_masks",
    "write_npz",
    "write_png",
    "write_reports",
]
