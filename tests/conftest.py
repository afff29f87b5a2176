"""Fixtures that several test folders share."""

import io
from pathlib import Path

import pytest
from builders import a_task, task_toml

from service import telemetry


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> None:
    """Logs as in production, to nowhere; the default takes seconds to draw a traceback."""
    telemetry.configure_logging("warning", stream=io.StringIO())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder that knows one task, cxr-pneumonia."""
    folder = tmp_path / "home"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(a_task()), "utf-8")
    return folder
