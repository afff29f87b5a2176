"""Instruction data from cases whose diagnosis is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import a_picture, a_task, an_image
from fakes import FakeGeneralist
from tiny_training import a_curriculum, a_material

from service.domain import Completion
from service.domain import pixels_sha256 as sha256
from service.generalist.training import arbitrating, bootstrap
from service.generalist.training.bootstrap import Guided, Instruction
from service.generalist.training.examples import Question
from specialists.errors import InvalidDataset
from specialists.training.split import ArrayImages, Split


def guided(*labels: str) -> list[Guided]:
    pictures = [a_picture(seed=place) for place in range(len(labels))]
    return [
        Guided(str(place), an_image(pixels, sha256=sha256(pixels)), (label,))
        for place, (pixels, label) in enumerate(zip(pictures, labels, strict=True))
    ]


async def instructions(teacher: FakeGeneralist, *labels: str) -> list[Instruction]:
    asked = bootstrap.bootstrap(teacher, a_task(), guided(*labels), seed=0)
    return [one async for one in asked]


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
    line = Instruction("7", "5e1f", ("pneumonia",), "Explain.", "It is pneumonia.").line()

    assert json.loads(line) == {
        "id": "7",
        "image": "5e1f",
        "labels": ["pneumonia"],
        "asked": "Explain.",
        "answer": "It is pneumonia.",
    }


# -- the answers as training data --


def a_split(count: int = 3) -> Split:
    images = np.stack([a_picture(seed=place) for place in range(count)])
    names = tuple(map(str, range(count)))
    return Split(ArrayImages(images), np.zeros(count, int), (None,) * count, names)


def a_file(folder: Path, *lines: Instruction) -> Path:
    path = folder / "instructions.jsonl"
    path.write_text("".join(line.line() + "\n" for line in lines), "utf-8")
    return path


def told(seed: int, answer: str = "It is pneumonia.") -> Instruction:
    return Instruction(str(seed), sha256(a_picture(seed=seed)), ("pneumonia",), "Explain.", answer)


async def test_what_a_teacher_answered_is_found_with_its_image(tmp_path: Path) -> None:
    teacher = FakeGeneralist(script=[Completion("pneumonia, left"), Completion("pneumonia")])
    lines = await instructions(teacher, "pneumonia", "pneumonia")

    taught = bootstrap.read(a_file(tmp_path, *lines[::-1]), a_task(), a_split(), size=32)

    shown = {answer: taught.images[image] for image, _, answer in taught.rows}
    assert np.array_equal(shown["pneumonia, left"], a_picture(seed=0))
    assert np.array_equal(shown["pneumonia"], a_picture(seed=1))


def test_instructions_are_drawn_beside_those_made_of_labels(tmp_path: Path) -> None:
    pool = a_material()
    taught = bootstrap.read(a_file(tmp_path, told(0), told(2)), a_task(), a_split(), size=32)
    only = replace(a_curriculum(pool).shares, diagnosis=0, look=0, report=0, question=0,
                   dialogue=0, description=0)  # fmt: skip
    curriculum = replace(a_curriculum(pool), shares=only, taught=(taught,))
    rng = np.random.default_rng(0)

    items = [arbitrating.draw_item(curriculum, rng) for _ in range(100)]
    asked = [arbitrating.questions_of(curriculum, one, 0, None, rng) for one in items]

    assert 30 < asked.count([Question(0, "Explain.", "It is pneumonia.")]) < 70
    assert {item.kind for item in items} == {"instruction", "taught"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (told(9).line(), "is of an image that the train split of 'cxr-pneumonia' does not hold"),
        (told(0, answer="").line(), "line 1 of .* lacks what was asked or answered"),
        ("{", "line 1 of .* is no JSON object"),
        ("[]", "line 1 of .* is no JSON object"),
        ("", "holds no instructions"),
    ],
)
def test_instructions_that_cannot_be_learned_from_are_refused(
    tmp_path: Path, line: str, sentence: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(line, "utf-8")

    with pytest.raises(InvalidDataset, match=sentence):
        bootstrap.read(tmp_path / "bad.jsonl", a_task(), a_split(), size=32)
