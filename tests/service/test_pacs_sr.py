"""The structured report, read back as a viewer does."""

from dataclasses import replace

import highdicom as hd
import pytest
from builders import (
    PANEL,
    a_diagnosis,
    a_multi_label_task,
    a_neighbour,
    a_provenance,
    a_reference_case,
    a_report,
    a_segmentation,
    a_task,
    sha256_of,
    some_evidence,
)
from pacs_objects import INSTANCE, SERIES, STUDY, a_source, group_named, items, read_back, said
from pydicom.uid import ComprehensiveSRStorage

from service.domain import Diagnosis, Evidence, LabelledAnswer
from service.intake.dataset import is_ours
from service.pacs.source import Source, anonymous
from service.pacs.sr import structured_report
from specialists.task import Task


def read(diagnosis: Diagnosis, source: Source | None = None, task: Task | None = None) -> object:
    return read_back(structured_report(diagnosis, source or a_source(), task or a_task()))


def test_the_report_is_complete_unverified_and_preliminary() -> None:
    document = read(a_diagnosis())

    assert document.SOPClassUID == ComprehensiveSRStorage
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    flags = (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert document.SeriesDescription == "Not for clinical use: GSCo cxr-pneumonia"
    assert "not for clinical use" in dict(said(document))["Intended use"]


def test_the_report_joins_the_study_of_its_patient() -> None:
    document = read(a_diagnosis())

    assert (document.PatientName, document.PatientID) == ("Doe^Jane^M^Dr^PhD", "4711")
    assert (document.IssuerOfPatientID, document.AccessionNumber) == ("HOSPITAL", "A-12")
    assert (document.StudyInstanceUID, document.StudyDate) == (STUDY, "20260101")
    assert "PatientIdentityRemoved" not in document
    assert is_ours(document)


def test_a_finding_has_its_concept_its_probability_and_its_algorithm() -> None:
    group = group_named(read(a_diagnosis()), "finding 1")

    told = said(group)
    assert ("Finding", "Pneumonia") in told
    assert ("Probability", 0.9) in told
    assert ("Algorithm Name", "generalist MedDr-nano") in told
    assert ("Algorithm Parameters", f"weights sha256: {sha256_of('generalist')}") in told
    prompt = sha256_of("arbitration prompt")
    assert ("Algorithm Parameters", f"arbitration prompt sha256: {prompt}") in told


def test_every_specialist_is_told_with_its_weights() -> None:
    document = read(a_diagnosis())

    for name in PANEL:
        told = said(group_named(document, f"specialist {name}"))
        assert ("Pneumonia", 0.8) in told
        weights = sha256_of(f"weights of {name}")
        assert ("Algorithm Parameters", f"weights sha256: {weights}") in told


def test_outlines_are_told_by_place_size_and_certainty() -> None:
    outlined = a_segmentation(places=("upper left", "upper left", "centre"))
    document = read(a_diagnosis(evidence=some_evidence(segmentations=(outlined,))))

    told = said(group_named(document, "outline unet"))
    assert ("Share of the image that is outlined", 0.034) in told
    assert ("Certainty of the outline, as expected Dice", 0.81) in told
    places = [value for name, value in told if name.startswith("Third of the image")]
    assert places == ["upper left", "centre"]


def test_neighbours_are_told_by_similarity_and_never_by_their_report() -> None:
    neighbour = a_neighbour(case=a_reference_case(report="MARKER of another patient"))
    data = structured_report(
        a_diagnosis(evidence=some_evidence(rad=(neighbour,))), a_source(), a_task()
    )
    told = said(group_named(read_back(data), "reference case 1: reference-1"))

    assert ("Cosine similarity", 0.93) in told
    assert ("Label of the reference case", "Pneumonia") in told
    assert b"MARKER" not in data


def test_the_way_to_the_answer_is_told() -> None:
    diagnosis = a_diagnosis(
        label_set=("normal", "pneumonia"), coverage=0.9, review_reasons=("low probability",)
    )
    document = read(diagnosis)

    told = said(document)
    assert ("Needs review by a person", "Yes") in told
    assert ("Reason for review", "low probability") in told
    assert [value for name, value in told if name == "Label of the conformal label set"] == [
        "normal",
        "Pneumonia",
    ]
    assert ("Coverage of the conformal label set", 0.9) in told
    initial = said(group_named(document, "initial diagnosis"))
    assert ("Label named", "normal") in initial
    assert ("normal", 0.6) in initial


def test_several_labels_are_several_findings_and_none_are_none() -> None:
    task = a_multi_label_task()
    two = a_diagnosis(
        label_names=task.label_names,
        final=LabelledAnswer(("effusion", "nodule"), (0.1, 0.9, 0.8)),
        initial=LabelledAnswer((), (0.3, 0.4, 0.2)),
        evidence=Evidence(),
    )
    none = replace(two, final=two.initial)

    assert [v for n, v in said(read(two, task=task)) if n == "Finding"][:2] == [
        "effusion",
        "nodule",
    ]
    assert ("Finding", "effusion") not in said(read(none, task=task))


def test_a_label_without_a_concept_has_a_private_one_that_never_changes() -> None:
    document = read(a_diagnosis())
    codes = [
        (one.ConceptCodeSequence[0].CodingSchemeDesignator, one.ConceptCodeSequence[0].CodeValue)
        for one in items(document)
        if one.ValueType == "CODE" and one.ConceptCodeSequence[0].CodeMeaning == "normal"
    ]

    assert set(codes) == {("99GSCO", "L-03FAD846176A")}
    assert document.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99GSCO"


def test_a_task_that_has_changed_no_longer_gives_its_concepts() -> None:
    other = a_task(labels=(*a_task().labels, *a_multi_label_task().labels))

    assert ("Finding", "pneumonia") in said(read(a_diagnosis(), task=other))


def test_every_group_refers_to_the_image_and_the_evidence_lists_it() -> None:
    document = read(a_diagnosis(), a_source(2, NumberOfFrames=3))

    references = [
        one.ReferencedSOPSequence[0] for one in items(document) if one.ValueType == "IMAGE"
    ]
    assert len(references) == 1 + len(list(group_of(document)))
    assert {one.ReferencedSOPInstanceUID for one in references} == {INSTANCE}
    assert {int(one.ReferencedFrameNumber) for one in references} == {2}
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES


def group_of(document: object) -> list[object]:
    return [one for one in items(document) if "ContentTemplateSequence" in one]


def test_highdicom_finds_the_groups_by_their_finding() -> None:
    report = hd.sr.ComprehensiveSR.from_dataset(read(a_diagnosis()))

    groups = report.content.get_image_measurement_groups(
        finding_type=hd.sr.CodedConcept("233604007", "SCT", "Pneumonia")
    )
    assert len(groups) == 1
    assert groups[0].get_measurements()[0].value == 0.9
    assert report.content.get_observer_contexts()[0].observer_type.meaning == "Device"


def test_the_same_result_is_the_same_file() -> None:
    first, second = (structured_report(a_diagnosis(), a_source(), a_task()) for _ in range(2))
    other = read_back(structured_report(a_diagnosis(id="another"), a_source(), a_task()))

    assert first == second
    assert other.SOPInstanceUID != read_back(first).SOPInstanceUID


def test_without_its_source_the_report_is_about_nobody_and_is_another_object() -> None:
    diagnosis = a_diagnosis()
    own, data = (
        structured_report(diagnosis, a_source(), None),
        structured_report(diagnosis, anonymous(diagnosis.id), None),
    )
    document = read_back(data)

    assert (document.PatientName, document.PatientIdentityRemoved) == ("", "YES")
    assert document.SOPInstanceUID != read_back(own).SOPInstanceUID
    assert "CurrentRequestedProcedureEvidenceSequence" not in document
    assert not any(one.ValueType == "IMAGE" for one in items(document))
    assert sha256_of("input") in dict(said(document))["How the result was computed"]


def test_an_anonymous_report_refers_to_a_known_image_from_a_study_of_its_own() -> None:
    diagnosis = a_diagnosis()
    document = read(diagnosis, anonymous(diagnosis.id, a_source().image))

    assert document.StudyInstanceUID != STUDY
    assert document.PertinentOtherEvidenceSequence[0].StudyInstanceUID == STUDY
    assert "CurrentRequestedProcedureEvidenceSequence" not in document


def test_a_draft_report_is_told_in_its_own_words() -> None:
    document = read_back(structured_report(a_report(evidence=Evidence()), a_source(), None))
    told = dict(said(document))

    assert told["Findings"] == "The lungs are clear."
    assert told["Impressions"] == "No acute disease."
    assert group_of(document) == []


@pytest.mark.parametrize(("offset", "hour"), [("+0100", "04"), ("-0530", "21")])
def test_time_is_told_as_the_source_tells_it(offset: str, hour: str) -> None:
    document = read(a_diagnosis(), a_source(TimezoneOffsetFromUTC=offset))

    assert document.ContentTime[:2] == hour
    assert document.TimezoneOffsetFromUTC == offset


def test_a_generalist_of_unknown_weights_is_named_without_them() -> None:
    provenance = a_provenance()
    unknown = replace(provenance.generalist, weights_sha256="")
    diagnosis = a_diagnosis(provenance=replace(provenance, generalist=unknown))

    told = said(group_named(read(diagnosis), "finding 1"))
    assert not any("weights" in str(value) for _, value in told)


def test_numbers_that_are_none_are_left_out() -> None:
    diagnosis = a_diagnosis(
        agreement=None, evidence=some_evidence(typicality=float("nan"), moed=(), rad=())
    )

    told = dict(said(read(diagnosis)))
    assert "Share of the specialists that agree" not in told
    assert "Typicality among the reference cases" not in told
