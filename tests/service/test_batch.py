"""Stories of cohorts: lists, results that go on, and what one bad case may not do."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import a_multi_label_task, a_question_task, a_report_task, png_bytes, task_toml
from databases import kept_in
from fakes import FakeGeneralist, FakeIntake, FakeRetriever, FakeSpecialists, FakeStore

from service.api.dependencies import Parts
from service.batch import answering, manifest
from service.batch.results import Results
from service.cli import batching
from service.cli.main import main
from service.domain import Completion
from service.errors import GeneralistUnavailable, Misconfigured, UnreadableImage
from service.jobs.job import Retry
from service.pipeline import Pipeline
from service.settings import Settings

HEADER = "image,task,id\n"


@dataclass
class Cohort:
    """A list of pictures in a folder, and the fakes that answer."""

    home: Path
    folder: Path
    generalist: FakeGeneralist = field(default_factory=FakeGeneralist)
    intake: FakeIntake = field(default_factory=FakeIntake)
    store: FakeStore = field(default_factory=FakeStore)

    def write(self, text: str, name: str = "cohort.csv") -> Path:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return path

    async def run(self, path: Path, **more: Any) -> dict[str, int]:
        rows = manifest.read(path, more.pop("task", ""))
        results = Results(self.folder / "results.jsonl")
        given = {"at_once": 2, "tell": lambda _: None, "starting": self._parts, **more}
        return await batching.run(Settings(home=self.home), self.folder, rows, results, **given)

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "results.jsonl").read_text("utf-8")
        return sorted(map(json.loads, text.splitlines()), key=lambda line: str(line["id"]))

    @asynccontextmanager
    async def _parts(self, _: Settings) -> AsyncIterator[Parts]:
        panel, retriever = FakeSpecialists(), FakeRetriever()
        pipeline = Pipeline(panel, retriever, self.generalist, self.store)
        with kept_in(self.home) as kept:
            yield Parts(pipeline, panel, retriever, self.generalist, self.store, self.intake, *kept)


@pytest.fixture
def cohort(home: Path, tmp_path: Path) -> Cohort:
    for task in (a_multi_label_task(), a_report_task(), a_question_task()):
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task))
    folder = tmp_path / "cohort"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(png_bytes() + name.encode())
    return Cohort(home, folder)


async def test_every_case_of_a_list_is_answered_and_stored(cohort: Cohort) -> None:
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\nb.png,cxr-findings,two\n")

    counted = await cohort.run(path)

    assert counted == {"done": 2, "failed": 0, "done before": 0}
    assert [line["id"] for line in cohort.lines()] == ["one", "two"]
    assert {line["result"]["id"] for line in cohort.lines()} == set(cohort.store.saved)
    assert cohort.lines()[0]["result"]["labels"] == ["normal"]


async def test_reports_and_questions_are_asked_as_over_rest(cohort: Cohort) -> None:
    rows = [
        {"image": "a.png", "task": "cxr-report", "draft": "Effusion."},
        {
            "image": "b.png",
            "task": "cxr-questions",
            "question": "Is it?",
            "choices": ["yes", "no"],
            "frame": 3,
            "group": "pseudonym",
        },
    ]
    path = cohort.write("\n".join(map(json.dumps, rows)), "cohort.jsonl")

    await cohort.run(path)

    report, answer = cohort.lines()
    assert (report["kind"], answer["kind"]) == ("report", "answer")
    assert report["result"]["draft_sha256"]
    assert answer["result"]["answer"] == "yes"
    assert {frame for _, frame in cohort.intake.asked} == {None, 3}  # rows are answered together


async def test_a_second_run_answers_only_what_is_missing(cohort: Cohort) -> None:
    short = cohort.write(HEADER + "a.png,cxr-pneumonia,one\n")
    await cohort.run(short)
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\nb.png,cxr-pneumonia,two\n")

    counted = await cohort.run(path)

    assert counted == {"done": 1, "failed": 0, "done before": 1}
    assert [line["id"] for line in cohort.lines()] == ["one", "two"]


async def test_a_case_that_cannot_be_used_fails_alone_and_is_tried_again(cohort: Cohort) -> None:
    path = cohort.write(HEADER + "gone.png,cxr-pneumonia,one\nb.png,cxr-pneumonia,two\n")
    first = await cohort.run(path)
    failed = cohort.lines()[0]
    (cohort.folder / "gone.png").write_bytes(png_bytes())
    second = await cohort.run(path)

    assert (first["failed"], second) == (1, {"done": 1, "failed": 0, "done before": 1})
    assert failed["problem"] == {
        "error": "UnreadableImage",
        "detail": "cannot read the image: No such file or directory",
    }
    assert [line["status"] for line in cohort.lines()] == ["done", "done"]


async def test_a_line_that_a_crash_cut_off_is_written_anew(cohort: Cohort) -> None:
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\nb.png,cxr-pneumonia,two\n")
    await cohort.run(path)
    file = cohort.folder / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-20])

    counted = await cohort.run(path)

    assert counted["done"] == 1
    assert [line["id"] for line in cohort.lines()] == ["one", "two"]
    assert len(cohort.store.saved) == 2  # what was stored before the crash is not there twice


async def test_a_generalist_that_is_away_is_waited_for(cohort: Cohort) -> None:
    cohort.generalist = AwayFor(3)
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\n")

    prompt = Retry(attempts=1, first_seconds=0.01, longest_seconds=0.02)
    assert await cohort.run(path, at_once=1, retry=prompt) == {
        "done": 1,
        "failed": 0,
        "done before": 0,
    }


async def test_without_a_generalist_the_run_ends_and_can_go_on(cohort: Cohort) -> None:
    cohort.generalist.failure = GeneralistUnavailable("nobody there")
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\n")

    with pytest.raises(GeneralistUnavailable):
        await cohort.run(path, retry=Retry(3, 0.01, 0.02, patience_seconds=0.05))
    cohort.generalist.failure = None
    assert (await cohort.run(path))["done"] == 1


async def test_what_nobody_foresaw_fails_one_case_without_its_text(cohort: Cohort) -> None:
    cohort.intake.failure = ZeroDivisionError("patient Miller")
    path = cohort.write(HEADER + "a.png,cxr-pneumonia,one\n")
    await cohort.run(path, retry=Retry(2, 0.01, 0.02))

    assert len(cohort.intake.asked) == 2
    assert cohort.lines()[0]["problem"] == {"error": "ZeroDivisionError", "detail": ""}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no case"),
        (HEADER, "lists no case"),
        (HEADER + ",cxr-pneumonia,one\n", "row 1: 'image' is missing"),
        (HEADER + "a.png,,one\n", "row 1: 'task' is missing"),
        (HEADER + "a.png,cxr-pneumonia,John Miller\n", "row 1: id and group are"),
        (HEADER + "a.png,cxr-pneumonia,x\nb.png,cxr-pneumonia,x\n", "'x' is there twice"),
        (HEADER + "a.png,no-task,x\n", "unknown task 'no-task'"),
        (HEADER + "a.png,cxr-questions,x\n", "a question goes with a question task"),
        ("image,task,label\na.png,cxr-pneumonia,normal\n", "'label' is not known here"),
        ("image,task,frame\na.png,cxr-pneumonia,0\n", "'frame' counts from 1"),
        ("image,task,draft\na.png,cxr-pneumonia,Effusion\n", "takes no choices or no draft"),
        ("image,task,question,choices\na.png,cxr-questions,Is it?,yes\n", "'choices': "),
        (HEADER + 'a.png,"cxr\n', "is not a CSV file"),
        (HEADER + "a.png,cxr-pneumonia,x,more\n", "'a column without a name' is not known"),
    ],
)
async def test_a_list_that_cannot_be_used_is_wrong_use(
    cohort: Cohort, text: str, reason: str
) -> None:
    with pytest.raises(Misconfigured, match=reason):
        await cohort.run(cohort.write(text))
    assert cohort.intake.asked == []


@pytest.mark.parametrize("text", ["[1]", "{", '"image"', '{"image": 3.5}', '{"image": null}'])
def test_lines_that_are_no_rows_are_named(cohort: Cohort, text: str) -> None:
    with pytest.raises(Misconfigured, match="row 1"):
        manifest.read(cohort.write(text, "cohort.jsonl"), "cxr-pneumonia")


def test_a_list_may_leave_task_and_id_out(cohort: Cohort) -> None:
    rows = manifest.read(cohort.write("\ufeffimage\na.png\nb.png\n"), "cxr-pneumonia")

    assert [(row.id, row.task) for row in rows] == [("1", "cxr-pneumonia"), ("2", "cxr-pneumonia")]


async def test_a_task_that_consults_a_missing_one_is_named(cohort: Cohort) -> None:
    (cohort.home / "tasks" / "cxr-findings.toml").unlink()
    with pytest.raises(Misconfigured, match="unknown task 'cxr-findings'"):
        await cohort.run(cohort.write(HEADER + "a.png,cxr-report,x\n"))


async def test_results_of_another_list_are_not_mixed_in(cohort: Cohort) -> None:
    await cohort.run(cohort.write(HEADER + "a.png,cxr-pneumonia,one\n"))
    with pytest.raises(Misconfigured, match="of another list"):
        await cohort.run(cohort.write(HEADER + "b.png,cxr-pneumonia,one\n"))


@pytest.mark.parametrize("text", ["not ours\n", '{"id": 1}\n', "[]\n"])
async def test_a_file_that_is_no_results_file_is_left_alone(cohort: Cohort, text: str) -> None:
    (cohort.folder / "results.jsonl").write_text(text)
    with pytest.raises(Misconfigured, match="not a result of this command"):
        await cohort.run(cohort.write(HEADER + "a.png,cxr-pneumonia,one\n"))
    assert (cohort.folder / "results.jsonl").read_text() == text


def test_two_runs_do_not_write_to_one_file(cohort: Cohort) -> None:
    results, other = (Results(cohort.folder / "results.jsonl") for _ in range(2))
    with results.opened(()), pytest.raises(Misconfigured, match="another batch"):  # noqa: SIM117
        with other.opened(()):
            pass


def test_the_command_line_names_what_is_wrong(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cohort.write(HEADER + "a.png,no-task,x\n")
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(cohort.home), "batch", str(path)])

    assert ended.value.code == 2
    assert "unknown task 'no-task'" in capsys.readouterr().err


class AwayFor(FakeGeneralist):
    """Is away for so many questions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    async def answer(self, prompt: Any) -> Completion:
        self.count -= 1
        if self.count >= 0:
            raise GeneralistUnavailable("away")
        return await super().answer(prompt)


def test_unreadable_images_do_not_tell_their_names() -> None:
    with pytest.raises(UnreadableImage) as told:
        answering._bytes(Path("/nowhere/John-Miller.dcm"), 100)

    assert "Miller" not in str(told.value)
