"""Phantoms: the truth is the truth, a seed is a patient, and the files are what they claim."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from service.demo.phantoms import (
    CHEST_LABELS,
    DERMOSCOPY_LABELS,
    FINDINGS_LABELS,
    FUNDUS_LABELS,
    HOSPITAL_A,
    HOSPITAL_B,
    Phantom,
    draw,
    series,
    write_dicom,
    write_masks,
    write_npz,
    write_png,
)
from specialists.segmentation import masks

KINDS = {
    "chest": CHEST_LABELS,
    "findings": FINDINGS_LABELS,
    "dermoscopy": DERMOSCOPY_LABELS,
    "fundus": FUNDUS_LABELS,
}
EVERY_TRUTH = [(kind, label) for kind, labels in KINDS.items() for label in labels]
FINDINGS = ("pneumonia", "effusion", "nodule")


def difference(one: Phantom, other: Phantom) -> np.ndarray:
    return np.abs(one.pixels.astype(int) - other.pixels.astype(int))


@pytest.mark.parametrize(("kind", "label"), EVERY_TRUTH)
def test_a_phantom_is_an_8_bit_image_with_its_truth(kind: str, label: str) -> None:
    phantom = draw(kind, [label], seed=5, size=48)

    assert phantom.pixels.shape == ((48, 48) if kind in ("chest", "findings") else (48, 48, 3))
    assert phantom.pixels.dtype == np.uint8
    assert phantom.pixels.std() > 15
    assert (phantom.kind, phantom.labels, phantom.seed) == (kind, (label,), 5)


@pytest.mark.parametrize(("kind", "label"), EVERY_TRUTH)
def test_the_same_arguments_draw_the_same_phantom(kind: str, label: str) -> None:
    once, again = draw(kind, [label], seed=9), draw(kind, [label], seed=9)

    assert np.array_equal(once.pixels, again.pixels)
    assert once.report == again.report
    assert difference(once, draw(kind, [label], seed=10)).mean() > 2


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - this is what must not be touched

    draw("chest", ["nodule"], seed=1)

    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_one_seed_is_one_patient_so_a_nodule_changes_only_its_place() -> None:
    healthy, sick = (draw("chest", [label], seed=2, size=128) for label in ("normal", "nodule"))

    changed = difference(healthy, sick) > 8

    assert 0 < changed.mean() < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_an_effusion_whitens_the_side_that_the_report_names(seed: int) -> None:
    healthy, sick = (draw("chest", [label], seed, size=96) for label in ("normal", "effusion"))

    whiter = sick.pixels.astype(int) - healthy.pixels
    right, left = whiter[:, :48].sum(), whiter[:, 48:].sum()  # the image's left is the right side

    assert ("right pleural" in sick.report.lower()) == (right > left)


@pytest.mark.parametrize("seed", range(6))
def test_a_pneumonia_is_densest_on_the_side_that_the_report_names(seed: int) -> None:
    healthy, sick = (draw("chest", [label], seed, size=96) for label in ("normal", "pneumonia"))

    whiter = sick.pixels.astype(int) - healthy.pixels
    right, left = whiter[:, :48].sum(), whiter[:, 48:].sum()

    assert ("right" in sick.report.lower()) == (right > left)


@pytest.mark.parametrize(("kind", "label"), EVERY_TRUTH)
def test_another_scanner_changes_the_image_and_not_the_truth(kind: str, label: str) -> None:
    here = draw(kind, [label], seed=3, scanner=HOSPITAL_A)
    there = draw(kind, [label], seed=3, scanner=HOSPITAL_B)

    assert difference(here, there).mean() > 4
    assert (here.labels, here.report, here.seed) == (there.labels, there.report, there.seed)


def test_a_noisier_scanner_makes_noisier_images() -> None:
    quiet, loud = (replace(HOSPITAL_A, noise=noise) for noise in (0.0, 0.1))

    smooth, grainy = (draw("chest", ["normal"], 4, scanner=scanner) for scanner in (quiet, loud))

    assert np.diff(grainy.pixels.astype(int)).std() > 2 * np.diff(smooth.pixels.astype(int)).std()


def test_a_wider_field_of_view_shows_the_eye_smaller() -> None:
    wide = replace(HOSPITAL_A, field_of_view=1.4)

    near, far = draw("fundus", ["normal"], 1), draw("fundus", ["normal"], 1, scanner=wide)

    assert (far.pixels[..., 0] > 90).sum() < 0.7 * (near.pixels[..., 0] > 90).sum()


@pytest.mark.parametrize("kind", ["chest", "findings"])
def test_a_report_names_exactly_the_findings_that_were_drawn(kind: str) -> None:
    for phantom in series(kind, 60, seed=11, size=16):
        findings, impression = phantom.report.removeprefix("Findings: ").split(" Impression: ")
        named = {finding for finding in FINDINGS if finding in impression.lower()}

        assert named == set(phantom.labels) & set(FINDINGS)
        assert not {word for word in FINDINGS if word in findings.lower()} - named


def test_reports_vary_in_their_wording() -> None:
    reports = {draw("chest", ["normal"], seed, size=16).report for seed in range(40)}

    assert len(reports) > 10


@pytest.mark.parametrize("kind", ["dermoscopy", "fundus"])
def test_only_chests_come_with_a_report(kind: str) -> None:
    assert all(phantom.report == "" for phantom in series(kind, 3, seed=0, size=16))


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_starts_the_same_however_long_it_is(kind: str) -> None:
    short, long = list(series(kind, 4, 7, size=16)), list(series(kind, 9, 7, size=16))

    for one, other in zip(short, long, strict=False):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.labels == other.labels


def test_a_phantom_of_a_series_can_be_drawn_again_from_its_seed() -> None:
    *_, last = series("fundus", 5, seed=3, size=32)

    again = draw("fundus", last.labels, last.seed, size=32)

    assert np.array_equal(last.pixels, again.pixels)


@pytest.mark.parametrize("kind", ["chest", "dermoscopy", "fundus"])
def test_a_series_is_balanced(kind: str) -> None:
    labels = Counter(phantom.labels for phantom in series(kind, 24, seed=1, size=16))

    assert set(labels) == {(label,) for label in KINDS[kind]}
    assert len(set(labels.values())) == 1


def test_a_series_of_findings_mixes_none_one_and_several() -> None:
    truths = [phantom.labels for phantom in series("findings", 40, seed=1, size=16)]

    assert {len(truth) for truth in truths} == {1, 2, 3}
    assert sum(truth == ("no finding",) for truth in truths) == 12
    assert all(sum(finding in truth for truth in truths) == 16 for finding in FINDINGS)


def test_several_findings_keep_the_order_of_the_labels() -> None:
    phantom = draw("findings", ["nodule", "pneumonia"], seed=1, size=16)

    assert phantom.labels == ("pneumonia", "nodule")


@pytest.mark.parametrize(
    ("kind", "labels", "size", "sentence"),
    [
        ("ultrasound", ["normal"], 64, "no phantom kind 'ultrasound'"),
        ("chest", ["melanoma"], 64, "no label 'melanoma' in kind 'chest'"),
        ("chest", [], 64, "needs a label"),
        ("chest", ["nodule", "effusion"], 64, "exactly one label"),
        ("findings", ["no finding", "nodule"], 64, "excludes every other label"),
        ("chest", ["normal"], 15, "size must be 16 or more"),
    ],
)
def test_bad_arguments_are_named(kind: str, labels: list[str], size: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw(kind, labels, seed=0, size=size)


def test_a_series_refuses_bad_arguments_at_the_call() -> None:
    with pytest.raises(ValueError, match="count must be 0 or more"):
        series("chest", -1, seed=0)
    with pytest.raises(ValueError, match="no phantom kind"):
        series("ct", 1, seed=0)
    with pytest.raises(ValueError, match="seed -1 is negative"):
        series("chest", 1, seed=-1)


@pytest.mark.parametrize("kind", ["chest", "fundus"])
def test_a_png_holds_the_pixels(kind: str, tmp_path: Path) -> None:
    phantom = draw(kind, ["normal"], seed=1, size=33)

    write_png(phantom, tmp_path / "phantom.png")

    with Image.open(tmp_path / "phantom.png") as image:
        assert np.array_equal(np.asarray(image), phantom.pixels)


def test_a_failed_write_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path) -> None:
    phantom = draw("chest", ["normal"], seed=1)
    path = tmp_path / "phantom.png"
    write_png(phantom, path)
    before = path.read_bytes()

    with pytest.raises(OSError, match="cannot write mode F"):
        write_png(replace(phantom, pixels=phantom.pixels.astype(np.float32)), path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [64, 33])  # an odd number of bytes must be padded
def test_a_chest_is_a_digital_radiograph(size: int, tmp_path: Path) -> None:
    phantom = draw("chest", ["effusion"], seed=1, size=size)

    write_dicom(phantom, tmp_path / "chest.dcm")

    dataset = pydicom.dcmread(tmp_path / "chest.dcm")
    assert (dataset.Modality, dataset.SOPClassUID.name) == (
        "DX",
        "Digital X-Ray Image Storage - For Presentation",
    )
    assert dataset.PhotometricInterpretation == "MONOCHROME2"
    assert np.array_equal(dataset.pixel_array, phantom.pixels)


def test_monochrome1_stores_the_same_image_inverted(tmp_path: Path) -> None:
    phantom = draw("chest", ["normal"], seed=1)

    write_dicom(phantom, tmp_path / "chest.dcm", photometric="MONOCHROME1")

    dataset = pydicom.dcmread(tmp_path / "chest.dcm")
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    assert dataset.PresentationLUTShape == "INVERSE"
    assert np.array_equal(255 - dataset.pixel_array, phantom.pixels)


@pytest.mark.parametrize("kind", ["dermoscopy", "fundus"])
def test_a_colour_phantom_is_an_rgb_photograph(kind: str, tmp_path: Path) -> None:
    phantom = draw(kind, [KINDS[kind][0]], seed=1, size=33)

    write_dicom(phantom, tmp_path / "photo.dcm")

    dataset = pydicom.dcmread(tmp_path / "photo.dcm")
    assert dataset.SOPClassUID.name == "VL Photographic Image Storage"
    assert (dataset.PhotometricInterpretation, dataset.SamplesPerPixel) == ("RGB", 3)
    assert np.array_equal(dataset.pixel_array, phantom.pixels)


def test_a_dicom_file_has_fresh_uids_a_synthetic_patient_and_no_truth(tmp_path: Path) -> None:
    phantom = draw("chest", ["nodule"], seed=1)

    for name in ("one.dcm", "two.dcm"):
        write_dicom(phantom, tmp_path / name)

    one, two = pydicom.dcmread(tmp_path / "one.dcm"), pydicom.dcmread(tmp_path / "two.dcm")
    for level in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert one[level].value != two[level].value
    assert str(one.PatientName) == "Phantom^Synthetic"
    assert "nodule" not in str(one)


def test_dicom_refuses_a_photometric_interpretation_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in colour"):
        write_dicom(draw("fundus", ["normal"], 1), tmp_path / "x.dcm", photometric="MONOCHROME1")
    with pytest.raises(ValueError, match="'PALETTE COLOR' is neither"):
        write_dicom(draw("chest", ["normal"], 1), tmp_path / "x.dcm", photometric="PALETTE COLOR")


@pytest.mark.parametrize(
    ("kind", "image", "width"),
    [
        ("chest", (28, 28), 1),
        ("findings", (28, 28), 4),
        ("dermoscopy", (28, 28, 3), 1),
        ("fundus", (28, 28, 3), 1),
    ],
)
def test_an_npz_has_the_layout_of_medmnist(
    kind: str, image: tuple[int, ...], width: int, tmp_path: Path
) -> None:
    write_npz(kind, tmp_path / "set.npz", train=8, val=4, test=0, size=28)

    with np.load(tmp_path / "set.npz") as arrays:
        assert arrays["train_images"].shape == (8, *image)
        assert arrays["val_labels"].shape == (4, width)
        assert arrays["test_images"].shape == (0, *image)
        assert arrays["test_labels"].shape == (0, width)
        assert len(arrays) == 6
        assert {arrays[name].dtype for name in arrays} == {np.dtype(np.uint8)}


def test_npz_labels_are_indices_or_columns(tmp_path: Path) -> None:
    write_npz("chest", tmp_path / "one.npz", train=8, val=0, test=0, size=16)
    write_npz("findings", tmp_path / "many.npz", train=10, val=0, test=0, size=16)

    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "many.npz") as many:
        assert sorted(one["train_labels"][:, 0]) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert many["train_labels"].sum(axis=0).tolist() == [3, 4, 4, 4]


def test_the_splits_of_an_npz_share_no_patient(tmp_path: Path) -> None:
    write_npz("chest", tmp_path / "set.npz", train=12, val=12, test=12, size=16)

    with np.load(tmp_path / "set.npz") as arrays:
        every = [
            row.tobytes() for split in ("train", "val", "test") for row in arrays[f"{split}_images"]
        ]

    assert len(set(every)) == 36


def test_the_test_split_can_come_from_another_hospital(tmp_path: Path) -> None:
    for name, elsewhere in (("same", None), ("shift", HOSPITAL_B)):
        write_npz("chest", tmp_path / name, 2, 2, 4, size=32, test_scanner=elsewhere)

    with np.load(tmp_path / "same") as same, np.load(tmp_path / "shift") as shift:
        assert np.array_equal(same["train_images"], shift["train_images"])
        assert np.array_equal(same["test_labels"], shift["test_labels"])
        assert not np.array_equal(same["test_images"], shift["test_images"])


# -- masks --


def test_masks_lie_beside_their_images(tmp_path: Path) -> None:
    write_masks("chest", tmp_path / "masks", 4, 2, 2, size=64)

    read = masks.read(tmp_path / "masks")

    split = read.split("train")
    assert [len(read.split(name)) for name in ("train", "val", "test")] == [4, 2, 2]
    index = (tmp_path / "masks" / "index.csv").read_text().splitlines()
    labels = [row["label"] for row in csv.DictReader(index)]
    shown = [bool(mask.any()) for mask in split.masks()]
    assert shown == [label != "normal" for label in labels[:4]]
    assert split.images[0].shape == (64, 64, 3)


def test_dermoscopy_has_no_masks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of them is without a lesion"):
        write_masks("dermoscopy", tmp_path / "masks", 1, 1, 1, size=32)
