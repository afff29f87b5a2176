"""Findings in reports: labellers of several kinds, and what is computed from their marks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from service.demo import phantoms
from service.errors import InvalidInput
from service.evaluation import intervals
from service.evaluation.findings import Labeller, finding_scores
from service.evaluation.outside_labels import TEXT_COLUMN, read_labels, write_texts
from service.evaluation.rule_labeller import phantom_labeller, read_rules

REFERENCES = ("Right pleural effusion.", "A 12 mm nodule. Small effusion.", "The lungs are clear.")
GENERATED = ("No effusion.", "Nodule and effusion on the left.", "Normal chest radiograph.")


def found_in(text: str) -> set[str]:
    labeller = phantom_labeller()
    (row,) = labeller.marks([text])
    return {finding for finding, there in zip(labeller.findings, row, strict=True) if there}


# -- rules --


def test_the_rules_know_the_labels_of_the_phantoms() -> None:
    assert phantom_labeller().findings == phantoms.FINDINGS_LABELS


def test_every_report_of_a_phantom_is_read_as_it_was_drawn() -> None:
    for phantom in phantoms.series("findings", 300, seed=11, size=16):
        assert found_in(phantom.report) == set(phantom.labels), phantom.report


def test_the_findings_are_read_without_the_impression_too() -> None:
    for phantom in phantoms.series("findings", 300, seed=12, size=16):
        described = phantom.report.partition(" Impression: ")[0]
        assert found_in(described) == set(phantom.labels), described


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No pneumonia, effusion or nodule.", set()),
        ("Lungs without consolidation.", set()),
        ("Pleural effusion is not seen.", set()),
        ("The effusion has resolved.", set()),
        ("No focal consolidation, pleural effusion, or pneumothorax.", set()),
        ("No effusion. A nodule in the left lobe.", {"nodule"}),
        ("No effusion but consolidation on the right.", {"pneumonia"}),
        ("No pneumothorax, a small effusion.", {"effusion"}),
        ("Without effusion, there is a nodule.", {"nodule"}),
        ("Nodule of 12.5 mm, no effusion.", {"nodule"}),
        ("No change in the right effusion.", {"effusion"}),
        ("Pneumonia cannot be excluded.", {"pneumonia"}),
        ("NODULE", {"nodule"}),
        ("Nodularity of the liver", set()),
        ("", set()),
    ],
)
def test_what_is_denied_is_not_found(text: str, found: set[str]) -> None:
    assert found_in(text) == (found or {"no finding"})


def test_rules_of_ones_own_are_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fractures.toml"
    path.write_text(
        'denials = ["no"]\n[[findings]]\nname = "fracture"\nphrases = ["fractures?"]', "utf-8"
    )

    labeller = read_rules(path)

    assert (labeller.name, labeller.findings) == ("fractures", ("fracture",))
    assert labeller.marks(["Old fracture", "No fractures"]).tolist() == [[True], [False]]


@pytest.mark.parametrize("text", ["[[findings", "[[findings]]\nname = 'a'\nphrases = ['(']", ""])
def test_rules_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text, "utf-8")

    with pytest.raises(InvalidInput, match="the rules 'broken'"):
        read_rules(path)


# -- labels from outside --


def chexbert_file(folder: Path, rows: list[list[object]]) -> Path:
    path = folder / "labeled_reports.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[TEXT_COLUMN, "Pneumonia", "Pleural Effusion"], *rows])
    return path


def test_labels_of_chexbert_are_read_as_it_writes_them(tmp_path: Path) -> None:
    path = chexbert_file(tmp_path, [["one", 1.0, ""], ["two", 0.0, -1.0], ["three", "", ""]])

    labeller: Labeller = read_labels(path)

    assert labeller.findings == ("Pneumonia", "Pleural Effusion")
    assert labeller.marks(["two", " one ", "two"]).tolist() == [
        [False, True], [True, False], [False, True]
    ]  # fmt: skip


def test_uncertain_labels_can_count_as_absent(tmp_path: Path) -> None:
    path = chexbert_file(tmp_path, [["perhaps", -1, 1]])

    labeller = read_labels(path, uncertain_counts=False)

    assert labeller.marks(["perhaps"]).tolist() == [[False, True]]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_labels_may_be_json(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": "one", "Edema": 1}, {"text": "two", "Edema": None}]
    path = tmp_path / f"labels{suffix}"
    path.write_text(
        json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)), "utf-8"
    )

    labeller = read_labels(path, text_column="text")

    assert labeller.marks(["one", "two"]).tolist() == [[True], [False]]


def test_texts_to_be_labelled_are_written_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"

    count = write_texts(path, ["A report,\n with a line.", "Another", "Another "])

    with path.open(newline="", encoding="utf-8") as file:
        texts = [row[TEXT_COLUMN] for row in csv.DictReader(file)]
    assert (count, texts) == (2, ["A report, with a line.", "Another"])
    labelled = chexbert_file(tmp_path, [[text, 1, 0] for text in texts])
    assert read_labels(labelled).marks(["A report,\n with a line."]).tolist() == [[True, False]]


def test_a_text_without_labels_is_named(tmp_path: Path) -> None:
    labeller = read_labels(chexbert_file(tmp_path, [["one", 1, 0]]))

    with pytest.raises(InvalidInput, match="no labels for 1 of 2 texts, such as 'unknown'"):
        labeller.marks(["one", "unknown"])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([["one", 2, 0]], "row 1 of labeled_reports.csv holds '2', not 1, 0, -1 or nothing"),
        ([["one", "yes", 0]], "holds 'yes'"),
        ([["one", 1, 0], ["one", 0, 0]], "row 2 .* labels a text otherwise"),
        ([], "no column 'Report Impression'"),
    ],
)
def test_a_table_of_labels_that_makes_no_sense_is_refused(
    tmp_path: Path, rows: list[list[object]], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read_labels(chexbert_file(tmp_path, rows))


# -- figures --


def test_f1_is_sklearns_and_told_per_finding() -> None:
    scores = finding_scores("GSCo", phantom_labeller(), REFERENCES, GENERATED)

    for average, found in (("micro", scores.micro_f1), ("macro", scores.macro_f1)):
        wanted = f1_score(scores.truth, scores.named, average=average, zero_division=0)
        assert found == pytest.approx(wanted, abs=1e-12)
    effusion = next(one for one in scores.findings if one.finding == "effusion")
    assert (effusion.in_references, effusion.in_generated) == (2, 1)
    assert effusion.f1 == pytest.approx(2 / 3)


def test_a_finding_that_nobody_names_has_no_f1_and_counts_nothing() -> None:
    scores = finding_scores("GSCo", phantom_labeller(), ["Nodule."], ["Nodule."])

    assert {one.finding: one.f1 for one in scores.findings} == {
        "no finding": None, "pneumonia": None, "effusion": None, "nodule": 1.0
    }  # fmt: skip
    assert (scores.micro_f1, scores.macro_f1) == (1.0, 0.25)


def test_resampled_f1_is_that_of_the_resampled_reports() -> None:
    scores = finding_scores("GSCo", phantom_labeller(), REFERENCES, GENERATED)
    weights = intervals.resamples(["a", "b", "c"], count=6)

    found = scores.resampled(weights)

    for row, drawn in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(3), drawn)
        texts = [[texts[place] for place in again] for texts in (REFERENCES, GENERATED)]
        wanted = finding_scores("GSCo", phantom_labeller(), *texts)
        assert found["finding_micro_f1"][row] == pytest.approx(wanted.micro_f1)
        assert found["finding_macro_f1"][row] == pytest.approx(wanted.macro_f1)


def test_reports_without_their_references_are_refused() -> None:
    with pytest.raises(InvalidInput, match="1 reports cannot be compared with 0 references"):
        finding_scores("GSCo", phantom_labeller(), [], ["Nodule."])
