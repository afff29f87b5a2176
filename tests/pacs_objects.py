"""DICOM headers as a PACS sends them, and what is looked up in the objects that come back."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from builders import (
    a_diagnosis,
    a_neighbour,
    a_prediction,
    a_provenance,
    a_reference_case,
    a_segmentation,
    an_identity,
    sha256_of,
    some_evidence,
)
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from service.domain import Diagnosis, LabelledAnswer, Missing
from service.pacs.source import Source, source_of
from specialists.prediction import Explanation

STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"

TEXTS = {
    "separators": "a|b^c&d~e\\f\\X0D\\g",
    "markup": "</div><script>alert('1')</script>&amp;<![CDATA[x]]>",
    "long": "x" * 10_000,
    "long words": "word " * 2_000,
    "Chinese": "肺炎の疑い 폐렴 肺结节",
    "Arabic": "التهاب رئوي \u202ereversed\u202c",
    "emoji": "🫁" * 50,
    "controls": "a\x00b\x1bc\x07d\r\nMSH|^~\\&|FAKE\rPID|1||x",
    "surrogates": "a\ud800b",
    "JSON": '{"resourceType": "Patient"}\u2028',
    "spaces": "  \u3000 ",
    "nothing": "",
}


def a_header(**more: Any) -> Dataset:
    """A chest radiograph of a patient with a name; keywords add to it, None takes away."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    fields = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": INSTANCE,
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": STUDY,
        "PatientName": "Doe^Jane^M^Dr^PhD",
        "PatientID": "4711",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20260101",
        "StudyTime": "101112",
        "StudyID": "7",
        "AccessionNumber": "A-12",
        "ReferringPhysicianName": "Roe^Richard",
        "StudyDescription": "Chest PA",
        "Modality": "DX",
        "Rows": 32,
        "Columns": 24,
        "PatientOrientation": ["L", "F"],
        **more,
    }
    for keyword, value in fields.items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def a_ct_header(**more: Any) -> Dataset:
    """A slice that says where it lies in the patient."""
    return a_header(
        SOPClassUID=CTImageStorage,
        Modality="CT",
        FrameOfReferenceUID="1.2.3.9",
        ImagePositionPatient=[-100, -120, 40],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.7, 0.7],
        SliceThickness=5,
        PatientOrientation=None,
        **more,
    )


def a_source(frame_number: int = 1, **more: Any) -> Source:
    return source_of(a_header(**more), frame_number)


def an_explanation(label: str = "pneumonia", **more: Any) -> Explanation:
    """Heat in the upper left corner."""
    grid = np.zeros((2, 3), np.float32)
    grid[0, 0] = 1
    fields: dict[str, Any] = {
        "specialist": "resnet18",
        "weights_sha256": sha256_of("weights of resnet18"),
        "label": label,
        "probability": 0.8,
        "layer": "layer4",
        "grid": grid,
    }
    return Explanation(**{**fields, **more})


def file_of(header: Dataset) -> bytes:
    stream = BytesIO()
    dcmwrite(stream, header, enforce_file_format=True)
    return stream.getvalue()


def read_back(data: bytes) -> Any:
    return dcmread(BytesIO(data))


def items(node: Any) -> Iterator[Any]:
    """Every content item below a document or an item, in the order of reading."""
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def said(node: Any) -> list[tuple[str, Any]]:
    """Name and value of every content item that has one."""
    pairs = ((one.get("ConceptNameCodeSequence"), _value(one)) for one in items(node))
    return [(name[0].CodeMeaning, value) for name, value in pairs if name and value is not None]


def _value(item: Any) -> Any:
    if item.ValueType == "CODE":
        return item.ConceptCodeSequence[0].CodeMeaning
    if item.ValueType == "NUM":
        return float(item.MeasuredValueSequence[0].NumericValue)
    return item.get("TextValue") if item.ValueType == "TEXT" else None


def group_named(document: Any, identifier: str) -> Any:
    """The measurement group with this tracking identifier."""
    for item in items(document):
        if ("Tracking Identifier", identifier) in said(item) and item.ValueType == "CONTAINER":
            found = item
    return found


def told_everywhere(text: str) -> Diagnosis:
    """A diagnosis that says this text wherever a text of others could be."""
    names = (text, "pneumonia")
    prediction = replace(a_prediction(), specialist=text)
    outline = replace(a_segmentation(), specialist=text, segment=text, places=(text,))
    case = replace(a_reference_case(), id=text, labels=(text, "unknown"), report=text)
    return a_diagnosis(
        task=text[:64],
        label_names=names,
        final=LabelledAnswer(names, (0.4, 0.6)),
        initial=LabelledAnswer((text,), (0.6, 0.4)),
        label_set=names,
        coverage=0.9,
        review_reasons=(text, "low probability"),
        notes=(text,),
        evidence=some_evidence(
            moed=(prediction,),
            rad=(a_neighbour(case=case),),
            segmentations=(outline,),
            missing=(Missing(text, text),),
        ),
        provenance=a_provenance(generalist=an_identity(model=text, sampling=text)),
    )
