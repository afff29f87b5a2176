"""What another exposure, another posture or another scanner would have shown of the same patient.

The same function augments what the generalist trains on and simulates the domain shift under
which panels are asked (docs/decisions/0006-learning-to-trust.md). The demonstration's second
scanner is none of these draws: it stays unseen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]  # (n, height, width, 3)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How far each property of an acquisition strays; 0 leaves it alone. Sizes: of full scale."""

    shift: float = 0.07
    zoom: float = 0.12
    gamma: float = 0.3
    contrast: float = 0.25
    brightness: float = 0.08
    blur: float = 0.25  # how often
    noise: float = 0.04
    mirror: float = 0.5  # how often

    def scaled(self, strength: float, *, mirrored: bool) -> "Acquisition":
        """The same with all strays multiplied, and mirrored or not."""
        return Acquisition(
            shift=self.shift * strength,
            zoom=self.zoom * strength,
            gamma=self.gamma * strength,
            contrast=self.contrast * strength,
            brightness=self.brightness * strength,
            blur=min(1.0, self.blur * strength),
            noise=self.noise * strength,
            mirror=self.mirror if mirrored else 0.0,
        )


EVERYDAY = Acquisition()


def varied(pixels: Images, how: Acquisition, rng: np.random.Generator) -> Images:
    """One image (height, width, 3) as another acquisition would have it, in the same size."""
    moved = _moved(Image.fromarray(pixels), how, rng)
    if rng.random() < how.mirror:
        moved = moved.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < how.blur:
        moved = _softened(moved, rng.uniform(0.4, 0.85))
    return _exposed(np.asarray(moved, np.float32) / np.float32(255), how, rng)


def _moved(image: Image.Image, how: Acquisition, rng: np.random.Generator) -> Image.Image:
    """Zoomed around the centre and shifted; what lies outside is the border's colour, repeated."""
    width, height = image.size
    zoom = float(np.exp(rng.uniform(-how.zoom, how.zoom)))
    right, down = rng.uniform(-how.shift, how.shift, size=2) * (width, height)
    margin = round(max(width, height) * (how.shift + how.zoom)) + 1
    framed = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    left, top = (1 - zoom) * width / 2 + right + margin, (1 - zoom) * height / 2 + down + margin
    return Image.fromarray(framed).transform(
        (width, height),
        Image.Transform.AFFINE,
        (zoom, 0, float(left), 0, zoom, float(top)),
        Image.Resampling.BILINEAR,
    )


def _softened(image: Image.Image, share: float) -> Image.Image:
    fewer = tuple(max(8, round(share * side)) for side in image.size)
    small = image.resize(fewer, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _exposed(scene: NDArray[np.float32], how: Acquisition, rng: np.random.Generator) -> Images:
    toned = scene ** float(np.exp(rng.uniform(-how.gamma, how.gamma)))
    contrast = 1 + rng.uniform(-how.contrast, how.contrast)
    shown = (toned - 0.5) * contrast + 0.5 + rng.uniform(-how.brightness, how.brightness)
    grain = rng.standard_normal((*scene.shape[:2], 1), dtype=np.float32)
    noisy = shown + grain * np.float32(rng.uniform(0, how.noise))
    digits: Images = np.rint(noisy.clip(0, 1) * 255).astype(np.uint8)
    return digits
