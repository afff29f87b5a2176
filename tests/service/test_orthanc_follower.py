"""deploy/orthanc/follow.py: which of Orthanc's sentences are worth another attempt."""

import runpy
from http.client import IncompleteRead
from pathlib import Path

import pytest

FOLLOW = Path(__file__).parents[2] / "deploy" / "orthanc" / "follow.py"
STATUS = 'C-STORE SCU to AET "GSCO" has failed with DIMSE status 0x{}'


@pytest.mark.parametrize(
    ("details", "meaning"),
    [
        (STATUS.format("A900"), "refused"),
        (STATUS.format("C001"), "refused"),
        (STATUS.format("A700"), "busy"),
        (STATUS.format("0110"), "failed"),
        ('connecting to AET "GSCO": TCP Initialization Error: Connection refused', "busy"),
        ("No modality with symbolic name: gsco", "busy"),
        ("No storage presentation context was accepted", "refused"),
    ],
)
def test_what_gsco_refuses_is_not_sent_again(details: str, meaning: str) -> None:
    assert runpy.run_path(str(FOLLOW))["meaning"](details) == meaning


def test_the_cursor_is_kept(tmp_path: Path) -> None:
    follow, cursor = runpy.run_path(str(FOLLOW)), tmp_path / "cursor"

    assert follow["read"](cursor) == 0
    follow["keep"](cursor, 17)
    assert follow["read"](cursor) == 17


def test_an_orthanc_that_dies_while_it_answers_is_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []

    class Dying:
        def get(self, path: str) -> None:
            asked.append(path)
            if len(asked) == 3:
                raise KeyboardInterrupt
            raise (IncompleteRead(b"{"), ConnectionResetError())[len(asked) - 1]

    with pytest.raises(KeyboardInterrupt):
        runpy.run_path(str(FOLLOW))["follow"](Dying(), "gsco", tmp_path / "cursor", 0.01)

    assert asked == ["/changes?since=0&limit=100"] * 3
