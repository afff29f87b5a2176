"""gsco as real peers find it: on a socket, with models that are fakes and everything else real."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from builders import a_task, task_toml
from databases import kept_in
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists, FakeStore
from listening import listening

from service.api.dependencies import Parts
from service.app import create_app
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.pipeline import Pipeline
from service.settings import Settings
from specialists.task import Rule

OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}
SMOOTH = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


@contextmanager
def gsco(home: Path, **settings: Any) -> Iterator[tuple[str, FakeStore]]:
    """The service's address and its store; everything but the models is real."""
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    panel, cases, generalist, store = (
        FakeSpecialists(),
        FakeRetriever(),
        FakeGeneralist(),
        FakeStore(),
    )
    pipeline = Pipeline(panel, cases, generalist, store)
    given = Settings(home=home, pseudonym_key="secret", **settings)
    with kept_in(home) as kept:
        parts = Parts(pipeline, panel, cases, generalist, store, Sandbox(Limits()), *kept)
        with listening(create_app(given, parts)) as url:
            yield url, store
