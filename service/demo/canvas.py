"""Drawing tools of the phantoms: soft shapes, strokes and noise in coordinates free of pixels.

Everything is placed in half image widths, x to the right and y downwards, the origin at the
centre, so that one seed is the same patient at every size and field of view.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# (size, size) float32, or (size, size, 3) where a function says so. The stubs of numpy widen
# float32 to float64 in most expressions, though numpy does not; hence Any.
Plane = NDArray[Any]
Point = tuple[float, float]  # x, y in half image widths
Colour = tuple[float, float, float]  # red, green, blue, each 0 to 1


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the detector."""

    angle: float = 0.0  # radians, clockwise
    shift: Point = (0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True)
class Stroke:
    """A line through points, `width` in half image widths."""

    points: Sequence[Point]
    width: float


@dataclass(frozen=True, eq=False)
class Canvas:
    """The pixel grid seen from the patient: `x` and `y` are (size, size) patient coordinates."""

    size: int
    field_of_view: float = 1.0
    pose: Pose = Pose()

    @cached_property
    def x(self) -> Plane:
        return self._turned[0]

    @cached_property
    def y(self) -> Plane:
        return self._turned[1]

    @cached_property
    def _turned(self) -> tuple[Plane, Plane]:
        across = self.ruler[None, :] - self.pose.shift[0]
        down = self.ruler[:, None] - self.pose.shift[1]
        cos, sin = math.cos(self.pose.angle), math.sin(self.pose.angle)
        scale = self.pose.scale
        return (cos * across + sin * down) / scale, (cos * down - sin * across) / scale

    @cached_property
    def ruler(self) -> Plane:
        """(size,) detector coordinates of the pixel centres along one edge."""
        centres = (np.arange(self.size, dtype=np.float32) + 0.5) * (2 / self.size) - 1
        return centres * self.field_of_view

    def radius(self, centre: Point) -> Plane:
        """Distance of every pixel from a patient point."""
        return np.hypot(self.x - centre[0], self.y - centre[1])

    def strokes(self, strokes: Iterable[Stroke]) -> Plane:
        """(size, size) coverage, 0 to 1, of anti-aliased lines."""
        zoom = 4 if self.size <= 256 else 2
        sheet = Image.new("L", (self.size * zoom, self.size * zoom))
        pen = ImageDraw.Draw(sheet)
        unit = self.size * zoom * self.pose.scale / self.field_of_view / 2
        for stroke in strokes:
            width = stroke.width * unit
            # A line thinner than the pen can draw is drawn fainter instead.
            ink = round(255 * min(1.0, width))
            pen.line(self._on_paper(stroke.points, zoom), fill=ink, width=max(1, round(width)))
        return np.asarray(sheet.reduce(zoom), dtype=np.float32) / 255

    def _on_paper(self, points: Sequence[Point], zoom: int) -> list[Point]:
        cos, sin = math.cos(self.pose.angle), math.sin(self.pose.angle)
        scale, (right, down) = self.pose.scale, self.pose.shift
        half = self.size * zoom / 2
        view = self.field_of_view
        return [
            (
                ((cos * x - sin * y) * scale + right) / view * half + half,
                ((sin * x + cos * y) * scale + down) / view * half + half,
            )
            for x, y in points
        ]

    def clouds(self, rng: np.random.Generator, *cells: int) -> Plane:
        """Smooth noise of about unit spread, one octave for every number of cells across."""
        total = self._cloud(rng, cells[0])
        for count in cells[1:]:
            total = total + self._cloud(rng, count)
        return total / math.sqrt(len(cells))

    def _cloud(self, rng: np.random.Generator, cells: int) -> Plane:
        weights = _spline(self.size, self.field_of_view, cells)
        knots = rng.standard_normal((weights.shape[1], weights.shape[1]), dtype=np.float32)
        # The spline averages neighbouring knots, which leaves about half of their spread.
        return 2.08 * (weights @ knots @ weights.T)


def soft_step(distance: Plane, softness: float) -> Plane:
    """0 well below zero, 1 well above, over about four times `softness`."""
    return 0.5 + 0.5 * np.tanh(distance * (0.5 / softness))


def bump(distance: Plane, width: float) -> Plane:
    """A Gaussian of height 1 around distance 0."""
    return np.exp(np.square(distance) * (-0.5 / width**2))


def mix(picture: Plane, colour: Colour, amount: Plane) -> Plane:
    """A colour picture (size, size, 3) with `colour` laid over it where `amount` is 1."""
    paint = np.asarray(colour, dtype=np.float32)
    return picture + amount[..., None] * (paint - picture)


def blurred(picture: Plane, width: float) -> Plane:
    """Gaussian blur of a plane; `width` is the standard deviation in pixels."""
    if width < 0.05:
        return picture
    kernel = _gaussian(picture.shape[0], round(width * 20) / 20)
    return kernel @ picture @ kernel.T


@lru_cache(maxsize=64)
def _spline(size: int, field_of_view: float, cells: int) -> Plane:
    """(size, knots) cubic B-spline weights: an upsampling that is two matrix products."""
    margin = max(1.0, field_of_view)
    position = ((np.arange(size) + 0.5) * (2 / size) - 1) * field_of_view
    place = (position + margin) / 2 * cells
    first = np.floor(place).astype(int)
    part = place - first
    weights = np.zeros((size, math.ceil(margin * cells) + 4), dtype=np.float32)
    pieces = (
        (1 - part) ** 3,
        3 * part**3 - 6 * part**2 + 4,
        -3 * part**3 + 3 * part**2 + 3 * part + 1,
        part**3,
    )
    for offset, piece in enumerate(pieces):
        weights[np.arange(size), first + offset] = piece / 6
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=64)
def _gaussian(size: int, width: float) -> Plane:
    """(size, size) rows of a Gaussian, each summing to 1 so that the border is not darkened."""
    pixel = np.arange(size, dtype=np.float32)
    rows = bump(pixel[:, None] - pixel[None, :], width)
    rows /= rows.sum(axis=1, keepdims=True)
    rows.setflags(write=False)
    return rows
