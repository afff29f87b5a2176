"""What an image is recognised by: its exact pixels, a difference hash, and a thumbnail.

A 64-bit difference hash alone does not tell patients apart: of 400 test radiographs of Kermany et
al., 54 have exactly the hash of another image among 2500 for training. So two images are nearly
identical only where the hash (at most `NEAR_BITS` of 64 differ) AND the thumbnails (correlation of
32 × 32 grey levels at least `NEAR_CORRELATION`) agree. That finds copies with other brightness,
noise, size or compression; not those that were cropped, turned or mirrored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.domain import pixels_sha256
from service.evaluation.images import OnImage
from specialists.prediction import Pixels

NEAR_BITS = 6
NEAR_CORRELATION = 0.995
_HASH = (9, 8)  # width, height: each pixel is compared with its right neighbour
_THUMBNAIL = (32, 32)
_ROWS_AT_ONCE = 256


class Collection(Protocol):
    """Images in parallel with what is known of them, such as a Split or TextCases."""

    @property
    def images(self) -> Sequence[Pixels]: ...
    @property
    def groups(self) -> tuple[str | None, ...]: ...
    @property
    def ids(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Of the images of one collection; of an image all of one grey the thumbnail is 0."""

    ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    sha256s: tuple[str, ...]  # of the pixels
    hashes: NDArray[np.uint64]  # (images,)
    thumbnails: NDArray[np.float32]  # (images, 1024), mean 0 and length 1

    def __len__(self) -> int:
        return len(self.ids)


def fingerprints(collection: Collection, on_image: OnImage | None = None) -> Fingerprints:
    """One pass over the images; each is decoded once and not kept."""
    count = len(collection.ids)
    sha256s: list[str] = []
    hashes = np.zeros(count, dtype=np.uint64)
    thumbnails = np.zeros((count, _THUMBNAIL[0] * _THUMBNAIL[1]), dtype=np.float32)
    for place in range(count):
        pixels = collection.images[place]
        sha256s.append(pixels_sha256(pixels))
        grey = Image.fromarray(pixels).convert("L")
        hashes[place] = difference_hash(grey)
        thumbnails[place] = _thumbnail(grey)
        if on_image:
            on_image(place + 1, count)
    return Fingerprints(collection.ids, collection.groups, tuple(sha256s), hashes, thumbnails)


def without_pixels(
    ids: tuple[str, ...], groups: tuple[str | None, ...], sha256s: tuple[str, ...]
) -> Fingerprints:
    """Of images known by name only, as reference cases are: recognised where they are identical."""
    count, width = len(ids), _THUMBNAIL[0] * _THUMBNAIL[1]
    hashes, thumbnails = np.zeros(count, np.uint64), np.zeros((count, width), np.float32)
    return Fingerprints(ids, groups, sha256s, hashes, thumbnails)


def difference_hash(grey: Image.Image) -> np.uint64:
    """64 bits: whether the image gets brighter to the right, at 8 × 8 places."""
    small = np.asarray(grey.resize(_HASH, Image.Resampling.BOX))
    hashed: np.uint64 = np.packbits((small[:, 1:] > small[:, :-1]).ravel()).view(np.uint64)[0]
    return hashed


def nearly_identical(one: Fingerprints, other: Fingerprints) -> NDArray[np.int64]:
    """(pairs, 2): places in `one` and `other` of images that look the same."""
    found = [
        _near(one, other, first) + np.array([first, 0])
        for first in range(0, len(one), _ROWS_AT_ONCE)
    ]
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)


def _near(one: Fingerprints, other: Fingerprints, first: int) -> NDArray[np.int64]:
    rows = slice(first, first + _ROWS_AT_ONCE)
    bits = np.bitwise_count(one.hashes[rows, None] ^ other.hashes[None, :])
    correlation = one.thumbnails[rows] @ other.thumbnails.T
    return np.argwhere((bits <= NEAR_BITS) & (correlation >= NEAR_CORRELATION))


def _thumbnail(grey: Image.Image) -> NDArray[np.float32]:
    small = np.asarray(grey.resize(_THUMBNAIL, Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    length = np.linalg.norm(small)
    return np.asarray(small / length if length > 0 else small, dtype=np.float32)
