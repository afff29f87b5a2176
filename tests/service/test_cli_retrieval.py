"""`gsco retrieval`: are the indexes sound, do similar cases help, and which may be shown."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import a_reference_case, a_task, sha256_of, task_toml
from sqlalchemy import Engine

from retrieval import indexing, ingest
from service.cli.main import main
from service.persistence.database import open_engine, upgrade

TASK, SPECIALIST, ENCODER = "cxr-pneumonia", "resnet18", sha256_of("encoder")


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    """A home with 60 indexed cases whose vectors tell their label."""
    engine = open_engine(f"sqlite:///{home / 'gsco.db'}")
    upgrade(engine)
    labels = ["normal", "pneumonia"] * 30
    cases = [a_reference_case(f"case {n}", labels=(name,)) for n, name in enumerate(labels)]
    ingest.ingest(engine, cases)
    random = np.random.default_rng(0)
    middles = {"normal": np.eye(8)[0] * 4, "pneumonia": np.eye(8)[1] * 4}
    vectors = {
        case.id: (middles[case.labels[0]] + random.normal(size=8)).astype(np.float32)
        for case in cases
    }
    ingest.store_vectors(engine, TASK, SPECIALIST, ENCODER, vectors)
    indexing.build(engine, home / "indexes", TASK, SPECIALIST)
    yield engine
    engine.dispose()


@pytest.fixture
def gsco(home: Path, engine: Engine, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """What the command line answers: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(home), *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_sound_indexes_are_told_as_such(gsco) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = gsco("retrieval", "verify", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["specialist"], row["stored"], row["problems"]) == (SPECIALIST, 60, [])


def test_what_is_wrong_is_told_and_the_exit_code_says_so(gsco, home: Path) -> None:  # type: ignore[no-untyped-def]
    (file,) = (home / "indexes" / TASK / SPECIALIST).glob("main-*")
    file.write_bytes(b"garbage")
    code, out, _ = gsco("retrieval", "verify", "--task", TASK)
    assert code == 1
    assert "damaged" in out


def test_an_unknown_task_cannot_be_verified(gsco) -> None:  # type: ignore[no-untyped-def]
    code, _, err = gsco("retrieval", "verify", "--task", "nonsense")
    assert code == 2
    assert "unknown task 'nonsense'" in err


def test_the_assessment_ends_in_a_verdict(gsco) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = gsco("retrieval", "assess", "--task", TASK)
    assert code == 0
    assert "Verdict: similar cases help on this task." in out
    told = json.loads(gsco("retrieval", "assess", "--task", TASK, "--json")[1])
    assert told["verdict"] == "helps"
    assert told["over_prior"]["low"] > 0


def test_without_reference_cases_there_is_nothing_to_assess(gsco, home: Path) -> None:  # type: ignore[no-untyped-def]
    (home / "tasks" / "busi.toml").write_text(task_toml(a_task("busi")), "utf-8")
    code, _, err = gsco("retrieval", "assess", "--task", "busi")
    assert code == 1
    assert "20 are needed" in err


def test_options_narrow_what_the_settings_allow(  # type: ignore[no-untyped-def]
    gsco, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSCO_RETRIEVAL_LICENCES", "CC0-1.0")
    file = tmp_path / "x.png"
    file.write_bytes(b"")
    code, _, err = gsco("retrieval", "search", file, "--task", TASK, "--licence", "internal")
    assert code == 2
    assert "'internal' is not among the licences that GSCO_RETRIEVAL_LICENCES allows" in err
