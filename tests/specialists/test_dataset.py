from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training import dataset
from specialists.training.dataset import Dataset

Arrays = dict[str, np.ndarray]


@pytest.fixture
def write(tmp_path: Path, new_arrays: Callable[..., Arrays]) -> Callable[..., Path]:
    """Writes a MedMNIST file, with some arrays replaced, or left out where None."""

    def write(**changes: np.ndarray | None) -> Path:
        arrays = {**new_arrays(), **changes}
        path = tmp_path / "lights.npz"
        np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of images, {train,test}/{dark,bright}/*.png, five each."""
    for split in ("train", "test"):
        for label, level in (("dark", 60), ("bright", 190)):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(5):
                Image.new("L", (20, 10), level + number).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_grey_images_are_given_as_rgb(lights: Dataset) -> None:
    train = lights.split("train")

    assert len(train) == len(train.images) == 24
    assert train.images[0].shape == (16, 16, 3)
    assert train.targets.tolist()[:4] == [0, 1, 0, 1]
    assert train.ids[3] == "train/3"
    assert train.groups[3] is None


def test_an_index_beside_the_file_tells_the_groups(write, task: Task) -> None:
    path = write()
    path.with_name("index.csv").write_text("split,row,group\ntrain,0,ann\ntest,1,bob\n")

    lights = dataset.read(path, task)

    assert lights.split("train").groups[:2] == ("ann", None)
    assert lights.split("test").groups[:2] == (None, "bob")


def test_several_labels_are_read_as_marks(write, new_task) -> None:
    several = new_task(kind="multi-label", labels=["a", "b", "c"])
    marks = {f"{s}_labels": np.eye(3, dtype=np.uint8)[np.arange(8) % 3] for s in ("val", "test")}
    path = write(**marks, train_labels=np.ones((24, 3), np.uint8))

    targets = dataset.read(path, several).split("test").targets

    assert targets.shape == (8, 3)
    assert targets[1].tolist() == [0, 1, 0]


def test_a_missing_validation_split_is_a_tenth_of_training_and_always_the_same(
    write, task: Task
) -> None:
    path = write(val_images=None, val_labels=None)

    one, other = (dataset.read(path, task) for _ in range(2))

    assert (len(one.split("train")), len(one.split("val"))) == (22, 2)
    assert one.split("val").ids == other.split("val").ids
    assert not set(one.split("train").ids) & set(one.split("val").ids)


def test_patients_are_held_out_whole(write, task: Task) -> None:
    path = write(val_images=None, val_labels=None)
    rows = [f"train,{row},patient-{row // 4}" for row in range(24)]
    path.with_name("index.csv").write_text("\n".join(["split,row,group", *rows]))

    lights = dataset.read(path, task)

    assert len(set(lights.split("val").groups)) == 1
    assert not set(lights.split("train").groups) & set(lights.split("val").groups)


def test_a_folder_has_its_labels_in_its_names(pictures: Path, task: Task) -> None:
    test = dataset.read(pictures, task).split("test")

    assert test.ids[:2] == ("test/bright/0.png", "test/bright/1.png")
    assert test.targets.tolist() == [1] * 5 + [0] * 5
    assert test.images[1].shape == (10, 20, 3)
    assert test.images[1][0, 0].tolist() == [191] * 3


def test_an_index_names_image_label_and_group(pictures: Path, task: Task) -> None:
    (pictures / "index.csv").write_text(
        "split,image,label,group\n"
        "train,train/dark/0.png,dark,ann\n"
        "train,train/bright/0.png,bright,bob\n"
        "val,test/dark/0.png,dark,\n"
    )

    lights = dataset.read(pictures, task)

    assert lights.split("train").groups == ("ann", "bob")
    assert lights.split("val").groups == (None,)


def test_an_index_saved_by_a_spreadsheet_begins_with_a_mark(pictures: Path, task: Task) -> None:
    index = "split,image,label,group\ntrain,train/dark/0.png,dark,ann\nval,test/dark/0.png,dark,\n"
    (pictures / "index.csv").write_text(index, "utf-8-sig")
    assert dataset.read(pictures, task).split("train").groups == ("ann",)


def test_an_index_may_give_several_labels_or_none(pictures: Path, new_task) -> None:
    several = new_task(kind="multi-label", labels=["none", "b", "c"], nothing_found="none")
    (pictures / "index.csv").write_text(
        "split,image,label\ntrain,train/dark/0.png,b|c\nval,train/dark/1.png,\n"
    )

    lights = dataset.read(pictures, several)

    assert lights.split("train").targets.tolist() == [[0, 1, 1]]
    assert lights.split("val").targets.tolist() == [[1, 0, 0]]


def test_the_fingerprint_follows_the_content(write, task: Task, new_arrays) -> None:
    same = [dataset.read(write(), task).fingerprint() for _ in range(2)]
    changed = new_arrays()["test_images"]
    changed[0, 0, 0] ^= 1

    other = dataset.read(write(test_images=changed), task).fingerprint()

    assert same[0] == same[1]
    assert other != same[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_labels": None}, "has no 'train_labels', only train_images"),
        ({"train_images": None, "train_labels": None}, "has no split 'train', only val, test"),
        ({"test_labels": np.full((8, 1), 2)}, "test_labels .* hold 2; task 'light' allows 0 to 1"),
        ({"test_labels": np.full((8, 1), -1)}, "hold -1"),
        ({"test_labels": np.full((8, 2), 1)}, r"shape \(8, 2\)"),
        ({"test_labels": np.full((8, 1), 0.5)}, "not whole numbers"),
        ({"test_labels": np.zeros((7, 1), int)}, "8 test_images but 7 labels"),
        ({"test_images": np.zeros((8, 16, 16, 16), np.uint8)}, "test_images .* not \\(N, H, W\\)"),
        ({"test_images": np.zeros((8, 16, 16), np.float32)}, "float32"),
        ({"test_images": np.array([None] * 8)}, "not a readable .npz file of plain arrays"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(
    write, task: Task, changes: dict[str, np.ndarray | None], reason: str
) -> None:
    with pytest.raises(InvalidDataset, match=reason):
        dataset.read(write(**changes), task)


@pytest.mark.parametrize("content", [b"PK\x03\x04 and then nothing", b"", b"\x80\x04K\x01."])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, task: Task, content: bytes) -> None:
    path = tmp_path / "lights.npz"
    path.write_bytes(content)

    with pytest.raises(InvalidDataset, match=r"lights\.npz is not a readable"):
        dataset.read(path, task)


def test_a_single_array_is_not_a_dataset(tmp_path: Path, task: Task) -> None:
    np.save(tmp_path / "lights.npy", np.zeros(3))

    with pytest.raises(InvalidDataset, match="not a readable"):
        dataset.read(tmp_path / "lights.npy", task)


def test_a_label_folder_that_the_task_does_not_know_is_named(pictures: Path, new_task) -> None:
    with pytest.raises(InvalidDataset, match="has the label 'dark'; task 'light' has dim, bright"):
        dataset.read(pictures, new_task(labels=["dim", "bright"]))


def test_a_damaged_image_is_named(pictures: Path, task: Task) -> None:
    (pictures / "test" / "dark" / "0.png").write_bytes(b"not an image")
    test = dataset.read(pictures, task).split("test")

    with pytest.raises(InvalidDataset, match=r"0\.png cannot be read as an image"):
        test.images[5]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("split,image\n", "lacks the columns label"),
        ("split,image,label\ndev,train/dark/0.png,dark\n", "split 'dev'"),
        ("split,image,label\ntrain,train/dark/9.png,dark\n", "not a file of the folder"),
        ("split,image,label\ntrain,../../secret.png,dark\n", "not a file of the folder"),
    ],
)
def test_a_wrong_index_is_refused(pictures: Path, task: Task, index: str, reason: str) -> None:
    (pictures / "index.csv").write_text(index)

    with pytest.raises(InvalidDataset, match=reason):
        dataset.read(pictures, task)


def test_an_empty_folder_and_no_folder_are_told_apart(tmp_path: Path, task: Task) -> None:
    with pytest.raises(InvalidDataset, match=r"no index\.csv and no images"):
        dataset.read(tmp_path, task)
    with pytest.raises(InvalidDataset, match="no dataset at"):
        dataset.read(tmp_path / "nowhere", task)


def test_specialists_do_not_learn_reports(lights: Dataset, tmp_path: Path, new_task) -> None:
    with pytest.raises(InvalidDataset, match="which specialists do not learn"):
        dataset.read(tmp_path / "lights.npz", new_task(kind="report", labels=[]))
