"""Everything in docs/results/arbitration.md: `make bench ARGS="arbitration --data DIR --home DIR"`.

`--data` holds cxr_kermany/cxr_kermany_64.npz and busi/busi_128.npz; without it only the phantoms
are measured. What is there already (specialists, reference cases, evaluations) is not made again.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.demo import home as demo_home

GSCO = str(Path(sys.executable).with_name("gsco"))
EXAMPLES = Path("docs/examples/tasks")
SECOND = "second scanner"
ROWS = (
    "best single (validation)",
    "majority vote",
    "probability average",
    "neighbours' vote",
    "generalist alone",
    "GSCo",
)
RATES = {
    "uphold": "upheld",
    "misled": "misled",
    "self_correct": "self-corrected",
    "stubborn": "stubborn",
    "biased_panel_truth_named": "truth named against a biased panel",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One data set: the task, its file, how its specialists are trained, and its name in tables."""

    task: str
    file: Path
    training: tuple[str, ...]
    name: str


def main(data: Path | None, home: Path, out: Path | None) -> None:
    """Measure, and print or write the tables."""
    measured = [*_real(data), *_phantoms(home)]
    found = {one.name: _evaluated(one, home) for one in measured}
    text = "".join(_tables(found))
    if out is None:
        print(text)
    else:
        out.write_text(text, "utf-8")


def _real(data: Path | None) -> Iterator[Measured]:
    if data is not None:
        kermany = data / "cxr_kermany" / "cxr_kermany_64.npz"
        yield Measured("cxr-pneumonia", kermany, (), "cxr-pneumonia (shifted test set)")
        yield Measured("busi", data / "busi" / "busi_128.npz", (), "busi")


def _phantoms(home: Path) -> Iterator[Measured]:
    """The shipped specialists are those of this very training, which is then skipped."""
    training = ("--epochs", "14", "--patience", "14", "--augment", "0.4")
    for task in ("phantom-cxr", "phantom-derm"):
        file, second = home / f"{task}.npz", home / f"{task}-second.npz"
        _phantom_data(home, task, file, "--train", "4000", "--val", "400", "--test", "600")
        _phantom_data(home, task, second, "--train", "1", "--val", "1", "--second-hospital")
        if not (home / "specialists" / task).exists():
            shutil.copytree(demo_home.SHIPPED / task, home / "specialists" / task)
        yield Measured(task, file, training, task)
        yield Measured(task, second, (), f"{task}, {SECOND}")


def _phantom_data(home: Path, task: str, file: Path, *options: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        _gsco(home, "phantoms", "dataset", "--task", task, "--out", str(file), *options)


def _evaluated(one: Measured, home: Path) -> dict[str, Any]:
    kept = home / "evaluations" / f"{one.name.replace(' ', '-')}.json"
    if kept.exists():
        document: dict[str, Any] = json.loads(kept.read_text())
        return document
    where = ("--task", one.task, "--data", str(one.file))
    if SECOND not in one.name:
        _add_task(home, one.task)
        _gsco(home, "specialists", "finetune", *where, "--scale", "nano", *one.training)
        _gsco(home, "retrieval", "ingest", *where)
        _gsco(home, "retrieval", "build", "--task", one.task)
    answer = _gsco(home, "evaluate", *where, "--biased", "--json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(answer)
    return dict(json.loads(answer))


def _add_task(home: Path, task: str) -> None:
    shipped = Path(demo_home.__file__).with_name("task_files") / f"{task}.toml"
    source = shipped if shipped.exists() else EXAMPLES / f"{task}.toml"
    target = home / "tasks" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text("utf-8"), "utf-8")


def _gsco(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [GSCO, "--home", str(home), *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _tables(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| macro-F1 (95 %) | " + " | ".join(found) + " |\n|---|" + "--:|" * len(found) + "\n"
    for row in ROWS:
        yield f"| {row} | " + " | ".join(_score(one, row) for one in found.values()) + " |\n"
    yield "\n| GSCo less | " + " | ".join(found) + " |\n|---|" + "--:|" * len(found) + "\n"
    for row in ROWS[:-1]:
        yield f"| {row} | " + " | ".join(_less(one, row) for one in found.values()) + " |\n"
    yield "\n| arbitration | " + " | ".join(found) + " |\n|---|" + "--:|" * len(found) + "\n"
    for key, name in RATES.items():
        yield f"| {name} | " + " | ".join(_rate(one, key) for one in found.values()) + " |\n"


def _score(one: dict[str, Any], row: str) -> str:
    score = next((s for s in one["scores"] if s["system"] == row), None)
    if score is None:
        return "–"
    spread = score["macro_f1_interval"]
    return f"{score['macro_f1']:.3f} ({spread['low']:.3f}–{spread['high']:.3f})"


def _less(one: dict[str, Any], row: str) -> str:
    spread = one["macro_f1_of_gsco_less"].get(row)
    return f"{spread['low']:+.3f} to {spread['high']:+.3f}" if spread else "–"


def _rate(one: dict[str, Any], key: str) -> str:
    rate = one["arbitration"][key]
    share = "–" if rate["share"] is None else f"{rate['share']:.2f}"
    return f"{share} ({rate['numerator']}/{rate['denominator']})"
