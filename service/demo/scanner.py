"""The device that takes the picture: the same patient looks different in another hospital."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.demo.canvas import Colour, Plane, blurred


@dataclass(frozen=True)
class Scanner:
    """What a device does to an image; it never changes what the image shows."""

    name: str
    noise: float = 0.014  # standard deviation of a mid-grey pixel, of full scale
    contrast: float = 1.0  # around mid grey
    blur: float = 0.004  # standard deviation, of the image width
    field_of_view: float = 1.0  # above 1 the patient appears smaller
    gamma: float = 1.0  # above 1 darkens the middle tones
    tint: Colour = (1.0, 1.0, 1.0)  # white balance of a colour camera


HOSPITAL_A = Scanner("hospital A")
HOSPITAL_B = Scanner(
    "hospital B",
    noise=0.024,
    contrast=0.8,
    blur=0.007,
    field_of_view=1.1,
    gamma=0.88,
    tint=(0.96, 1.0, 1.05),
)


def acquire(scene: Plane, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The 8-bit image of a scene (size, size) or (size, size, 3) with values around 0 to 1."""
    exposed = _exposed(_blurred(scene, scanner), scanner, rng)
    if scene.ndim == 3:
        exposed = exposed * np.asarray(scanner.tint, dtype=np.float32)
    return _digitised(exposed + _noise(exposed, scanner, rng))


def _blurred(scene: Plane, scanner: Scanner) -> Plane:
    width = scanner.blur * scene.shape[0]
    if scene.ndim == 2:
        return blurred(scene, width)
    return np.stack([blurred(scene[..., band], width) for band in range(3)], axis=-1)


def _exposed(scene: Plane, scanner: Scanner, rng: np.random.Generator) -> Plane:
    """Exposure drifts from image to image, as it does in any department."""
    contrast = scanner.contrast * rng.uniform(0.9, 1.1)
    gamma = scanner.gamma * rng.uniform(0.88, 1.14)
    toned: Plane = np.clip(scene, 0, 1) ** np.float32(gamma)
    exposed: Plane = (toned - 0.5) * contrast + 0.5 + rng.uniform(-0.04, 0.04)
    return exposed


def _noise(scene: Plane, scanner: Scanner, rng: np.random.Generator) -> Plane:
    """Photon noise: the spread grows with the square root of the signal."""
    spread = scanner.noise * rng.uniform(0.8, 1.25)
    grain = rng.standard_normal(scene.shape, dtype=np.float32)
    signal: Plane = np.sqrt(np.clip(scene, 0.05, 1) * 2)
    noise: Plane = grain * spread * signal
    return noise


def _digitised(scene: Plane) -> NDArray[np.uint8]:
    digits: NDArray[np.uint8] = np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8)
    return digits
