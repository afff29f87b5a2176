"""The command line: exit codes, one sentence per failure, JSON on stdout and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import (
    a_diagnosis,
    a_multi_label_task,
    a_neighbour,
    a_question_task,
    a_reference_case,
    a_report,
    a_report_task,
    a_task,
    an_answer,
    png_bytes,
    some_evidence,
    task_toml,
)
from command_line import over
from rich.console import Console

from retrieval.database import count_cases
from service.api.schemas import diagnosis_response
from service.api.schemas_text import answer_response, report_response
from service.cli import diagnosis_view, output, text_view
from service.demo.tasks import demo_tasks, toml
from service.persistence.database import open_engine

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gsco(tmp_path: Path, capsys: Capture):
    """Runs a command line over a home folder that knows one task."""
    tasks = tmp_path / "home" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "cxr-pneumonia.toml").write_text(task_toml(a_task()))

    return over(tmp_path / "home", capsys)


def test_it_begins_without_what_only_some_verbs_need() -> None:
    script = "import sys, service.cli.main; print(*sys.modules)"
    slow = {"torch", "timm", "sklearn", "scipy", "pandas", "matplotlib", "faiss", "transformers"}

    said = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True)

    assert not slow & set(said.stdout.decode().split())


def test_a_task_is_added_listed_and_removed(gsco, tmp_path: Path) -> None:
    file = tmp_path / "derm.toml"
    file.write_text(toml("phantom-derm"))

    gsco("tasks", "add", file)
    listed = json.loads(gsco("tasks", "list", "--json").out)
    gsco("tasks", "remove", "phantom-derm")

    assert [task["name"] for task in listed] == ["cxr-pneumonia", "phantom-derm"]
    assert "phantom-derm" not in gsco("tasks", "list").out


def test_an_unknown_task_is_wrong_use_and_names_those_that_exist(gsco, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png_bytes())

    outcome = gsco("diagnose", file, "--task", "nope")

    assert outcome.code == 2
    assert outcome.err.strip() == "gsco: unknown task 'nope'; known tasks: cxr-pneumonia"


def test_an_unknown_option_is_wrong_use(gsco) -> None:
    assert gsco("tasks", "list", "--colour", "red").code == 2


def test_a_missing_file_is_one_sentence(gsco) -> None:
    outcome = gsco("diagnose", "nowhere.png", "--task", "cxr-pneumonia")

    assert outcome.code == 2
    assert outcome.err.strip() == "gsco: cannot read 'nowhere.png': No such file or directory"


def test_a_task_file_that_is_no_task_says_what_is_wrong(gsco, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('name = "x"\nkind = "single-label"\nmodality = "m"\nlabels = ["only"]')

    outcome = gsco("tasks", "add", file)

    assert outcome.code == 2
    assert "at least two labels" in outcome.err
    assert not (tmp_path / "home" / "tasks" / "x.toml").exists()


def test_an_npz_with_other_keys_trains_nothing(gsco, tmp_path: Path) -> None:
    file = tmp_path / "other.npz"
    np.savez(file, pictures=np.zeros((2, 8, 8), np.uint8))

    outcome = gsco(
        "specialists", "finetune", "--task", "cxr-pneumonia", "--data", file, "--scale", "nano"
    )

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "home" / "specialists").exists()


def test_an_unknown_backbone_is_wrong_use(gsco, tmp_path: Path) -> None:
    outcome = gsco(
        "specialists", "finetune", "--task", "cxr-pneumonia", "--data", tmp_path, "--scale", "nano",
        "--backbones", "resnet18,vgg99",
    )  # fmt: skip

    assert outcome.code == 2
    assert "unknown backbone 'vgg99'" in outcome.err


def test_missing_specialists_are_listed_with_the_reason(gsco) -> None:
    rows = json.loads(gsco("specialists", "list", "--json").out)

    assert len(rows) == 10
    assert rows[0]["backbone"] == "vgg16"
    assert rows[0]["scale"] is None


def test_reference_cases_cannot_be_ingested_without_specialists(gsco, tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    images, labels = np.zeros((20, 16, 16), np.uint8), np.zeros((20, 1), np.uint8)
    images[:] = np.arange(20)[:, None, None]
    np.savez(file, **{f"{s}_images": images for s in ("train", "val", "test")},
             **{f"{s}_labels": labels for s in ("train", "val", "test")})  # fmt: skip

    outcome = gsco("retrieval", "ingest", "--task", "cxr-pneumonia", "--data", file)

    assert outcome.code == 1
    assert "no specialist for task 'cxr-pneumonia' yet" in outcome.err
    engine = open_engine(f"sqlite:///{tmp_path / 'home' / 'gsco.db'}")
    assert count_cases(engine) == {}
    engine.dispose()


def test_phantoms_are_written_as_png_and_dicom(gsco, tmp_path: Path) -> None:
    for ending in ("png", "dcm"):
        out = tmp_path / f"case.{ending}"

        outcome = gsco("phantoms", "image", "--task", "phantom-cxr", "--label", "nodule",
                       "--out", out)  # fmt: skip

        assert outcome.code == 0
        assert out.stat().st_size > 1000


def test_a_phantom_of_an_unknown_label_is_wrong_use(gsco, tmp_path: Path) -> None:
    outcome = gsco("phantoms", "image", "--task", "phantom-cxr", "--label", "gout",
                   "--out", tmp_path / "x.png")  # fmt: skip

    assert outcome.code == 2
    assert "no label 'gout', only normal, pneumonia, effusion, nodule" in outcome.err


def test_a_place_that_cannot_be_written_is_one_sentence(gsco, tmp_path: Path) -> None:
    outcome = gsco("phantoms", "image", "--task", "phantom-cxr", "--label", "nodule",
                   "--out", tmp_path / "nowhere" / "x.png")  # fmt: skip

    assert outcome.code == 1
    assert outcome.err.strip().endswith("x.png: No such file or directory")


def test_settings_that_cannot_work_are_wrong_use(gsco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_GENERALIST_ENGINE", "vllm")

    outcome = gsco("tasks", "list")

    assert outcome.code == 2
    assert "GSCO_GENERALIST_URL" in outcome.err


@pytest.mark.parametrize(
    ("verb", "task", "right"),
    [
        (["diagnose"], "cxr-report", "report"),
        (["report"], "cxr-questions", "ask"),
        (["ask", "--question", "Why?"], "cxr-pneumonia", "diagnose"),
    ],
)
def test_the_wrong_verb_for_a_task_names_the_right_one(
    gsco, tmp_path: Path, verb: list[str], task: str, right: str
) -> None:
    for other in (a_report_task(), a_question_task()):
        (tmp_path / "home" / "tasks" / f"{other.name}.toml").write_text(task_toml(other))

    outcome = gsco(*verb, tmp_path / "x.png", "--task", task)

    assert outcome.code == 2
    assert f"use `gsco {right}`" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ask", "--question", " "], "--question: is empty"),
        (["ask", "--question", "x" * 501], "--question: String should have at most 500"),
        (["ask", "--question", "Why?", "--choice", "yes"], "--choice: two or more different"),
        (["ask", "--question", "Why?", "--choice", "a", "--choice", "A"], "--choice: two or more"),
        (["report", "--draft", "{draft}"], "--draft: String should have at most 10000"),
        (["report", "--draft", "{folder}"], "cannot read the draft"),
    ],
)
def test_what_rest_would_refuse_the_command_line_refuses_too(
    gsco, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    kinds = {"ask": a_question_task(consults=""), "report": a_report_task(consults="")}
    task = kinds[arguments[0]]
    (tmp_path / "home" / "tasks" / f"{task.name}.toml").write_text(task_toml(task))
    (tmp_path / "draft.txt").write_text("x" * 10_001)
    places = {"draft": tmp_path / "draft.txt", "folder": tmp_path}
    arguments = [one.format(**places) for one in arguments]

    outcome = gsco(*arguments, tmp_path / "x.png", "--task", task.name)

    assert outcome.code in {1, 2}
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_bad_prompt_template_stops_the_service_with_one_sentence(
    gsco, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSCO_PROMPT_TEMPLATE", "poor")

    outcome = gsco("serve", "--port", "0")

    assert outcome.code == 2
    assert outcome.err.strip() == (
        "gsco: no prompt template 'poor': choose paper, rich, rich_segmentation or a .toml file"
    )


def test_square_brackets_in_words_of_others_are_shown_as_they_are(capsys: Capture) -> None:
    order = "[/red] [bold]Is there fluid?"
    answer = answer_response(an_answer(question=order, text=order), None)
    report = report_response(a_report(findings=order), a_multi_label_task())
    neighbour = a_neighbour(case=a_reference_case(source=order))
    diagnosis = a_diagnosis(evidence=some_evidence(rad=(neighbour,)))

    text_view.show_answer(answer.model_dump(mode="json"))
    text_view.show_report(report.model_dump(mode="json"), truth=order)
    diagnosis_view.show(diagnosis_response(diagnosis, a_task()).model_dump(mode="json"), order)

    assert capsys.readouterr().out.count("[/red]") >= 6


def test_nothing_is_cut_on_a_narrow_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Console(width=40, soft_wrap=True)
    monkeypatch.setattr(output, "results", narrow)
    long = "There is hazy consolidation in the right upper lobe, and a little fluid."
    report = report_response(a_report(findings=long), a_multi_label_task())
    name = "phantom-cxr-questions"

    text_view.show_report(report.model_dump(mode="json"))
    output.print_table("Tasks", ["name", "labels"], [[name, "pneumonia, effusion, nodule"]])

    said = capsys.readouterr().out
    shown = " ".join(said.translate(str.maketrans("│┃╭╮╰╯─", " " * 7)).split())
    assert long in shown
    assert name in said
    assert "…" not in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('nothing_fond = "a"', "a task has no field 'nothing_fond', only name, kind, modality"),
        ('kind = "sngle-label"', "there is no kind 'sngle-label' of task, only single-label"),
        ('panel = ["resnet19"]', "unknown backbone 'resnet19'"),
        ('segment = "a"\nsegmenters = ["net"]', "unknown segmentation model 'net'"),
        ('[[rules]]\nmodalty = ["CR"]', "a rule has no field 'modalty', only modality, body_part"),
        ('[[labels]]\nname = "c"\ncode = "1"', "a label has no field 'code', only name, concept"),
    ],
)
def test_a_task_with_a_slip_of_the_pen_is_refused_by_name(
    gsco, tmp_path: Path, line: str, reason: str
) -> None:
    fields = {"name": '"new"', "kind": '"single-label"', "modality": '"m"', "labels": '["a", "b"]'}
    fields.pop(line.split(" = ")[0].strip("[]").split("]")[0], None)
    file = tmp_path / "new.toml"
    file.write_text("\n".join([*(f"{k} = {v}" for k, v in fields.items()), line]))

    outcome = gsco("tasks", "add", file)

    assert outcome.code == 2
    assert reason in outcome.err
    assert not (tmp_path / "home" / "tasks" / "new.toml").exists()


def test_the_examples_of_the_documents_are_tasks(gsco, tmp_path: Path) -> None:
    for file in sorted(Path("docs/examples/tasks").glob("*.toml")):
        assert gsco("tasks", "add", file).code == 0


def test_without_tasks_the_next_step_is_named(tmp_path: Path, capsys: Capture) -> None:
    outcome = over(tmp_path / "new", capsys)("retrieval", "build", "--task", "t")

    assert "none yet (gsco tasks add FILE, or gsco demo --prepare-only)" in outcome.err


@pytest.mark.parametrize(
    "verb", [("serve", "--port", "0"), ("diagnose", "image.png", "--task", "cxr-pneumonia")]
)
def test_a_device_that_is_not_there_is_one_sentence(
    gsco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GSCO_DEVICE", "abacus")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(png_bytes())

    outcome = gsco(*verb)

    assert outcome.code == 2
    assert outcome.err.startswith("gsco: GSCO_DEVICE 'abacus' cannot be used: ")
    assert outcome.err.count("\n") == 1


def test_a_group_that_may_be_an_identifier_is_wrong_use(gsco, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png_bytes())

    outcome = gsco("diagnose", file, "--task", "cxr-pneumonia", "--group", "Doe^Jane")

    assert outcome.code == 2
    assert outcome.err.startswith("gsco: --group: ")
    assert "Doe" not in outcome.err


def test_every_demo_task_has_its_phantoms() -> None:
    for demo in demo_tasks():
        phantom = next(demo.series(1, seed=0))

        assert phantom.labels[0] in demo.task.label_names
