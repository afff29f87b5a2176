"""`make pacs-demo`, as it is run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "orthanc" / "demo.py"


@pytest.mark.pacs
@pytest.mark.slow
def test_a_radiograph_comes_back_with_report_and_heat_map_within_a_minute(tmp_path: Path) -> None:
    began = time.monotonic()

    shown = run(tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert time.monotonic() - began < 60
    assert "Imaging Measurement Report" in shown.stdout
    assert 'CONTAINER:(,,"Measurement Group")' in shown.stdout
    series = shown.stdout.split("Series of the study, now:")[1]
    assert [line.split()[0] for line in series.strip().splitlines()] == ["DX", "SR", "OT"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    shown = run(tmp_path, PACS_DEMO_TOOLS=str(tmp_path))

    assert shown.returncode == 2
    assert "Orthanc is missing. It needs Orthanc" in shown.stderr
    assert "apt-get install" in shown.stderr


def run(home: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"GSCO_HOME": str(home / "home"), **more}
    command = [sys.executable, str(DEMO)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
