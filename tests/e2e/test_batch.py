"""A cohort with the shipped weights: from the command line, killed and gone on with, and mapped."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from builders import png_bytes
from sqlalchemy import create_engine, text

from service.batch.answering import Answering
from service.demo import home as demo_home
from service.demo.tasks import demo_tasks
from service.intake.decoder import decode
from service.settings import read_settings

GSCO = str(Path(sys.executable).with_name("gsco"))
CASES = 12


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's home, with fewer reference cases."""
    folder = tmp_path_factory.mktemp("batch") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_home, "REFERENCE_CASES", 8)
        demo_home.prepare(read_settings(home=folder), lambda task: None)
    return folder


@pytest.fixture(scope="module")
def manifest(home: Path) -> Path:
    """Chest phantoms, one of them to be reported and one to be asked about."""
    folder = home.parent / "cohort"
    folder.mkdir()
    task = demo_tasks()[0]

    lines = []
    for number, phantom in enumerate(task.series(CASES, seed=7)):
        (folder / f"{number}.png").write_bytes(png_bytes(phantom.rgb))
        lines.append({"image": f"{number}.png", "task": task.task.name, "id": f"case-{number}"})
    lines[-2] |= {"task": "phantom-cxr-report"}
    lines[-1] |= {"task": "phantom-cxr-questions", "question": "Is there effusion?"}
    path = folder / "cohort.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def batch(home: Path, manifest: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"GSCO_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [GSCO, "batch", str(manifest), "--json", "--at-once", "2"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def lines_of(manifest: Path) -> list[dict[str, Any]]:
    path = manifest.with_suffix(".results.jsonl")
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in whole]


def test_a_killed_batch_goes_on_and_answers_every_case_once(home: Path, manifest: Path) -> None:
    first = batch(home, manifest)
    while len(lines_of(manifest)) < 2 and first.poll() is None:
        time.sleep(0.02)
    first.kill()
    first.communicate()
    before = len(lines_of(manifest))
    second = batch(home, manifest)
    out, _ = second.communicate(timeout=200)
    lines = lines_of(manifest)

    assert second.returncode == 0
    assert json.loads(out)["done before"] in {before, before - 1}
    assert {line["id"]: line["status"] for line in lines} == {
        f"case-{number}": "done" for number in range(CASES)
    }
    assert len(lines) == CASES
    assert all(line["result"]["degraded"] == [] for line in lines)
    engine = create_engine(f"sqlite:///{home / 'gsco.db'}")
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT id FROM diagnoses")).scalars().all()
    engine.dispose()
    assert len(stored) == CASES - 2


def test_the_same_function_is_mapped_over_rows(home: Path, manifest: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()[:2]]
    answering = Answering(home, manifest.parent)
    try:
        lines = list(map(answering, rows))
    finally:
        answering.close()

    assert [line["id"] for line in lines] == ["case-0", "case-1"]
    for line, row in zip(lines, rows, strict=True):
        image = decode((manifest.parent / row["image"]).read_bytes()).image
        assert line["status"] == "done"
        assert line["result"]["provenance"]["input_sha256"] == image.sha256
