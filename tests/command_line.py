"""The command line, run in this process over a home folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Gsco = Callable[..., Outcome]


def over(home: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    """Runs `gsco` with these arguments and says how it ended."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main(["--home", str(home), *map(str, arguments)])
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return run
