"""Texts from outside, in every place they may stand: no format may break."""

import json
from typing import Any

import pytest
from builders import (
    a_diagnosis,
    a_picture,
    a_prediction,
    a_report,
    a_task,
    some_evidence,
)
from fhir.resources.R4B.bundle import Bundle
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pacs_objects import TEXTS, a_source, an_explanation, items, read_back, told_everywhere

from service.domain import LabelledAnswer
from service.pacs import concepts
from service.pacs.content import Written
from service.pacs.results import files
from specialists.task import Concept, Label


def check(result: Written) -> None:
    """Every format of the result can be read by a reader that is not ours."""
    explanation = an_explanation("label", specialist="vgg16")
    written = files(result, a_source(), None, a_picture(), (explanation,))
    by_name = {one.name: one.data for one in written}
    assert set(by_name) == {
        "sr.dcm", "capture-1.dcm", "fhir.json", "key-object.dcm", "oru.hl7"
    }  # fmt: skip
    for name, data in by_name.items():
        if name.endswith(".dcm"):
            assert list(items(read_back(data))) or name.startswith("capture")
    Bundle.model_validate(json.loads(by_name["fhir.json"]))
    # The strict parser holds a TX to the 199 characters of an ST; HL7 v2.5.1 allows 65,536.
    message = parse_message(by_name["oru.hl7"].decode(), validation_level=VALIDATION_LEVEL.TOLERANT)
    assert message.to_er7().count("\r") == by_name["oru.hl7"].count(b"\r") - 1
    assert [one.name for one in message.children][:2] == ["MSH", "ORU_R01_PATIENT_RESULT"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_texts_break_no_diagnosis(text: str) -> None:
    check(told_everywhere(text))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_texts_break_no_report(text: str) -> None:
    check(a_report(findings=text, impression=text, text=text, review_reasons=(text,)))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
def test_any_text_breaks_nothing(text: str) -> None:
    check(told_everywhere(text))


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_a_line_fits_and_stays_as_it_is(text: str) -> None:
    line = concepts.line(text)

    assert len(line) <= concepts.LONGEST_MEANING
    assert line.isprintable()
    assert "\\" not in line
    assert concepts.line(line) == line


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_paragraphs_can_be_written_as_utf_8(text: str) -> None:
    told = concepts.paragraphs(text, 100)

    assert len(told) <= 100
    assert all(one.isprintable() for one in told.split("\n"))
    told.encode()


def test_a_long_report_is_told_whole() -> None:
    text = "Word. " * 1_600
    data = {one.name: one.data for one in files(a_report(findings=text), a_source(), None)}

    spoken = [one.get("TextValue") for one in items(read_back(data["sr.dcm"]))]
    assert text.strip() in spoken
    assert text.strip() in data["oru.hl7"].decode()


@pytest.mark.parametrize(
    "concept",
    [
        {"scheme": "SCT^EVIL", "code": "1", "meaning": "m"},
        {"scheme": "SCT", "code": "1|2", "meaning": "m"},
        {"scheme": "SCT", "code": "1" * 65, "meaning": "m"},
        {"scheme": "S" * 17, "code": "1", "meaning": "m"},
        {"scheme": "SCT", "code": "1", "meaning": "\x00"},
        {"scheme": "SCT", "code": "", "meaning": "m"},
    ],
)
def test_a_concept_that_does_not_fit_is_replaced_by_our_own(concept: dict[str, Any]) -> None:
    found = concepts.label_concept("task", Label("sign", Concept(**concept)))

    assert (found.scheme, found.meaning) == ("99GSCO", "sign")


def test_labels_that_differ_have_codes_that_differ() -> None:
    labels = [f"{'x' * 70}{n}" for n in range(50)]
    found = concepts.label_concepts("task", tuple(labels), None)
    other = concepts.label_concepts("other", tuple(labels), None)

    assert len({one.code for one in (*found.values(), *other.values())}) == 100


def test_a_task_of_many_labels_is_written_within_bounds() -> None:
    names = tuple(f"label {n}" for n in range(64))
    chances = tuple([0.5] * 64)
    diagnosis = a_diagnosis(
        label_names=names,
        final=LabelledAnswer(names, chances),
        initial=LabelledAnswer(names, chances),
        evidence=some_evidence(moed=(a_prediction(probabilities=chances),), rad=()),
    )
    written = files(diagnosis, a_source(), a_task(labels=tuple(map(Label, names))))

    assert max(len(one.data) for one in written) < 1_000_000
