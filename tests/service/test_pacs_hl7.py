"""The HL7 v2 message, read by a parser that is not ours."""

from typing import Any

import pytest
from builders import PANEL, a_diagnosis, a_report, a_task
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from pacs_objects import INSTANCE, STUDY, a_source

from service.domain import Diagnosis
from service.errors import UnsupportedImage
from service.pacs.hl7 import Processing, oru
from service.pacs.source import Source, anonymous

ESCAPES = (("F", "|"), ("S", "^"), ("T", "&"), ("R", "~"), ("E", "\\"))


def parsed(data: bytes) -> Any:
    """The message, after the parser has found it valid against HL7 v2.5.1's own structure."""
    message = parse_message(data.decode(), validation_level=VALIDATION_LEVEL.STRICT)
    assert message.validate()
    return message


def the_message(diagnosis: Diagnosis | None = None, source: Source | None = None) -> Any:
    return parsed(oru(diagnosis or a_diagnosis(), source or a_source(), a_task()))


def observations(message: Any) -> list[Any]:
    order = message.oru_r01_patient_result.oru_r01_order_observation
    return [one.obx for one in order.oru_r01_observation]


def values(message: Any, code: str) -> list[str]:
    rows = [one for one in observations(message) if one.obx_3.obx_3_1.to_er7() == code]
    return ["~".join(said.to_er7() for said in one.obx_5) for one in rows]


def unescaped(text: str) -> str:
    for name, mark in ESCAPES:
        text = text.replace(f"\\{name}\\", mark)
    return text


def test_the_message_says_what_it_is_and_whose() -> None:
    message = the_message()

    assert message.msh.msh_9.to_er7() == "ORU^R01^ORU_R01"
    assert message.msh.msh_11.to_er7() == "T"
    pid = message.oru_r01_patient_result.oru_r01_patient.pid
    assert pid.pid_3.to_er7() == "4711^^^HOSPITAL"
    assert pid.pid_5.to_er7() == "Doe^Jane^M^PhD^Dr"
    assert (pid.pid_7.to_er7(), pid.pid_8.to_er7()) == ("19700102", "F")


def test_a_receiver_that_should_file_it_is_told_so() -> None:
    message = parsed(oru(a_diagnosis(), a_source(), None, Processing.PRODUCTION))

    assert message.msh.msh_11.to_er7() == "P"


def test_the_result_is_preliminary_throughout() -> None:
    message = the_message()
    obr = message.oru_r01_patient_result.oru_r01_order_observation.obr

    assert (obr.obr_25.to_er7(), obr.obr_18.to_er7()) == ("P", "A-12")
    assert {one.obx_11.to_er7() for one in observations(message)} == {"P"}


def test_a_finding_is_coded_with_its_probability() -> None:
    message = the_message()

    assert values(message, "121071") == ["233604007^Pneumonia^SCT"]
    assert values(message, "122157") == ["0.900000"]


def test_what_specialists_say_is_text_and_no_finding() -> None:
    message = the_message()

    told = values(message, "SPECIALIST")
    assert len(told) == len(PANEL)
    assert told[0] == "specialist vgg16~normal 0.20, Pneumonia 0.80"
    assert values(message, "233604007") == []


def test_the_image_is_referred_to() -> None:
    message = the_message()

    assert values(message, "110180") == [STUDY]
    assert values(message, "SOP-INSTANCE-UID") == [INSTANCE]


def test_review_and_its_reasons_are_told() -> None:
    message = the_message(a_diagnosis(review_reasons=("low probability", "no neighbours")))

    assert values(message, "NEEDS-REVIEW") == ["373066001^Yes^SCT"]
    assert values(message, "REVIEW-REASON") == ["low probability", "no neighbours"]
    assert "not for clinical use" in values(message, "INTENDED-USE")[0]


def test_a_draft_report_keeps_its_lines() -> None:
    report = a_report(findings="First line.\nSecond | line.")
    message = parsed(oru(report, a_source(), None))

    assert values(message, "121070") == [r"First line.~Second \F\ line."]


@pytest.mark.parametrize("mark", ["|", "^", "&", "~", "\\", "a|b^c&d~e\\f"])
def test_separators_in_a_text_separate_nothing(mark: str) -> None:
    message = the_message(a_diagnosis(review_reasons=(f"x{mark}y",)))

    (told,) = values(message, "REVIEW-REASON")
    assert unescaped(told) == f"x{mark}y"


def test_separators_in_the_patients_identity_separate_nothing() -> None:
    source = a_source(PatientID="47|11&x", IssuerOfPatientID="A^B", PatientName="O|Doe^Ja~ne")
    pid = the_message(source=source).oru_r01_patient_result.oru_r01_patient.pid

    assert unescaped(pid.pid_3.pid_3_1.to_er7()) == "47|11&x"
    assert unescaped(pid.pid_5.to_er7()) == "O|Doe^Ja~ne"


def test_ideographic_names_give_their_alphabetic_part() -> None:
    source = a_source(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    pid = the_message(source=source).oru_r01_patient_result.oru_r01_patient.pid

    assert pid.pid_5.to_er7() == "Yamada^Tarou"


def test_the_same_result_is_the_same_message() -> None:
    assert oru(a_diagnosis(), a_source(), None) == oru(a_diagnosis(), a_source(), None)


@pytest.mark.parametrize("source", [anonymous("result"), a_source(PatientID=None)])
def test_without_a_patient_there_is_no_message(source: Source) -> None:
    with pytest.raises(UnsupportedImage, match="needs the patient's identifier"):
        oru(a_diagnosis(), source, None)
