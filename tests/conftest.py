"""Fixtures that several test folders share."""

from pathlib import Path

import pytest
from builders import a_task, task_toml


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder that knows one task, cxr-pneumonia."""
    folder = tmp_path / "home"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(a_task()), "utf-8")
    return folder
