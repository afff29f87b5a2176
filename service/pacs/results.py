"""All standard objects of one result, as files."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain import Diagnosis
from service.pacs import capture, fhir, hl7, key_object, sr
from service.pacs.content import Written
from service.pacs.source import Source
from specialists.prediction import Explanation, Pixels
from specialists.task import Task

DICOM = "application/dicom"
MOST_CAPTURES = 4


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One object; its name tells its sort and nothing of the patient."""

    name: str
    media_type: str
    data: bytes


def witnesses(diagnosis: Diagnosis, task: Task) -> tuple[tuple[str, str], ...]:
    """Specialist and label of each heat map worth showing, at most four.

    For every label that the final answer names, but not for "nothing found": the specialist that
    finds it most probable.
    """
    places = {name: place for place, name in enumerate(diagnosis.label_names)}
    named = [name for name in diagnosis.final.labels if name != task.nothing_found]
    panel = diagnosis.evidence.moed
    if not panel:
        return ()
    return tuple(
        (max(panel, key=lambda one: one.probabilities[places[name]]).specialist, name)
        for name in named[:MOST_CAPTURES]
    )


def files(
    result: Written,
    source: Source,
    task: Task | None,
    pixels: Pixels | None = None,
    explanations: Sequence[Explanation] = (),
) -> tuple[File, ...]:
    """SR, captures, key objects, FHIR and HL7 v2; the last needs a patient, and is left out.

    `task` codes the labels, see `structured_report`; `explanations` are of `pixels`.
    """
    pictures = [
        capture.capture(result, source, pixels, one, number)
        for number, one in enumerate(explanations, 1)
        if pixels is not None
    ]
    selection = key_object.key_object(result, source, task, len(pictures))
    written = [
        File("sr.dcm", DICOM, sr.structured_report(result, source, task)),
        *(File(f"capture-{n}.dcm", DICOM, one) for n, one in enumerate(pictures, 1)),
        File("fhir.json", fhir.MEDIA_TYPE, fhir.bundle(result, source, task)),
    ]
    if selection is not None:
        written.append(File("key-object.dcm", DICOM, selection))
    if hl7.is_possible(source):
        written.append(File("oru.hl7", hl7.MEDIA_TYPE, hl7.oru(result, source, task)))
    return tuple(written)
