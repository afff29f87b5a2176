"""`gsco phantoms`: synthetic images with known truth, as data sets and as files."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.demo import phantoms, tasks
from service.demo.phantoms import HOSPITAL_A, HOSPITAL_B
from service.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="Phantoms: synthetic images with known truth.")

TaskOption = Annotated[str, typer.Option("--task", help="A demo task, such as phantom-cxr.")]
SecondHospital = Annotated[
    bool, typer.Option("--second-hospital", help="As another scanner shows the same patients.")
]


@app.command()
def dataset(
    task: TaskOption,
    out: Annotated[Path, typer.Option(help="The .npz file to write, in MedMNIST's layout.")],
    train: Annotated[int, typer.Option(min=1)] = 3000,
    val: Annotated[int, typer.Option(min=1)] = 400,
    test: Annotated[int, typer.Option(min=1)] = 600,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    second_hospital: SecondHospital = False,
) -> None:
    """A labelled data set; with --second-hospital, its test split comes from another scanner."""
    kind = _find(task).kind
    scanner = HOSPITAL_B if second_hospital else None
    phantoms.write_npz(
        kind, out, train, val, test, seed=seed, size=tasks.SIZE, test_scanner=scanner
    )
    output.messages.print(f"wrote {out}")


@app.command()
def reports(
    out: Annotated[Path, typer.Option(help="The folder to write: images and an index.csv.")],
    train: Annotated[int, typer.Option(min=0)] = 0,
    test: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Chest phantoms with their reports, for `gsco evaluate --task phantom-cxr-report`."""
    phantoms.write_reports(out, train, test, seed=seed, size=tasks.SIZE)
    output.messages.print(f"wrote {out}")


@app.command()
def masks(
    task: TaskOption,
    out: Annotated[Path, typer.Option(help="The folder to write: images, masks, an index.csv.")],
    train: Annotated[int, typer.Option(min=1)] = 2000,
    val: Annotated[int, typer.Option(min=1)] = 300,
    test: Annotated[int, typer.Option(min=1)] = 600,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Phantoms with masks of their findings, for segmentation specialists."""
    kind = _find(task).kind
    try:
        phantoms.write_masks(kind, out, train, val, test, seed=seed, size=tasks.SIZE)
    except ValueError as error:
        raise Misconfigured(str(error)) from error
    output.messages.print(f"wrote {out}")


@app.command()
def image(
    task: TaskOption,
    label: Annotated[str, typer.Option(help="What it shows.")],
    out: Annotated[Path, typer.Option(help="A .png or .dcm file to write.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    second_hospital: SecondHospital = False,
) -> None:
    """One image, as PNG or DICOM by the ending of the file's name."""
    writers = {".png": phantoms.write_png, ".dcm": phantoms.write_dicom}
    if out.suffix not in writers:
        raise Misconfigured(f"{out.name!r} ends neither in .png nor in .dcm")
    demo = _find(task)
    if label not in demo.task.label_names:
        known = ", ".join(demo.task.label_names)
        raise Misconfigured(f"task {task!r} has no label {label!r}, only {known}")
    scanner = HOSPITAL_B if second_hospital else HOSPITAL_A
    writers[out.suffix](phantoms.draw(demo.kind, [label], seed, tasks.SIZE, scanner), out)
    output.messages.print(f"wrote {out}")


def _find(name: str) -> tasks.DemoTask:
    demos = {demo.task.name: demo for demo in tasks.demo_tasks()}
    if name not in demos:
        raise Misconfigured(f"no demo task {name!r}, only {', '.join(demos)}")
    return demos[name]
