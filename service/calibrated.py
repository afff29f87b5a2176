"""Calibrations of the home folder, applied to diagnoses as they are made."""

from pathlib import Path

from service import calibration
from service.calibration import Calibration
from service.domain import Diagnosis
from service.generalist import parser


class Calibrated:
    """Gives diagnoses their label sets. A calibration is read again when its file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, Calibration | None]] = {}

    def __call__(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with its label set, or as it was where no calibration fits it."""
        found = self._find(diagnosis.task)
        if found is None or found.does_not_fit(diagnosis.provenance):
            return diagnosis
        return calibration.applied(found, diagnosis, parser.is_close_call)

    def _find(self, task: str) -> Calibration | None:
        path = self._folder / f"{task}.json"
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        stamp, found = self._known.get(task, (-1, None))
        if stamp != changed:
            found = calibration.read(self._folder, task) if changed else None
            self._known[task] = (changed, found)
        return found
