"""Cases on both sides: the same patient, the same image, or one that looks the same."""

import time
from collections.abc import Sequence
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from builders import a_picture
from PIL import Image

from service.demo import phantoms
from service.demo.tasks import demo_tasks
from service.evaluation import fingerprints as prints
from service.evaluation.fingerprints import Fingerprints, fingerprints, without_pixels
from service.evaluation.leakage import Leak, leakage
from specialists.prediction import Pixels


def taken(
    images: Sequence[Pixels], name: str, groups: Sequence[str | None] | None = None
) -> Fingerprints:
    ids = tuple(f"{name}/{place}" for place in range(len(images)))
    known = tuple(groups or [None] * len(images))
    return fingerprints(SimpleNamespace(images=images, groups=known, ids=ids))


def chests(count: int, seed: int) -> list[Pixels]:
    return [phantom.rgb for phantom in phantoms.series("chest", count, seed, size=128)]


def as_jpeg(pixels: Pixels) -> Pixels:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file))


def smaller(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((96, 96)))


def brighter(pixels: Pixels) -> Pixels:
    return (pixels * 0.9 + 20).astype(np.uint8)


def noisier(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


# -- what is found --


def test_a_patient_on_both_sides_is_found() -> None:
    test = taken(chests(3, seed=1), "test", ["anna", "bela", None])
    train = taken(chests(3, seed=2), "train", ["cleo", "anna", None])

    found = leakage(test, train)

    assert found.same_group == (Leak("test/0", "train/1"),)
    assert found.leaking == {"test/0"}


def test_an_image_on_both_sides_is_found_and_not_counted_twice() -> None:
    images = chests(4, seed=1)

    found = leakage(taken(images[:2], "test"), taken([images[3], images[0]], "train"))

    assert found.identical == (Leak("test/0", "train/1"),)
    assert found.nearly_identical == ()


@pytest.mark.parametrize("copied", [as_jpeg, smaller, brighter, noisier])
@pytest.mark.parametrize("kind", ["chest", "findings"])
def test_a_copy_is_found_whatever_was_done_to_it(kind: str, copied: object) -> None:
    images = [phantom.rgb for phantom in phantoms.series(kind, 12, seed=3, size=128)]

    found = leakage(taken([copied(image) for image in images], "test"), taken(images, "train"))  # type: ignore[operator]

    assert found.nearly_identical == tuple(Leak(f"test/{n}", f"train/{n}") for n in range(12))


def test_different_patients_are_told_apart_although_their_hashes_meet() -> None:
    for demo in demo_tasks():
        test, train = (
            taken([phantom.rgb for phantom in demo.series(count, seed)], name)
            for count, seed, name in ((30, 1, "test"), (90, 2, "train"))
        )
        assert leakage(test, train).is_clean, demo.task.name


def test_images_of_one_grey_look_like_nothing() -> None:
    dark, light = (np.full((32, 32, 3), grey, np.uint8) for grey in (0, 200))

    assert leakage(taken([dark], "test"), taken([light], "train")).is_clean


def test_reference_cases_known_by_name_only_are_compared_by_it() -> None:
    images = chests(3, seed=1)
    test = taken(images, "test", ["anna", None, None])
    known = without_pixels(("r1", "r2"), ("dora", "anna"), (test.sha256s[2], "other"))

    found = leakage(test, known, among="the reference cases")

    assert found.identical == (Leak("test/2", "r1"),)
    assert found.same_group == (Leak("test/0", "r2"),)


# -- what is said --


def test_leaks_are_told_with_their_counts_and_examples() -> None:
    images = chests(4, seed=1)
    test = taken([*images[:2], as_jpeg(images[2])], "test", ["anna", "bela", None])

    sentences = leakage(test, taken(images, "train", [None, "bela", None, None])).sentences()

    assert sentences == (
        "1 of 3 test cases share a group (patient or study) with train, such as test/1 (train/1).",
        "2 of 3 test cases have an image that is also in train, such as test/0 (train/0), "
        "test/1 (train/1).",
        "1 of 3 test cases have an image that looks the same as one in train, "
        "such as test/2 (train/2).",
        "The group of 1 of 3 test cases is unknown: only their images were compared.",
    )


def test_that_there_is_none_is_said_too() -> None:
    test, train = taken(chests(2, 1), "test", ["a", "b"]), taken(chests(3, 2), "train", "cde")

    assert leakage(test, train).sentences() == (
        "None of 2 test cases was found among the 3 of train.",
    )


# -- how it is found --


def test_a_difference_hash_says_where_it_gets_brighter_to_the_right() -> None:
    rising = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1)))

    assert int(prints.difference_hash(rising)).bit_count() == 64
    assert prints.difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


def test_every_image_is_reported_as_it_is_looked_at() -> None:
    seen: list[tuple[int, int]] = []
    images = [a_picture(seed=seed) for seed in range(3)]
    collection = SimpleNamespace(images=images, groups=(None,) * 3, ids=("a", "b", "c"))

    fingerprints(collection, lambda done, of: seen.append((done, of)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_600_cases_are_compared_with_5000_in_about_a_second() -> None:
    rng = np.random.default_rng(0)

    def many(count: int) -> Fingerprints:
        thumbnails = rng.normal(size=(count, 1024)).astype(np.float32)
        thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
        names = tuple(f"{count}/{place}" for place in range(count))
        hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
        return Fingerprints(names, (None,) * count, names, hashes, thumbnails)

    test, train = many(600), many(5000)
    begun = time.perf_counter()
    found = leakage(test, train)

    assert found.is_clean
    assert time.perf_counter() - begun < 5  # leaves room for a busy machine
