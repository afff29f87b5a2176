"""Everything in docs/results/evaluation.md: `make bench ARGS="evaluation --data DIR --home DIR"`.

`--data` holds cxr_kermany/cxr_kermany_64.npz, busi/busi_128.npz and cxr_nih/cxr_nih_128.npz;
without it only the phantoms are measured. What is there already (specialists, reference cases,
evaluations) is not made again: where the shipped specialists have changed, take a new `--home`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.demo import home as demo_home

GSCO = str(Path(sys.executable).with_name("gsco"))
EXAMPLES = Path("docs/examples/tasks")
SECOND = "second scanner"
SYSTEMS = (
    "best single (validation)",
    "majority vote",
    "probability average",
    "stacked regression (validation)",
    "neighbours' vote",
    "generalist alone",
    "MoED only",
    "RAD only",
    "GSCo",
)
RATES = {
    "uphold": "upheld",
    "misled": "misled",
    "self_correct": "self-corrected",
    "stubborn": "stubborn",
}
DECEPTIONS = {
    "biased": "truth named against a panel of one wrong mind",
    "random": "truth named with random evidence",
    "contradictory": "truth named with contradictory evidence",
}
ABLATED_CASES = "300"
ABLATIONS = {
    "10 specialists, 10 neighbours": ("--k", "10"),
    "7 specialists": ("--leave-out", "3"),
    "4 specialists": ("--leave-out", "6"),
    "the best specialist": ("--leave-out", "9"),
    "1 neighbour": ("--k", "1"),
    "5 neighbours": ("--k", "5"),
    "20 neighbours": ("--k", "20"),
}

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One data set: the task, its file, and its name in tables."""

    name: str
    task: str
    file: Path
    borrows: bool = False  # the specialists of another row
    specialists_from: str = ""  # and its task, where that is another one


def main(data: Path | None, home: Path, out: Path | None) -> None:
    """Measure, and print or write the tables."""
    home.mkdir(parents=True, exist_ok=True)
    measured = [*_real(data), *_phantoms(home)]
    for one in measured:
        _prepare(one, home)
    found = {one.name: _evaluated(one, home) for one in measured}
    ablations = {
        one.name: {name: _evaluated(one, home, *options) for name, options in ABLATIONS.items()}
        for one in measured
        if not one.borrows
    }
    text = "".join((*_tables(found), *_ablations(ablations)))
    if out is None:
        print(text)
    else:
        out.write_text(text, "utf-8")


def _real(data: Path | None) -> Iterator[Measured]:
    if data is None:
        return
    kermany, nih = data / "cxr_kermany" / "cxr_kermany_64.npz", data / "cxr_nih" / "cxr_nih_128.npz"
    busi = data / "busi" / "busi_128.npz"
    yield Measured("cxr-pneumonia (shifted test set)", "cxr-pneumonia", kermany)
    yield Measured("busi", "busi", busi)
    elsewhere = "cxr-pneumonia at cxr-nih"
    yield Measured(elsewhere, "cxr-nih", nih, borrows=True, specialists_from="cxr-pneumonia")


def _phantoms(home: Path) -> Iterator[Measured]:
    """Phantoms cost nothing, so more of them are shown than real images."""
    counts = ("--train", "4000", "--val", "400", "--test", "1200")
    for task in ("phantom-cxr", "phantom-derm"):
        file, second = (home / f"{task}{name}.npz" for name in ("-shown", "-second"))
        _phantom_data(home, task, file, *counts)
        _phantom_data(home, task, second, *counts, "--second-hospital")
        yield Measured(task, task, file)
        yield Measured(f"{task}, {SECOND}", task, second, borrows=True)


def _phantom_data(home: Path, task: str, file: Path, *options: str) -> None:
    if not file.exists():
        _gsco(home, "phantoms", "dataset", "--task", task, "--out", str(file), *options)


def _prepare(one: Measured, home: Path) -> None:
    """Specialists and reference cases, where they belong to this data."""
    _add_task(home, one.task)
    if one.borrows:
        return
    where = ("--task", one.task, "--data", str(one.file))
    _specialists(home, one.task, where)
    if not (home / "indexes" / one.task).exists():
        _gsco(home, "retrieval", "ingest", *where)
        _gsco(home, "retrieval", "build", "--task", one.task)


def _specialists(home: Path, task: str, where: tuple[str, ...]) -> None:
    """The shipped ones, or else ten that learn from the train split."""
    if (demo_home.SHIPPED / task).exists():
        demo_home.copy_specialists(task, home / "specialists")
    else:
        _gsco(home, "specialists", "finetune", *where, "--scale", "nano")


def _evaluated(one: Measured, home: Path, *ablation: str) -> Found:
    """From the results folder; finished cases are not asked again."""
    out = home / "results" / "-".join((*one.name.replace(",", "").split(), *ablation))
    fewer = ("--systems", "", "--limit", ABLATED_CASES)
    more = fewer if ablation else ("--stress", ",".join(DECEPTIONS))
    if one.specialists_from:
        more = (*more, "--specialists-from", one.specialists_from)
    answer = _gsco(
        home, "evaluate", "--task", one.task, "--data", str(one.file), "--out", str(out), "--json",
        *more, *ablation,
    )  # fmt: skip
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


def _tables(found: Mapping[str, Found]) -> Iterator[str]:
    yield from _table("macro-F1 (95 %)", found, dict(zip(SYSTEMS, SYSTEMS, strict=True)), _score)
    yield "\n"
    yield from _table("GSCo less", found, {name: name for name in SYSTEMS[:-1]}, _less)
    yield "\n"
    yield from _table("p, corrected", found, {name: name for name in SYSTEMS[:-1]}, _p_value)
    yield "\n"
    yield from _table("arbitration", found, RATES, lambda one, key: _rate(one["arbitration"], key))
    yield "\n"
    yield from _table("deceived", found, DECEPTIONS, lambda one, key: _rate(one["deceived"], key))
    yield "\n"
    sides = {"easiest third": "easiest third", "hardest third": "hardest third"}
    yield from _table("GSCo's gain in accuracy over the generalist alone", found, sides, _gain)


def _ablations(ablations: Mapping[str, dict[str, Found]]) -> Iterator[str]:
    yield "\n| macro-F1 of GSCo with | " + " | ".join(ablations) + " |\n"
    yield "|---|" + "--:|" * len(ablations) + "\n"
    for option in ABLATIONS:
        row = [_score(one[option], "GSCo") for one in ablations.values()]
        yield f"| {option} | " + " | ".join(row) + " |\n"


def _table(
    head: str,
    found: Mapping[str, Found],
    rows: Mapping[str, str],
    cell: Callable[[Found, str], str],
) -> Iterator[str]:
    yield f"| {head} | " + " | ".join(found) + " |\n|---|" + "--:|" * len(found) + "\n"
    for key, name in rows.items():
        yield f"| {name} | " + " | ".join(cell(one, key) for one in found.values()) + " |\n"


def _score(one: Found, row: str) -> str:
    score = next((s for s in one["scores"] if s["system"] == row), None)
    if score is None:
        return "–"
    spread = score["macro_f1_interval"]
    return f"{score['macro_f1']:.3f} ({spread['low']:.3f}–{spread['high']:.3f})"


def _less(one: Found, row: str) -> str:
    less = one["gsco_less"].get(row)
    if not less:
        return "–"
    return f"{less['macro_f1']['low']:+.3f} to {less['macro_f1']['high']:+.3f}"


def _p_value(one: Found, row: str) -> str:
    less = one["gsco_less"].get(row)
    return f"{less['p_value']:.3f}" if less else "–"


def _rate(rates: Found, key: str) -> str:
    rate = rates.get(key)
    if not rate or rate["share"] is None:
        return "–"
    return f"{rate['share']:.2f} ({rate['numerator']}/{rate['denominator']})"


def _gain(one: Found, stratum: str) -> str:
    gain = next(
        (g for g in one["strata"] if g["stratum"] == stratum and g["system"] == "GSCo"), None
    )
    if gain is None:
        return "–"
    return (
        f"{gain['gain']:+.3f} ({gain['interval']['low']:+.3f} to {gain['interval']['high']:+.3f})"
    )
