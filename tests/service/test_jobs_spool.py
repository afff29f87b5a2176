"""Stories of cases that wait in the spool."""

import os
import shutil
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import a_case, a_multi_label_task, a_picture, a_report_task, an_image

from service.domain import Case
from service.errors import NotFound, Overloaded
from service.jobs.spool import Spool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Spool:
    spool = Spool(folder)
    spool.open()
    return spool


def a_full_case(pixels: np.ndarray | None = None) -> Case:
    image = an_image(pixels, notes=("frame 3 of 5",), media_type="application/dicom")
    return a_case(
        a_report_task(),
        image,
        id="6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
        group="pseudonym",
        consulted=a_multi_label_task(),
        draft="Left effusion – small.",
        question="Is it?",
        choices=("yes", "no"),
        modality="CR",
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_case_is_as_it_was(spool: Spool, channels: int) -> None:
    pixels = a_picture()
    case = a_full_case(np.repeat(pixels[..., :1], 3, axis=2) if channels == 1 else pixels)
    size = spool.put(case)
    again = spool.get(case.id)

    assert all(
        getattr(again, one.name) == getattr(case, one.name)
        for one in fields(Case)
        if one.name != "image"
    )
    assert again.image.pixels_sha256 == case.image.pixels_sha256
    assert (again.image.sha256, again.image.notes) == (case.image.sha256, case.image.notes)
    assert size - 32 * 32 * channels < 3000  # grey takes a third


@pytest.mark.parametrize("id", ["", "../out", "a/b", "x" * 65])
def test_an_id_that_is_no_file_name_is_refused(spool: Spool, id: str) -> None:
    with pytest.raises(ValueError, match="an id of letters"):
        spool.put(a_case(id=id))


def test_files_and_folder_are_for_nobody_else(spool: Spool, folder: Path) -> None:
    spool.put(a_full_case())

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_nothing_is_left_of_a_case_that_was_removed(spool: Spool, folder: Path) -> None:
    case = a_full_case()
    spool.put(case)
    spool.remove(case.id)
    spool.remove(case.id)

    assert [path.name for path in folder.iterdir()] == [".place"]
    with pytest.raises(NotFound, match="not in the spool any more"):
        spool.get(case.id)


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_is_as_good_as_none(spool: Spool, folder: Path, content: bytes) -> None:
    (folder / "case-1.case").write_bytes(content)

    with pytest.raises(NotFound):
        spool.get("case-1")


def test_a_full_disk_is_a_reason_to_come_again_and_leaves_nothing(
    spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Overloaded, match="No space left"):
        spool.put(a_full_case())

    assert [path.name for path in folder.iterdir()] == [".place"]


def test_a_full_disk_is_noticed_before_a_case_comes(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.check()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(Overloaded, match="the disk is full"):
        spool.check()


def test_all_who_share_a_folder_call_it_the_same(folder: Path, tmp_path: Path) -> None:
    assert Spool(folder).open() == Spool(folder).open()
    assert Spool(folder).open() != Spool(tmp_path / "other").open()


def test_what_a_crash_left_is_found_when_it_is_old(spool: Spool, folder: Path) -> None:
    old, young, half = (folder / name for name in ("old.case", "young.case", "half.part"))
    for path in (old, young, half):
        path.touch()
    for path in (old, half):
        os.utime(path, (time.time() - 7200,) * 2)
    spool.clear()

    assert spool.ids(old=True) == {"old"}
    assert spool.ids() == {"old", "young"}
    assert not half.exists()
    assert young.exists()
