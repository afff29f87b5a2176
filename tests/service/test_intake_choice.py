"""Which task an image is for, when nobody names one."""

import pytest
from builders import a_task, some_attributes

from service.errors import InvalidInput, UnsupportedImage
from service.intake.choice import chosen_task
from specialists import task as tasks
from specialists.errors import InvalidTask
from specialists.task import Rule, Task

CHEST = Rule(modality=("CR", "DX"), body_part=("CHEST", "SCT:51185008"))
ANY_RADIOGRAPH = Rule(modality=("CR", "DX"))


def ruled(name: str, *rules: Rule) -> Task:
    return a_task(name, rules=rules)


@pytest.mark.parametrize(
    "said",
    [
        {"modality": "DX", "body_part_examined": "CHEST"},
        {"modality": "CR", "anatomic_regions": ("SCT:51185008",)},
    ],
)
def test_task_whose_rule_fits_is_chosen(said: dict[str, object]) -> None:
    assert chosen_task(some_attributes(**said), [ruled("derm"), ruled("cxr", CHEST)]).name == "cxr"


def test_procedure_code_decides() -> None:
    known = [ruled("ap", Rule(procedure=("LN:36554-4",))), ruled("pa", Rule(procedure=("L:7",)))]

    assert chosen_task(some_attributes(procedure_codes=("L:7",)), known).name == "pa"


def test_more_specific_rule_wins() -> None:
    known = [ruled("bones", ANY_RADIOGRAPH), ruled("cxr", CHEST)]

    assert (
        chosen_task(some_attributes(modality="DX", body_part_examined="CHEST"), known).name == "cxr"
    )
    assert (
        chosen_task(some_attributes(modality="DX", body_part_examined="HAND"), known).name
        == "bones"
    )


def test_nothing_is_guessed() -> None:
    known = [ruled("one", CHEST), ruled("other", CHEST)]

    with pytest.raises(UnsupportedImage, match=r"no task has a rule for this image \(CT\)"):
        chosen_task(some_attributes(modality="CT"), known)
    with pytest.raises(InvalidInput, match="'one' and 'other' fit this image equally well"):
        chosen_task(some_attributes(modality="CR", body_part_examined="CHEST"), known)
    with pytest.raises(InvalidInput, match="only a DICOM file says what it shows"):
        chosen_task(None, known)


def test_rules_are_read_from_the_task_file() -> None:
    text = """
        name = "cxr"
        kind = "single-label"
        modality = "chest X-ray"
        labels = ["normal", "pneumonia"]
        [[rules]]
        modality = ["cr", "DX"]
        body_part = ["chest", "SCT:51185008"]
    """

    assert tasks.parse(text).rules == (CHEST,)


def test_rules_are_tables() -> None:
    with pytest.raises(InvalidTask, match=r"write \[\[rules\]\]"):
        tasks.parse('name = "a"\nkind = "question"\nmodality = "CT"\nrules = ["CR"]')


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "a rule names a modality"),
        ('modality = "CR"', "modality of a rule is a list of texts"),
        ("age = [7]", "no field .age."),
    ],
)
def test_rule_that_says_nothing_is_refused(rule: str, reason: str) -> None:
    text = f"""
        name = "cxr"
        kind = "single-label"
        modality = "chest X-ray"
        labels = ["normal", "pneumonia"]
        [[rules]]
        {rule}
    """

    with pytest.raises(InvalidTask, match=reason):
        tasks.parse(text)
