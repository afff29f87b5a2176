"""Stories of those who hand specialists on, and of those who take them in."""

import errno
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specialists import loader
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist, SpecialistRefused, UnknownTask
from specialists.exchange import allowed, outgoing
from specialists.exchange.incoming import Added, add
from specialists.forward import forward
from specialists.loader import CARD, MANIFEST, WEIGHTS
from specialists.task import Task
from specialists.training.dataset import Dataset
from specialists.training.finetune import finetune

MARKERS = ("Muster", "mueller", "/home/", "radiology01", "19700101", "1.2.840")
"""Of a patient, a user, a path, a host, a date and a DICOM UID."""


@pytest.fixture
def theirs(tmp_path: Path, task: Task, new_specialist) -> Path:
    """A specialist of another house, as its folder."""
    new_specialist(tmp_path / "theirs" / "alexnet", task)
    return tmp_path / "theirs" / "alexnet"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def take(home: Path, task: Task) -> Callable[..., Added]:
    """Adds to a home that knows one task."""

    def find(name: str) -> Task:
        if name != task.name:
            raise UnknownTask(f"unknown task {name!r}")
        return task

    return lambda source, **options: add(source, home, find, **options)


def rewrite(folder: Path, **fields: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def reweigh(folder: Path, change: Callable[[dict[str, Any]], object], **options: Any) -> None:
    """Other weights, under a manifest that names their sha256."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, **options)
    rewrite(folder, weights_sha256=loader.sha256((folder / WEIGHTS).read_bytes()))


def answers(folder: Path, task: Task) -> tuple[np.ndarray, np.ndarray]:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    return forward(loader.load(folder, task), images)


def nothing_came_in(home: Path) -> bool:
    return not home.exists() or not list(home.rglob("*.*"))


@pytest.mark.parametrize("name", ["folder", "file.tar"])
def test_what_is_exported_and_added_answers_the_same(
    theirs: Path, home: Path, task: Task, tmp_path: Path, take, name: str
) -> None:
    outgoing.export(theirs, tmp_path / "out" / name)
    added = take(tmp_path / "out" / name)

    assert added.folder == home / "light" / "alexnet"
    assert not added.replaced
    for mine, same in zip(answers(theirs, task), answers(added.folder, task), strict=True):
        np.testing.assert_array_equal(mine, same)
    assert sorted(path.name for path in home.rglob("*")) == sorted(
        ["light", "alexnet", CARD, MANIFEST, WEIGHTS]
    )


def test_weights_are_added_with_a_manifest_beside_them(
    theirs: Path, home: Path, tmp_path: Path, take
) -> None:
    shutil.copy(theirs / WEIGHTS, tmp_path / "mine.safetensors")

    take(tmp_path / "mine.safetensors", manifest=theirs / MANIFEST)

    assert (home / "light" / "alexnet" / WEIGHTS).read_bytes() == (theirs / WEIGHTS).read_bytes()


def test_an_export_names_nobody(theirs: Path, tmp_path: Path) -> None:
    """Markers stand in every field that holds words, in the card and in the weights' metadata."""
    hidden = " ".join(MARKERS)
    tensors = load_file(theirs / WEIGHTS)
    save_file(tensors, theirs / WEIGHTS, metadata={"trained_by": hidden, "format": "pt"})
    rewrite(
        theirs,
        weights_sha256=loader.sha256((theirs / WEIGHTS).read_bytes()),
        licence=f"CC-BY-4.0 by Dr. Muster, {hidden}",
        data_fingerprint=hidden,
        recipe={
            "epochs": 3,
            "torch": "2.14.1+built.by.mueller.radiology01",
            "timm": hidden,
            "run": f"/home/mueller/{hidden}",
            "seed": hidden,
            "begun_from": "/home/mueller/Muster_19700101.safetensors",
            "data": hidden,
            "Muster": 1,
            "augmentation": {"shift": 0.1, "Muster": 2},
        },
        validation={"accuracy": 0.5, "accuracy of Muster": 0.1, "loss": 1.0},
    )
    (theirs / CARD).write_text(hidden)

    folder = outgoing.export(theirs, tmp_path / "folder")
    outgoing.export(theirs, tmp_path / "file.tar")

    written = [tmp_path / "folder" / name for name in (WEIGHTS, MANIFEST, CARD)]
    for path in (*written, tmp_path / "file.tar"):
        content = path.read_bytes().lower()
        assert [marker for marker in MARKERS if marker.lower().encode() in content] == []
    assert folder.manifest.recipe == {"epochs": 3, "torch": "2.14.1"}
    assert folder.manifest.validation == {"accuracy": 0.5, "loss": 1.0}
    assert folder.manifest.licence == "CC-BY-4.0"
    assert folder.manifest.data_fingerprint == ""


def test_all_that_training_writes_may_be_handed_on(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    """A field that training learns to write is listed in `allowed`, or left behind on purpose."""
    finetune(task, lights, ["alexnet"], Scale.NANO, tmp_path, epochs=1, licence="CC0-1.0")

    exported = outgoing.export(tmp_path / "alexnet", tmp_path / "out")

    assert exported.dropped == ()
    assert exported.manifest == loader.read_manifest(tmp_path / "alexnet")


def test_an_export_says_what_it_left_behind_without_saying_it(theirs: Path, tmp_path: Path) -> None:
    rewrite(theirs, recipe={"begun_from": "x.safetensors", "Muster": 1}, licence="ask Dr. Muster")

    exported = outgoing.export(theirs, tmp_path / "out")

    assert exported.dropped == ("recipe.begun_from", "a field of recipe", "licence")


def test_a_tar_file_has_no_owner_and_no_time(theirs: Path, tmp_path: Path) -> None:
    for name in ("one.tar", "other.tar"):
        outgoing.export(theirs, tmp_path / name)

    with tarfile.open(tmp_path / "one.tar") as tar:
        members = tar.getmembers()
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {
        (0, 0, "", "", 0)
    }
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_a_licence_in_ones_own_words_is_given_anew(theirs: Path, tmp_path: Path) -> None:
    exported = outgoing.export(theirs, tmp_path / "out", licence="for research, ask the authors")

    assert exported.manifest.licence == "for research, ask the authors"
    with pytest.raises(SpecialistRefused, match="holds an address"):
        outgoing.export(theirs, tmp_path / "other", licence="ask muster@example.org")


def test_an_export_never_replaces_anything(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_text("precious")

    with pytest.raises(SpecialistRefused, match="exists already"):
        outgoing.export(theirs, tmp_path / "mine.tar")
    assert (tmp_path / "mine.tar").read_text() == "precious"


def test_a_broken_specialist_is_not_handed_on(theirs: Path, tmp_path: Path) -> None:
    (theirs / WEIGHTS).write_bytes(b"rubbish")

    with pytest.raises(InvalidSpecialist):
        outgoing.export(theirs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_who_is_there_is_only_replaced_on_request(
    theirs: Path, home: Path, take, task: Task
) -> None:
    take(theirs)
    reweigh(theirs, lambda tensors: tensors["backbone.classifier.6.bias"].fill_(3))
    before = (home / "light" / "alexnet" / WEIGHTS).read_bytes()

    with pytest.raises(SpecialistRefused, match=r"has a specialist 'alexnet' already: --replace"):
        take(theirs)
    assert (home / "light" / "alexnet" / WEIGHTS).read_bytes() == before

    assert take(theirs, replace=True).replaced
    assert (home / "light" / "alexnet" / WEIGHTS).read_bytes() != before
    assert [path.name for path in (home / "light").iterdir()] == ["alexnet"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.update(hidden=torch.ones(9)), "no place for tensor 'hidden'"),
        (lambda tensors: tensors.pop("backbone.features.0.bias"),
         r"no tensor 'backbone\.features\.0\.bias'"),
        (lambda tensors: tensors["backbone.features.0.bias"].fill_(torch.nan), "not finite"),
        (lambda tensors: tensors["backbone.features.0.bias"].fill_(torch.inf), "not finite"),
        (lambda tensors: tensors.update({"backbone.features.0.bias": torch.ones(3)}),
         r"is \(3,\), not \(24,\)"),
        (lambda tensors: tensors.update(
            {"backbone.features.0.bias": torch.ones(24, dtype=torch.int64)}),
         r"holds torch\.int64, not torch\.float32"),
        (lambda tensors: [t.fill_(6e4) for t in tensors.values() if t.is_floating_point()],
         "answer with numbers that are not finite"),
    ],
)  # fmt: skip
def test_weights_that_are_not_as_promised_are_refused(
    theirs: Path, home: Path, take, change, reason: str
) -> None:
    reweigh(theirs, change)

    with pytest.raises(SpecialistRefused, match=reason):
        take(theirs)
    assert nothing_came_in(home)


def test_words_in_the_weights_are_refused(theirs: Path, home: Path, take) -> None:
    reweigh(theirs, lambda tensors: None, metadata={"patient": "Muster"})

    with pytest.raises(SpecialistRefused, match="words of its own"):
        take(theirs)
    assert nothing_came_in(home)


@pytest.mark.parametrize(
    "spoil",
    [lambda content: content[:-100], lambda content: content[:5], lambda _: b"\x80\x04K\x01."],
)
def test_half_written_weights_are_refused(theirs: Path, home: Path, take, spoil) -> None:
    content = spoil((theirs / WEIGHTS).read_bytes())
    (theirs / WEIGHTS).write_bytes(content)

    with pytest.raises(SpecialistRefused, match="sha256 differs"):
        take(theirs)
    rewrite(theirs, weights_sha256=loader.sha256(content))
    with pytest.raises(SpecialistRefused, match="damaged, or not in the safetensors format"):
        take(theirs)
    assert nothing_came_in(home)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weights_sha256": "0" * 64}, "sha256 differs"),
        ({"labels": ["bright", "dark"]}, "knows the labels bright, dark; task 'light' has dark"),
        ({"kind": "multi-label"}, "trained for the multi-label task"),
        ({"backbone": "vgg19"}, "unknown backbone 'vgg19'"),
        ({"backbone": "../../etc"}, "unknown backbone"),
        ({"scale": "huge"}, "cannot be read"),
        ({"format": 2}, "format 2"),
        ({"parameters": 5}, "promises 5 parameters"),
        ({"embedding_dimension": 5}, "promises embeddings of 5"),
        ({"patient": "Muster"}, "field 'patient' is not known here"),
        ({"recipe": {"data": "/data/scans"}}, "field recipe 'data' is not known"),
        ({"recipe": {"seed": "Muster"}}, "field recipe 'seed' does not hold"),
        ({"recipe": {"augmentation": {"Muster": 1}}}, "'augmentation' does not hold"),
        ({"validation": {"of Muster": 1.0}}, "field validation 'of Muster' is not known"),
        ({"validation": {"accuracy": "high"}}, "'accuracy' does not hold"),
        ({"licence": "see /home/mueller/licence"}, "licence holds a path"),
        ({"licence": "C:\\data\\licence"}, "licence holds a path"),
        ({"licence": "by MUSTER^ERIKA"}, "licence holds a person's name"),
        ({"licence": "study 1.2.840.113619.2"}, "licence holds a UID"),
        ({"licence": "from pacs.local"}, "licence holds an address"),
        ({"licence": "x" * 201}, "field 'licence' does not hold"),
        ({"temperature": 0}, "field 'temperature' does not hold"),
        ({"temperature": float("nan")}, "not a JSON object"),
        ({"data_fingerprint": "scans of Muster"}, "'data_fingerprint' does not hold"),
        ({"labels": ["a"] * 600}, "field 'labels' does not hold"),
        ({"recipe": {"x" * 70_000: 1}}, "larger than the 65536 bytes"),
    ],
)
def test_a_manifest_that_says_too_much_or_the_wrong_thing_is_refused(
    theirs: Path, home: Path, take, fields: dict[str, object], reason: str
) -> None:
    rewrite(theirs, **fields)

    with pytest.raises(SpecialistRefused, match=reason):
        take(theirs)
    assert nothing_came_in(home)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"task": "light", "task": "other"}', "[" * 50_000, "\x00\xff"]
)
def test_a_manifest_that_is_no_object_is_refused(theirs: Path, take, text: str) -> None:
    (theirs / MANIFEST).write_text(text)

    with pytest.raises(SpecialistRefused, match="not a JSON object"):
        take(theirs)


def test_a_missing_field_is_named(theirs: Path, take) -> None:
    document = json.loads((theirs / MANIFEST).read_text())
    del document["temperature"]
    (theirs / MANIFEST).write_text(json.dumps(document))

    with pytest.raises(SpecialistRefused, match="field 'temperature' is missing"):
        take(theirs)


def test_a_task_that_the_home_does_not_know_is_named(theirs: Path, home: Path, take) -> None:
    rewrite(theirs, task="colours")

    with pytest.raises(UnknownTask, match="unknown task 'colours'"):
        take(theirs)
    assert nothing_came_in(home)


def test_weights_larger_than_any_of_the_architecture_are_not_read(theirs: Path, take) -> None:
    with (theirs / WEIGHTS).open("ab") as file:
        file.truncate(2**31)  # a hole: it takes no disk

    with pytest.raises(SpecialistRefused, match="larger than the"):
        take(theirs)


def test_only_parcels_of_known_kinds_are_opened(theirs: Path, tmp_path: Path, take) -> None:
    pickled = tmp_path / "weights.pth"
    pickled.write_bytes(b"\x80\x04K\x01.")
    (theirs / "weights.pkl").write_bytes(b"\x80\x04K\x01.")

    with pytest.raises(SpecialistRefused, match="other formats may run code"):
        take(pickled)
    with pytest.raises(SpecialistRefused, match=r"holds 'weights\.pkl', too"):
        take(theirs)
    with pytest.raises(SpecialistRefused, match="nothing at"):
        take(tmp_path / "nowhere")
    with pytest.raises(SpecialistRefused, match="needs its manifest"):
        take(theirs / WEIGHTS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../../evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), (MANIFEST, tarfile.SYMTYPE)],
)
def test_a_tar_file_chooses_no_path(
    tmp_path: Path, home: Path, take, name: str, kind: bytes
) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry, io.BytesIO())

    with pytest.raises(SpecialistRefused, match="no place in it"):
        take(tmp_path / "evil.tar")
    assert nothing_came_in(home)


def test_a_damaged_tar_file_is_refused(tmp_path: Path, take) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)

    with pytest.raises(SpecialistRefused, match="damaged"):
        take(tmp_path / "bad.tar")


def test_a_full_disk_loses_nothing(
    theirs: Path, home: Path, take, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(theirs)
    before = (home / "light" / "alexnet" / WEIGHTS).read_bytes()
    reweigh(theirs, lambda tensors: tensors["backbone.classifier.6.bias"].fill_(3))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        take(theirs, replace=True)

    assert (home / "light" / "alexnet" / WEIGHTS).read_bytes() == before
    assert [path.name for path in (home / "light").iterdir()] == ["alexnet"]


def test_a_rename_that_fails_puts_the_old_one_back(
    theirs: Path, home: Path, take, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(theirs)
    rename, before = Path.rename, (home / "light" / "alexnet" / MANIFEST).read_bytes()

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".writing-") and self.name == "alexnet":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(OSError, match="Input/output"):
        take(theirs, replace=True)

    assert (home / "light" / "alexnet" / MANIFEST).read_bytes() == before


def test_a_specialist_is_removed_even_when_broken(theirs: Path) -> None:
    (theirs / MANIFEST).write_text("{")

    outgoing.remove(theirs)

    assert list(theirs.parent.iterdir()) == []
    with pytest.raises(InvalidSpecialist, match="no specialist 'alexnet' on task 'theirs'"):
        outgoing.remove(theirs)


@pytest.mark.parametrize(
    "text", ["not stated", "CC0-1.0: synthetic images", "MIT/Apache-2.0", "BSD-3-Clause",
             "as the training data allows; not stated", "RadImageNet's terms of use"],
)  # fmt: skip
def test_usual_licences_name_nobody(text: str) -> None:
    assert allowed.telling(text) is None


def test_an_exported_manifest_is_one_that_is_taken_in(theirs: Path, tmp_path: Path) -> None:
    exported = outgoing.export(theirs, tmp_path / "out").manifest

    assert allowed.read((tmp_path / "out" / MANIFEST).read_bytes()) == replace(exported)
