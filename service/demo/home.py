"""The home folder of the demonstration: shipped nano specialists, generated reference cases."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import Engine

from service import reference_cases
from service.demo import phantoms, tasks
from service.demo.tasks import DemoTask
from service.persistence import database
from service.reference_cases import Origin
from service.settings import Settings
from specialists import catalogue, loader

REFERENCE_CASES = 150
REFERENCE_SEED = 20261
EXAMPLES = 4
EXAMPLE_SEED = 77
SHIPPED = Path(__file__).parent / "specialists"
TRUNKS = "phantom-cxr"
"""The task whose specialists those of other tasks begin from."""
ORIGIN = Origin("phantom, hospital A", "CC0-1.0")

OnProgress = Callable[[str], None]


def prepare(settings: Settings, on_progress: OnProgress, only: str | None = None) -> None:
    """Everything `gsco demo` needs, made where it is missing; nothing of the user's is replaced.

    With `only`, what that task needs.
    """
    engine = database.open_engine(settings.database_url)
    try:
        database.upgrade(engine)
        for demo in tasks.demo_tasks():
            if only not in {None, demo.task.name}:
                continue
            on_progress(demo.task.name)
            _prepare_task(settings, engine, demo)
        for task in tasks.told_tasks() if only is None else ():
            _write_task(settings, task.name)
    finally:
        engine.dispose()


def trunks(task: str = "") -> dict[str, Path]:
    """Weights that a task's nano specialists begin from, by backbone; of `TRUNKS` itself none."""
    if task == TRUNKS:
        return {}
    files = (SHIPPED / TRUNKS / key / loader.WEIGHTS for key in catalogue.PANEL)
    return {file.parent.name: file for file in files if file.is_file()}


def _prepare_task(settings: Settings, engine: Engine, demo: DemoTask) -> None:
    name = demo.task.name
    _write_task(settings, name)
    copy_specialists(name, settings.specialists_folder)
    _write_examples(settings.examples_folder / name, demo)
    if not (settings.indexes_folder / name).is_dir():
        _fill_reference_cases(settings, engine, demo)


def _write_task(settings: Settings, name: str) -> None:
    target = settings.tasks_folder / f"{name}.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.write_text(tasks.toml(name), "utf-8")


def _write_examples(folder: Path, demo: DemoTask) -> None:
    """A few cases to try, none of them a reference case; chest phantoms as DICOM."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    write, ending = (phantoms.write_dicom, "dcm") if demo.is_chest else (phantoms.write_png, "png")
    for number, phantom in enumerate(demo.series(EXAMPLES, seed=EXAMPLE_SEED), 1):
        write(phantom, folder / f"{number}.{ending}")


def copy_specialists(task: str, specialists: Path) -> None:
    """The shipped specialists of a task, all or none, where the folder has none of that task."""
    if (specialists / task).exists():
        return
    specialists.mkdir(parents=True, exist_ok=True)
    staging = Path(mkdtemp(prefix=f".{task}-", dir=specialists))
    shutil.copytree(SHIPPED / task, staging, dirs_exist_ok=True)
    staging.chmod(0o755)
    staging.rename(specialists / task)


def _fill_reference_cases(settings: Settings, engine: Engine, demo: DemoTask) -> None:
    drawn = list(demo.series(REFERENCE_CASES, seed=REFERENCE_SEED))
    images = [phantom.rgb for phantom in drawn]
    cases = [
        replace(
            reference_cases.reference_case(demo.task, pixels, phantom.labels, ORIGIN, None),
            report=phantom.report,
        )
        for phantom, pixels in zip(drawn, images, strict=True)
    ]
    reference_cases.ingest(engine, settings.specialists_folder, demo.task, cases, images)
    reference_cases.build(engine, settings.specialists_folder, settings.indexes_folder, demo.task)
