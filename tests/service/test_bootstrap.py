"""Instruction data from cases whose diagnosis is known."""

import json

from builders import a_picture, a_task, an_image
from fakes import FakeGeneralist

from service.domain import Completion
from service.generalist.training.bootstrap import Guided, Instruction, bootstrap


def guided(*labels: str) -> list[Guided]:
    return [
        Guided(str(place), an_image(a_picture(seed=place)), (label,))
        for place, label in enumerate(labels)
    ]


async def instructions(teacher: FakeGeneralist, *labels: str) -> list[Instruction]:
    return [one async for one in bootstrap(teacher, a_task(), guided(*labels), seed=0)]


async def test_the_teacher_is_told_what_the_image_is_and_shows() -> None:
    teacher = FakeGeneralist(script=[Completion("An opacity: pneumonia.")])

    (found,) = await instructions(teacher, "pneumonia")

    assert "a chest X-ray that shows pneumonia" in teacher.asked[0].text
    assert teacher.asked[0].choices == ()
    assert found.answer == "An opacity: pneumonia."
    assert "shows pneumonia" not in found.asked


async def test_a_teacher_that_contradicts_what_it_was_told_is_not_learned_from() -> None:
    teacher = FakeGeneralist(
        script=[Completion("Normal lungs."), Completion(""), Completion("pneumonia " * 100)]
    )

    assert await instructions(teacher, "pneumonia", "pneumonia", "pneumonia") == []


async def test_the_same_seed_asks_the_same() -> None:
    script = [Completion("pneumonia")] * 4
    one, other = FakeGeneralist(script=list(script)), FakeGeneralist(script=list(script))

    assert await instructions(one, *["pneumonia"] * 4) == await instructions(
        other, *["pneumonia"] * 4
    )


async def test_a_line_holds_no_image() -> None:
    line = Instruction("7", ("pneumonia",), "Explain.", "It is pneumonia.").line()

    assert json.loads(line) == {
        "id": "7",
        "labels": ["pneumonia"],
        "asked": "Explain.",
        "answer": "It is pneumonia.",
    }
