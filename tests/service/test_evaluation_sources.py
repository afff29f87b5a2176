"""Where cases come from: tables of questions and reports, and folders of DICOM files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from builders import a_picture, a_task, png_bytes

from service.demo import phantoms
from service.evaluation import dicom_folder, images, sources
from service.intake.deidentify import pseudonym
from specialists.errors import InvalidDataset
from specialists.task import Label, TaskKind

SHARED = Path(__file__).parents[3] / "shared" / "data"
QUESTION = {"split": "test", "question": "Is there a nodule?", "answer": "yes"}


def an_index(folder: Path, *rows: dict[str, object], name: str = "index.csv") -> Path:
    """The table, and a picture for every image that it names and that is not called missing."""
    for seed, image in enumerate(dict.fromkeys(str(row.get("image", "")) for row in rows)):
        if image and "missing" not in image:
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            (folder / image).write_bytes(png_bytes(a_picture(seed=seed)))
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


# -- questions and reports --


def test_questions_are_read_with_their_choices_and_images(tmp_path: Path) -> None:
    row = QUESTION | {"image": "a.png", "group": "p1", "id": "q1", "choices": "yes|no"}
    an_index(tmp_path, row, row | {"id": "q2", "split": "train"})

    found = sources.read(tmp_path, TaskKind.QUESTION)

    (case,) = found.cases
    assert (case.id, case.group, case.choices) == ("q1", "p1", ("yes", "no"))
    assert (case.question, case.answer) == ("Is there a nodule?", "yes")
    assert np.array_equal(found.images[0], a_picture(seed=0))


def test_reports_may_come_as_json_lines(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "split": "val", "report": f"Report {n}."} for n in (1, 2)]
    path = an_index(tmp_path, *rows, name="reports.jsonl")

    found = sources.read(path, TaskKind.REPORT, split="val")

    assert [case.report for case in found.cases] == ["Report 1.", "Report 2."]
    assert found.ids == ("val/1", "val/2")


def test_choices_may_be_a_list_in_json(tmp_path: Path) -> None:
    row = QUESTION | {"image": "a.png", "answer": "Left", "choices": ["left", "right"]}
    path = an_index(tmp_path, row, name="cases.jsonl")

    assert sources.read(path, TaskKind.QUESTION).cases[0].choices == ("left", "right")


def test_other_names_of_columns_can_be_given(tmp_path: Path) -> None:
    row = {"image": "a.png", "split": "test", "FINDINGS": "Clear.", "subject_id": 17}
    an_index(tmp_path, row)

    found = sources.read(tmp_path, TaskKind.REPORT, columns={"report": "FINDINGS"})

    assert (found.cases[0].report, found.groups) == ("Clear.", ("17",))


def test_questions_about_one_image_are_resampled_together(tmp_path: Path) -> None:
    an_index(tmp_path, *(QUESTION | {"image": image} for image in ("a.png", "a.png", "b.png")))

    found = sources.read(tmp_path, TaskKind.QUESTION)

    one, same, other = (case.cluster for case in found.cases)
    assert one == same != other
    assert [case.image for case in found.one_per_image().cases] == ["a.png", "b.png"]


def test_only_so_many_cases_are_chosen_evenly(tmp_path: Path) -> None:
    an_index(tmp_path, *(QUESTION | {"image": "a.png", "answer": str(n)} for n in range(6)))

    found = sources.read(tmp_path, TaskKind.QUESTION)

    assert [case.answer for case in found.limited(3).cases] == ["0", "2", "4"]
    assert found.limited(9) is found.limited(None) is found


def test_images_that_cannot_be_read_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    names = ("a.png", "broken.png", "missing.png", "../missing.png")
    an_index(tmp_path, *(QUESTION | {"image": image} for image in names))
    (tmp_path / "broken.png").write_bytes(png_bytes()[:100])

    found = sources.read(tmp_path, TaskKind.QUESTION)

    assert [case.image for case in found.cases] == ["a.png"]
    assert [one.image for one in found.broken] == list(names[1:])
    assert images.told(found.broken, of=4, source=found.source) == (
        "3 of 4 images of index.csv cannot be read and are left out: "
        "broken.png (the image is damaged or cut short); missing.png (there is no such file); "
        "../missing.png (there is no such file)"
    )


def test_images_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png_bytes())
    folder = tmp_path / "data"
    folder.mkdir()
    an_index(folder, QUESTION | {"image": "a.png"}, QUESTION | {"image": "../secret.png"})

    found = sources.read(folder, TaskKind.QUESTION)

    assert [one.reason for one in found.broken] == ["it lies outside the folder of the index"]


def test_what_is_kept_of_broken_images_names_none() -> None:
    broken = (images.BrokenImage("Smith^John.png", "there is no such file"),)

    assert images.counted(broken, of=4, source="index.csv") == (
        "1 of 4 images of index.csv cannot be read and are left out"
    )


def test_nothing_is_said_where_all_images_can_be_read() -> None:
    assert images.told((), of=4, source="index.csv") == ""


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"image": "a.png", "question": "?"}], "lacks the columns split, answer"),
        ([QUESTION | {"image": "a.png", "id": "1"}] * 2, "has the id '1' more than once"),
        ([QUESTION | {"image": "a.png", "split": "train"}], "no case of split 'test'; it has tra"),
        ([QUESTION | {"image": "a.png", "split": "dev"}], "row 1 .* has the split 'dev'; known: "),
        ([QUESTION | {"image": "a.png", "answer": ""}], "row 1 of index.csv has no answer"),
        ([QUESTION | {"image": "a.png", "choices": "a|b"}], "an answer that is none of its choic"),
        ([QUESTION | {"image": "missing.png"}], "no image of split 'test' of index.csv can be re"),
    ],
)
def test_a_table_with_something_wrong_is_refused_in_one_sentence(
    tmp_path: Path, rows: list[dict[str, object]], sentence: str
) -> None:
    an_index(tmp_path, *rows)

    with pytest.raises(InvalidDataset, match=sentence):
        sources.read(tmp_path, TaskKind.QUESTION)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("index.csv", b"\xff\xfe\x00", "neither CSV nor JSON lines in UTF-8"),
        ("index.jsonl", b"{", "neither CSV nor JSON lines"),
        ("index.jsonl", b"[1]", "a line that is not a JSON object"),
        ("index.csv", b"image,split\n", "index.csv has no cases"),
        ("other.csv", b"", "is neither an index nor a folder with index.csv or"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, data: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InvalidDataset, match=sentence):
        sources.read(tmp_path, TaskKind.QUESTION)


def test_labelled_tasks_are_read_elsewhere(tmp_path: Path) -> None:
    an_index(tmp_path, QUESTION | {"image": "a.png"})

    with pytest.raises(InvalidDataset, match="question and report tasks, not single-label"):
        sources.read(tmp_path, TaskKind.SINGLE_LABEL)


def test_vqa_rad_is_read_as_it_is_published() -> None:
    if not (SHARED / "vqa_rad").is_dir():
        pytest.skip("the VQA-RAD images are not here")

    found = sources.read(SHARED / "vqa_rad", TaskKind.QUESTION)

    assert (len(found), found.broken) == (478, ())
    train = sources.read(SHARED / "vqa_rad", TaskKind.QUESTION, split="train")
    assert not {c.pixels_sha256 for c in found.cases} & {c.pixels_sha256 for c in train.cases}


# -- DICOM --

CHEST = a_task("phantom-cxr", labels=tuple(Label(name) for name in phantoms.CHEST_LABELS))
KEY = b"a key"


def a_dicom_folder(folder: Path) -> Path:
    rows = []
    for seed, label in enumerate(phantoms.CHEST_LABELS):
        phantom = phantoms.draw("chest", [label], seed)
        phantoms.write_dicom(phantom, folder / f"{seed}.dcm")
        rows.append(f"test,{seed}.dcm,{label},ward-{seed}")
    (folder / "index.csv").write_text("\n".join(["split,image,label,group", *rows]), "utf-8")
    return folder


def test_labelled_dicom_files_become_a_split(tmp_path: Path) -> None:
    folder = a_dicom_folder(tmp_path)

    split = dicom_folder.read(folder, CHEST, KEY).dataset.split("test")

    assert split.targets.tolist() == [0, 1, 2, 3]
    assert np.array_equal(split.images[2], phantoms.draw("chest", ["effusion"], 2).rgb)
    assert dicom_folder.has_dicom(folder)


def test_patients_are_known_by_their_pseudonym_only(tmp_path: Path) -> None:
    folder = a_dicom_folder(tmp_path)

    keyed = dicom_folder.read(folder, CHEST, KEY).dataset.split("test")
    unkeyed = dicom_folder.read(folder, CHEST).dataset.split("test")

    assert keyed.groups[1] == pseudonym(KEY, "PHANTOM-chest-1")
    assert unkeyed.groups == ("ward-0", "ward-1", "ward-2", "ward-3")


def test_a_broken_dicom_file_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = a_dicom_folder(tmp_path)
    (folder / "1.dcm").write_bytes((folder / "1.dcm").read_bytes()[:900])

    found = dicom_folder.read(folder, CHEST, KEY)

    assert found.dataset.split("test").ids == ("0.dcm", "2.dcm", "3.dcm")
    assert found.dataset.split("test").targets.tolist() == [0, 2, 3]
    assert [one.image for one in found.broken] == ["1.dcm"]
    assert "PHANTOM" not in found.broken[0].reason


def test_an_image_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    folder = a_dicom_folder(tmp_path)
    with (folder / "index.csv").open("a", encoding="utf-8") as file:
        file.write("\ntest,1.dcm,normal,ward-1")

    with pytest.raises(InvalidDataset, match=r"names the image '1\.dcm' more than once"):
        dicom_folder.read(folder, CHEST, KEY)


def test_a_folder_without_dicom_files_is_told_apart(tmp_path: Path) -> None:
    an_index(tmp_path, {"image": "a.png", "split": "test", "label": "normal"})

    assert not dicom_folder.has_dicom(tmp_path)
    assert not dicom_folder.has_dicom(tmp_path / "nowhere")
