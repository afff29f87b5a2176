"""Measuring: systems on the same cases, figures, intervals, and how the generalist decides."""

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import a_multi_label_task, a_picture, a_task, some_evidence
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists, FakeStore
from hypothesis import given
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from service.domain import predicted_labels
from service.errors import GeneralistUnavailable, Misconfigured
from service.evaluation import (
    figures,
    intervals,
    metrics,
    page,
    plan,
    plots,
    record,
    strata,
    table,
    trials,
)
from service.evaluation.arbitration import Rate, arbitration
from service.evaluation.cases import Cases, cases_of, patients
from service.evaluation.figures import Figures
from service.evaluation.folder import CASES, VALIDATION, Measured, ResultsFolder
from service.evaluation.record import CaseRecord, KnownCase
from service.evaluation.run import Measurement, Wanted
from service.evaluation.systems import BEST_SINGLE, STACKED, VOTE, systems
from service.pipeline import Pipeline
from specialists.prediction import Pixels
from specialists.task import Task
from specialists.training.split import Split

Odds = tuple[float, ...]
NORMAL, PNEUMONIA = (0.9, 0.1), (0.1, 0.9)


def some_measured(**fields: Any) -> Measured:
    measured = Measured(
        task="cxr-pneumonia", data="data.npz", data_fingerprint="f", split="test", cases=4,
        systems=(trials.MOED_ONLY, trials.RAD_ONLY), stresses=(), neighbours=10, left_out=(),
        specialists_from="cxr-pneumonia", validation_accuracies={"vgg16": 0.6, "resnet18": 0.9},
        conditions={"task": "t"}, index_ids=("i",), code_version="1",
    )  # fmt: skip
    return replace(measured, **fields)


def a_record(
    id: str = "case-0",
    label: str = "pneumonia",
    alone: Odds = NORMAL,
    panel: Odds = PNEUMONIA,
    final: Odds = PNEUMONIA,
    **fields: Any,
) -> CaseRecord:
    found = CaseRecord(
        id=id,
        patient=int(id.rpartition("-")[2]),
        labels=(label,),
        specialists={"vgg16": panel, "resnet18": panel},
        neighbours=(KnownCase("known-1", ("pneumonia",), 0.9),),
        answers={trials.ALONE: alone, trials.GSCO: final},
    )
    return replace(found, **fields)


def some_records() -> list[CaseRecord]:
    """Two of each label; the generalist first always says normal, the panel pneumonia."""
    return [a_record(f"case-{n}", ("normal", "pneumonia")[n % 2]) for n in range(4)]


def told(records: Sequence[CaseRecord], task: Task | None = None, **fields: Any) -> Figures:
    return figures.figures(task or a_task(), some_measured(**fields), records)


class LostImages(list[Pixels]):
    """Images of which one cannot be read."""

    def __getitem__(self, place: Any) -> Any:
        from specialists.errors import InvalidDataset

        if place == 1:
            raise InvalidDataset("b.png cannot be read as an image")
        return super().__getitem__(place)


def some_cases(count: int = 4, images: Sequence[Pixels] | None = None) -> Cases:
    """Alternately normal and pneumonia; two images of each patient."""
    pictures = images or [a_picture(seed=seed) for seed in range(count)]
    groups = tuple(f"Mrs {chr(65 + place // 2)}" for place in range(count))
    names = tuple(f"{group}.png" for group in groups)
    return cases_of(a_task(), Split(pictures, np.arange(count) % 2, groups, names))


class FakePanel:
    """Prepares nothing: its specialists answer by themselves."""

    def __init__(self) -> None:
        self.prepared: list[int] = []

    async def prepare(self, images: Sequence[Pixels], task: Task) -> FakeSpecialists:
        self.prepared.append(len(images))
        return FakeSpecialists()


def a_measurement(folder: Path, cases: Cases | None = None, **fields: Any) -> Measurement:
    pipeline = Pipeline(FakeSpecialists(), FakeRetriever(), FakeGeneralist(), FakeStore())
    wanted = fields.pop("wanted", Wanted())
    measurement = Measurement(
        pipeline,
        FakePanel(),
        cases or some_cases(),
        wanted,
        ResultsFolder(folder),  # type: ignore[arg-type]
    )
    return replace(measurement, **fields)


# -- measuring --


async def test_every_case_leaves_a_record_without_a_name(tmp_path: Path) -> None:
    measurement, seen = a_measurement(tmp_path), []

    await measurement.run(lambda: seen.append(1))

    records = sorted(measurement.folder.records(), key=lambda one: one.id)
    assert [one.id for one in records] == [f"cxr-pneumonia-{n}" for n in range(4)]
    assert [one.patient for one in records] == [0, 0, 1, 1]
    assert "Mrs" not in (tmp_path / CASES).read_text()
    assert set(records[0].answers) == {*(trials.ALONE, trials.GSCO), *Wanted().systems}
    assert len(seen) == 4


async def test_what_is_finished_is_not_asked_again(tmp_path: Path) -> None:
    await a_measurement(tmp_path).run(lambda: None)
    lines = (tmp_path / CASES).read_bytes().splitlines(keepends=True)
    (tmp_path / CASES).write_bytes(lines[0] + lines[1] + lines[2][:40])  # killed while writing
    again = a_measurement(tmp_path)

    await again.run(lambda: None)

    assert sorted((tmp_path / CASES).read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert len(again.pipeline.generalist.asked) == 2 * 4  # type: ignore[attr-defined]


async def test_a_broken_image_is_recorded_and_told(tmp_path: Path) -> None:
    images = LostImages([a_picture(seed=seed) for seed in range(4)])
    measurement = a_measurement(tmp_path, some_cases(images=images))

    await measurement.run(lambda: None)

    found = told(measurement.folder.records())
    assert [one.broken for one in found.broken] == ["the image cannot be read"]
    assert "Not read: cxr-pneumonia-1" in table.markdown(found)
    assert "b.png" not in (tmp_path / CASES).read_text()
    assert found.scores[0].cases == 3


async def test_a_generalist_that_goes_away_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    pipeline = Pipeline(
        FakeSpecialists(),
        FakeRetriever(),
        FakeGeneralist(failure=GeneralistUnavailable("gone")),
        FakeStore(),
    )

    with pytest.raises(GeneralistUnavailable, match="gone"):
        await a_measurement(tmp_path, pipeline=pipeline).run(lambda: None)

    await a_measurement(tmp_path).run(lambda: None)
    assert len(a_measurement(tmp_path).folder.records()) == 4


async def test_specialists_see_a_chunk_at_once(tmp_path: Path) -> None:
    panel = FakePanel()

    await a_measurement(tmp_path, some_cases(70), panel=panel).run(lambda: None)

    assert panel.prepared == [32, 32, 6]


# -- the results folder --


def test_a_folder_of_another_measurement_is_refused(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path).opened(some_measured()):
        pass

    with (
        pytest.raises(Misconfigured, match="its task is 'cxr-pneumonia', not 'busi'"),
        ResultsFolder(tmp_path).opened(some_measured(task="busi")),
    ):
        pass


def test_a_folder_with_other_specialists_is_refused(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path).opened(some_measured()):
        pass

    with (
        pytest.raises(Misconfigured, match="conditions differ in specialist vgg16"),
        ResultsFolder(tmp_path).opened(
            some_measured(conditions={"task": "t", "specialist vgg16": "other"})
        ),
    ):
        pass


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")

    with (
        pytest.raises(Misconfigured, match="no results folder: it holds 'thesis"),
        ResultsFolder(tmp_path).opened(some_measured()),
    ):
        pass


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        ResultsFolder(tmp_path).opened(some_measured()),
        pytest.raises(Misconfigured, match="another evaluation is writing"),
        ResultsFolder(tmp_path).opened(some_measured()),
    ):
        pass


def test_a_folder_left_before_it_began_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "measured.json.part").write_text('{"task":')  # killed while writing

    with ResultsFolder(tmp_path).opened(some_measured()):
        pass

    assert ResultsFolder(tmp_path).measured() == some_measured()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("null", "damaged: not a record of a case"),
        ("[1]", "damaged: not a record of a case"),
        ('{"id":"case-0","patient":0}', "damaged: case 'case-0' is there twice"),
    ],
)
def test_a_line_that_cannot_be_is_refused(tmp_path: Path, line: str, sentence: str) -> None:
    folder = ResultsFolder(tmp_path)
    folder.add([a_record("case-0")])
    with (tmp_path / CASES).open("a") as file:
        file.write(f"{line}\n")

    with pytest.raises(Misconfigured, match=sentence):
        folder.records()


def test_a_record_of_a_case_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.add([a_record("case-1"), a_record("case-0"), a_record("case-7")])

    with pytest.raises(Misconfigured, match="'case-7', which is no case of this evaluation"):
        folder.records_in_order(CaseRecord, ["case-0", "case-1"])


def test_validation_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)

    def killed() -> Any:
        yield a_record("case-0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.keep(killed(), VALIDATION)
    assert folder.records(VALIDATION) == []

    folder.keep([a_record("case-0")], VALIDATION)
    assert folder.records(VALIDATION) == [a_record("case-0")]


def test_a_line_that_the_disk_had_no_room_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ResultsFolder(tmp_path)
    folder.add([a_record("case-0")])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            folder.add([a_record("case-1")])

    assert folder.records() == [a_record("case-0")]


def test_other_images_of_the_same_names_are_another_data_set() -> None:
    cases = some_cases()
    other = some_cases(images=[a_picture(seed=seed + 9) for seed in range(4)])

    assert plan.fingerprint(cases) == plan.fingerprint(some_cases())
    assert plan.fingerprint(cases) != plan.fingerprint(other)


@given(shares=st.lists(st.floats(0, 1), min_size=2, max_size=5), id=st.text())
def test_a_record_is_read_as_it_was_written(shares: list[float], id: str) -> None:
    one = a_record(final=tuple(shares), id="case-1")
    one = replace(one, id=id, notes=(id,))

    assert record.read(record.line(one), CaseRecord) == one


# -- deceptions --


def test_a_biased_panel_names_each_wrong_label_in_turn() -> None:
    found = list(trials.stresses(("biased",), a_task(), "case-1", ("normal",), some_evidence()))

    assert [one.name for one in found] == ["biased: pneumonia"]
    assert {predicted_labels(a_task(), one) for one in found[0].evidence.moed} == {("pneumonia",)}


def test_contradictory_evidence_says_two_things_of_which_one_is_true() -> None:
    (found,) = trials.stresses(("contradictory",), a_task(), "case-1", ("normal",), some_evidence())

    panel = {predicted_labels(a_task(), one)[0] for one in found.evidence.moed}
    known = {label for one in found.evidence.rad for label in one.case.labels}
    assert panel | known == {"normal", "pneumonia"}
    assert not panel & known


@given(id=st.text(max_size=8))
def test_random_evidence_is_the_same_in_every_run(id: str) -> None:
    one, again = (
        list(trials.stresses(("random",), a_task(), id, ("normal",), some_evidence()))
        for _ in range(2)
    )

    assert one == again


def test_deceptions_are_counted_one_by_one_and_together() -> None:
    records = [
        a_record("case-0", "normal", answers={**a_record().answers, "biased: pneumonia": NORMAL}),
        a_record("case-1", answers={**a_record().answers, "biased: normal": NORMAL}),
    ]

    found = told(records).deceived

    assert found["biased"] == Rate(1, 2)
    assert found["biased: pneumonia"] == Rate(1, 1)


# -- arbitration --


def test_rates_are_kept_with_their_denominators() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    initial = np.array([0, 0, 0, 0, 0, 1])
    majority = np.array([1, 1, 0, 1, 1, 1])
    final = np.array([0, 1, 0, 1, 0, 1])

    found = arbitration(truth, initial, majority, final)

    assert (found.uphold, found.misled) == (Rate(1, 2), Rate(1, 2))
    assert (found.self_correct, found.stubborn) == (Rate(1, 2), Rate(1, 2))
    assert found.flow[(True, False, True)] == 1


def test_a_rate_of_no_cases_is_none() -> None:
    assert Rate(0, 0).share is None


# -- systems --


def test_the_best_single_specialist_is_chosen_on_validation_not_on_these_cases() -> None:
    records = [
        replace(one, specialists={"vgg16": PNEUMONIA, "resnet18": NORMAL}) for one in some_records()
    ]

    found = told(records, validation_accuracies={"vgg16": 0.6, "resnet18": 0.9})

    assert found.systems.best_single == "resnet18"
    assert found.systems.tables[BEST_SINGLE].tolist() == [list(NORMAL)] * 4


def test_on_the_validation_split_itself_no_best_single_is_told() -> None:
    found = told(some_records(), split="val")

    assert BEST_SINGLE not in found.systems.tables
    assert any("chosen on these cases" in warning for warning in found.warnings)


def test_a_majority_is_more_than_half_whatever_the_thresholds() -> None:
    task = a_multi_label_task(thresholds=(0.2, 0.2, 0.2))
    one, other = (0.1, 0.9, 0.1), (0.1, 0.9, 0.3)
    panel = {"vgg16": one, "resnet18": one, "densenet121": other}
    records = [
        a_record(f"case-{n}", "effusion", one, final=one, specialists=panel) for n in range(4)
    ]

    found = told(records, task)

    scores = {score.system: score.accuracy for score in found.scores}
    assert scores[VOTE] == 1.0


def test_that_neighbours_do_not_vote_is_told() -> None:
    records = [*some_records(), a_record("case-4", neighbours=())]

    assert any("no neighbours' vote: 1 of 5 cases" in one for one in told(records).warnings)


def test_a_stacked_regression_learns_on_validation_whom_to_trust() -> None:
    def said(label: str, liar: Odds, honest: Odds) -> CaseRecord:
        return a_record(label=label, specialists={"liar": liar, "honest": honest})

    rows = [said("normal", PNEUMONIA, NORMAL), said("pneumonia", NORMAL, PNEUMONIA)] * 10

    found = systems(a_task(), rows, rows, {})

    assert found.tables[STACKED].argmax(axis=1).tolist() == [0, 1] * 10


def test_a_specialist_that_missed_a_case_has_no_row() -> None:
    records = some_records()
    records[0] = replace(records[0], specialists={"resnet18": PNEUMONIA}, missing=("vgg16",))

    found = told(records)

    assert found.systems.specialists == ("resnet18",)
    assert "Incomplete evidence in 1 cases." in table.markdown(found)


# -- figures, against independent references --


def a_table(labels: int, count: int = 60, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    said = rng.dirichlet(np.ones(labels), count)
    return np.eye(labels, dtype=bool)[rng.integers(0, labels, count)], said


def a_task_of(labels: int) -> Task:
    from specialists.task import Label

    return a_task(labels=tuple(Label(f"label {n}") for n in range(labels)))


def test_of_many_labels_accuracy_and_auc_are_those_of_medmnist() -> None:
    truth, said = a_table(5)

    found = metrics.score(a_task_of(5), "one", truth, said)

    target = truth.argmax(axis=1)[:, None]
    assert found.accuracy == pytest.approx(getACC(target, said, "multi-class"), abs=1e-6)
    assert found.auc == pytest.approx(getAUC(target, said, "multi-class"), abs=1e-6)
    assert found.macro_f1 == pytest.approx(
        f1_score(target[:, 0], said.argmax(axis=1), average="macro"), abs=1e-6
    )


def test_of_two_labels_accuracy_and_auc_are_those_of_medmnist() -> None:
    truth, said = a_table(2)

    found = metrics.score(a_task(), "one", truth, said)

    target = truth.argmax(axis=1)[:, None]
    assert found.accuracy == pytest.approx(getACC(target, said[:, 1], "binary-class"), abs=1e-6)
    assert found.auc == pytest.approx(getAUC(target, said[:, 1], "binary-class"), abs=1e-6)


def test_of_several_labels_accuracy_and_auc_are_those_of_medmnist() -> None:
    rng = np.random.default_rng(1)
    truth, said = rng.random((50, 3)) > 0.6, rng.random((50, 3))
    task = a_multi_label_task(nothing_found=None)

    found = metrics.score(task, "one", truth, said)

    where = "multi-label, binary-class"
    assert found.accuracy == pytest.approx(getACC(truth, said, where), abs=1e-6)
    assert found.auc == pytest.approx(getAUC(truth, said, where), abs=1e-6)


def test_where_all_cases_bear_one_label_the_auc_is_not_invented() -> None:
    found = told([a_record(f"case-{n}") for n in range(3)])

    assert {score.auc for score in found.scores} == {None}
    assert "> the AUC is undefined: all cases bear the same label" in table.markdown(found)
    assert "> no case bears 'normal'" in table.markdown(found)


def test_calibration_error_is_the_gap_between_what_is_said_and_what_holds() -> None:
    truth = np.eye(2, dtype=bool)[[0, 0, 0, 1]]
    said = np.tile((0.95, 0.05), (4, 1))

    assert metrics.calibration_error(a_task(), truth, said) == pytest.approx(0.2, abs=1e-6)


def test_a_probability_rounded_above_one_is_still_a_probability() -> None:
    truth = np.array([[True, False], [False, True]])
    said = np.array([[1.0000000000000002, 0.0], [0.0, 1.0]])

    assert metrics.calibration_error(a_task(), truth, said) == pytest.approx(0)


def test_the_least_sure_are_left_to_people_first() -> None:
    truth = np.eye(2, dtype=bool)[[0] * 10]
    said = np.array([(0.9, 0.1)] * 9 + [(0.45, 0.55)])

    found = {one.review_rate: one.accuracy for one in metrics.selective(a_task(), truth, said)}

    assert (found[0.0], found[0.1]) == (0.9, 1.0)


# -- intervals and tests --


def test_weighted_macro_f1_is_that_of_the_resampled_cases() -> None:
    rng = np.random.default_rng(0)
    truth, named = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    weights = intervals.resamples([str(case) for case in range(40)], count=5)
    one_hot = np.eye(3, dtype=bool)

    found = intervals.macro_f1s(one_hot[truth], one_hot[named], weights)

    for value, drawn in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(40), drawn)
        wanted = f1_score(truth[rows], named[rows], average="macro", labels=[0, 1, 2])
        assert value == pytest.approx(wanted)


def test_a_label_that_a_resample_lost_does_not_count_against_a_system() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 1, 1, 2]]
    weights = np.array([[1, 1, 1, 1, 1, 0]], dtype=float)

    assert intervals.macro_f1s(truth, truth, weights).tolist() == [1.0]


def test_weighted_auc_is_that_of_the_resampled_cases() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.random((40, 1)) > 0.5, rng.integers(0, 8, (40, 1)) / 8  # with ties
    weights = intervals.resamples(range(40), count=5)

    found = intervals.aucs(truth, said, [0], weights)

    for value, drawn in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(40), drawn)
        assert value == pytest.approx(roc_auc_score(truth[rows, 0], said[rows, 0]))


def test_an_auc_that_no_resample_can_tell_has_no_interval() -> None:
    task = a_task_of(12)
    records = [
        a_record(f"case-{n}", f"label {n}", *(3 * [tuple(np.eye(12)[n])]), neighbours=())
        for n in range(12)
    ]

    found = told(records, task)

    assert found.scores[0].auc == 1.0
    assert found.scores[0].auc_interval is None
    assert "NaN" not in json.dumps(table.as_json(found))


def test_a_panel_of_one_mind_about_several_labels_is_easy() -> None:
    none, all_three, divided = [0.01] * 3, [0.99] * 3, [0.01, 0.5, 0.01]
    panel = np.array([[none, all_three, divided]] * 2)

    found = strata.difficulty(a_multi_label_task(), panel)

    assert found[0] == pytest.approx(found[1])
    assert found[2] > found[0]


def test_images_of_one_patient_are_drawn_together() -> None:
    weights = intervals.resamples(["a", "a", "b", "b"], count=20)

    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights.sum(axis=1) == 4).all()


def test_of_single_images_the_permutation_test_is_mcnemars() -> None:
    ours, theirs = np.ones(30), np.r_[np.zeros(9), np.ones(21)]
    ours[-2:] = 0

    found = intervals.p_value(ours, theirs, range(30))

    assert found == pytest.approx(binomtest(2, 11).pvalue, abs=0.01)


def test_images_of_one_patient_are_no_independent_evidence() -> None:
    ours, theirs = np.ones(10), np.zeros(10)

    assert intervals.p_value(ours, theirs, [0] * 10) == 1.0
    assert intervals.p_value(ours, theirs, range(10)) < 0.01


def test_holm_corrects_for_the_number_of_comparisons() -> None:
    found = intervals.holm({"a": 0.01, "b": 0.04, "c": 0.03})

    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


# -- the whole --


def test_everything_is_told_in_tables_in_json_and_on_a_page(tmp_path: Path) -> None:
    found = told(some_records())

    page.write(found, ResultsFolder(tmp_path))

    text, document = table.markdown(found), table.as_json(found)
    html = (tmp_path / "report.html").read_text()
    assert "| GSCo | 4 | 0.500 (" in text
    assert document["arbitration"]["self_correct"] == {
        "numerator": 2, "denominator": 2, "share": 1.0
    }  # fmt: skip
    assert {one["system"] for one in document["scores"]} >= {"majority vote", "generalist alone"}
    assert json.loads(json.dumps(document))["scores"] == document["scores"]
    assert html.count("<svg") == len(plots.plots(found)) == 6
    assert "src=" not in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_hostile_names_do_not_become_markup(tmp_path: Path) -> None:
    page.write(told(some_records(), data="<script>alert(1)</script>"), ResultsFolder(tmp_path))

    assert "<script>" not in (tmp_path / "report.html").read_text()


def test_nothing_but_broken_images_is_no_result() -> None:
    with pytest.raises(Misconfigured, match="no case to evaluate: b"):
        told([CaseRecord("case-0", 0, broken="b.png cannot be read")])


def test_patients_are_counted_not_named() -> None:
    assert patients(some_cases(5)) == (0, 0, 1, 1, 2)
