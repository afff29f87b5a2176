"""Burned-in text: how much of what is printed on real images is found, and what is found in vain.

Text is printed on images enlarged to several sizes, in letters of several heights; the images
themselves are looked at as they are. Data: cxr_kermany, cxr_nih and busi (data/README of the
project's shared data); some ultrasound images of the latter have labels printed by their scanner.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.intake.burned_in import has_text

TEXT = "DOE JANE 1947-08-11"
SIZES = {512: (10, 14, 20, 28), 1024: (12, 16, 24, 36), 2688: (24, 32, 48, 72)}
PRINTED = 40


def main(data: Path, *, as_json: bool) -> None:
    rows = [*as_they_are(data), *printed_on(data)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def as_they_are(data: Path) -> Iterator[dict[str, object]]:
    """How many images of each data set are said to have text in them."""
    nih = np.load(data / "cxr_nih" / "cxr_nih_128.npz")
    grey = [*nih["train_images"], *nih["test_images"]]
    for name, images in (
        ("cxr_kermany", files(data / "cxr_kermany" / "images" / "test")),
        ("busi", files(data / "busi" / "images")),
        ("cxr_nih", (np.repeat(one[..., None], 3, axis=2) for one in grey)),
    ):
        found = [has_text(image) for image in images]
        yield {"images": name, "count": len(found), "with_text": sum(found)}


def printed_on(data: Path) -> Iterator[dict[str, object]]:
    """The share of images whose printed line is found, by size of image and of letter."""
    rng = np.random.default_rng(0)
    for name, folder in (("cxr_kermany", "images/test"), ("busi", "images")):
        images = list(islice(files(data / name / folder), 0, None, 15))[:PRINTED]
        for side, heights in SIZES.items():
            for height in heights:
                places = rng.integers(0, side - side // 3, (len(images), 2))
                found = [
                    has_text(printed(*one, side, height))
                    for one in zip(images, places, strict=True)
                ]
                share = round(sum(found) / len(found), 3)
                yield {"images": name, "side": side, "letters": height, "found": share}


def files(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.rglob("*.jpg")):
        if "mask" not in path.name:
            yield np.asarray(Image.open(path).convert("RGB"))


def printed(image: np.ndarray, place: np.ndarray, side: int, height: int) -> np.ndarray:
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    at = (int(place[0]) // 2, int(place[1]))
    ImageDraw.Draw(picture).text(at, TEXT, fill="white", font=ImageFont.load_default(height))
    return np.asarray(picture)
