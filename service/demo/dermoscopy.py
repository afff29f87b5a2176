"""Dermoscopic images of three pigmented lesions that share most of their features.

No single feature decides: each diagnosis only shifts the odds of border irregularity, colour
variegation, network, veil, cysts and fissures, as it does in people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.demo.canvas import (
    Canvas,
    Colour,
    Plane,
    Point,
    Pose,
    Stroke,
    blurred,
    mix,
    soft_step,
)

NEVUS, MELANOMA, KERATOSIS = "nevus", "melanoma", "seborrheic keratosis"
LABELS = (NEVUS, MELANOMA, KERATOSIS)

_VEIL: Colour = (0.36, 0.40, 0.50)
_BLACK: Colour = (0.13, 0.09, 0.09)
_SCAR: Colour = (0.86, 0.74, 0.70)
_CYST: Colour = (0.93, 0.86, 0.70)
_PLUG: Colour = (0.20, 0.12, 0.08)


@dataclass(frozen=True)
class Traits:
    """How strongly a lesion shows each feature; 0 is not at all."""

    irregularity: float  # spread of the border's radius
    softness: float  # width of the border
    variegation: float  # how far its browns differ
    asymmetry: float  # shift of the dark part from the centre
    network: float
    veil: float
    blotches: float
    regression: float
    fissures: float
    cysts: int
    plugs: int


def traits(label: str, rng: np.random.Generator) -> Traits:
    """Overlapping by design: the ranges of two lesions share about half of their width."""
    nevus, melanoma, keratosis = (label == name for name in LABELS)
    return Traits(
        irregularity=rng.uniform(0.05, 0.17) if melanoma else rng.uniform(0.02, 0.10),
        softness=rng.uniform(0.025, 0.06) if keratosis else rng.uniform(0.04, 0.11),
        variegation=rng.uniform(0.3, 0.9) if melanoma else rng.uniform(0.1, 0.55),
        asymmetry=rng.uniform(0.1, 0.7) if melanoma else rng.uniform(0.0, 0.4),
        network=rng.uniform(0.0, 0.35) if keratosis else rng.uniform(0.15, 0.9),
        veil=_sometimes(rng, 0.5 if melanoma else 0.12),
        blotches=_sometimes(rng, 0.6 if melanoma else 0.2),
        regression=_sometimes(rng, 0.4 if melanoma else 0.08),
        fissures=_sometimes(rng, 0.7 if keratosis else 0.05),
        cysts=_few(rng, 5.0 if keratosis else 0.6),
        plugs=_few(rng, 4.0 if keratosis else 1.2 if nevus else 2.0),
    )


def _sometimes(rng: np.random.Generator, odds: float) -> float:
    strength, chance = rng.uniform(0.25, 0.9), rng.random()
    return strength if chance < odds else 0.0


def _few(rng: np.random.Generator, mean: float) -> int:
    return int(rng.poisson(mean))


@dataclass(frozen=True, eq=False)
class Lesion:
    """One outline on one canvas."""

    canvas: Canvas
    centre: Point
    size: float
    waves: tuple[tuple[float, float], ...]  # height and phase of each harmonic of the border

    @cached_property
    def depth(self) -> Plane:
        """1 at the centre, 0 on the border, negative outside."""
        angle = np.arctan2(self.canvas.y - self.centre[1], self.canvas.x - self.centre[0])
        border = np.ones_like(angle)
        for order, (height, phase) in enumerate(self.waves, start=2):
            border = border + height * np.cos(order * angle + phase)
        return 1 - self.canvas.radius(self.centre) / (self.size * border)


def scene(
    label: str,
    body: np.random.Generator,
    found: np.random.Generator,
    size: int,
    field_of_view: float,
) -> Plane:
    """(size, size, 3) colours 0 to 1: skin and hair from `body`, the lesion from `found`."""
    canvas = Canvas(size, field_of_view, Pose(scale=body.uniform(0.85, 1.15)))
    picture = _skin(canvas, body)
    picture = _pigmented(picture, canvas, traits(label, found), found)
    return _through_the_lens(_hairy(picture, canvas, body), canvas, body)


def _skin(canvas: Canvas, rng: np.random.Generator) -> Plane:
    tone = rng.uniform(0, 1)
    light, dark = np.array([0.90, 0.72, 0.64]), np.array([0.70, 0.48, 0.38])
    colour = (light + tone * (dark - light) + rng.normal(0, 0.02, 3)).astype(np.float32)
    mottle = 1 + 0.03 * canvas.clouds(rng, 3, 8) + 0.02 * canvas.clouds(rng, 30)
    redness = np.clip(canvas.clouds(rng, 3) * 0.02, -0.03, 0.05)
    picture: Plane = mottle[..., None] * colour
    picture[..., 1] -= redness
    return picture


def _pigmented(picture: Plane, canvas: Canvas, seen: Traits, rng: np.random.Generator) -> Plane:
    lesion = _outlined(canvas, seen, rng)
    cover = soft_step(
        lesion.depth + 0.12 * seen.irregularity * canvas.clouds(rng, 9, 18), seen.softness
    )
    picture = mix(picture, _brown(rng), 0.88 * cover)
    picture = _variegated(picture, lesion, cover, seen, rng)
    picture = picture * (1 - cover * _structure(canvas, seen, rng))[..., None]
    picture = _patched(picture, canvas, cover, seen, rng)
    return _dotted(picture, lesion, seen, rng)


def _outlined(canvas: Canvas, seen: Traits, rng: np.random.Generator) -> Lesion:
    heights = rng.normal(0, seen.irregularity, 6) / np.sqrt(np.arange(1, 7))
    phases = rng.uniform(0, 2 * np.pi, 6)
    return Lesion(
        canvas,
        centre=(rng.normal(0, 0.08), rng.normal(0, 0.08)),
        size=rng.uniform(0.34, 0.68),
        waves=tuple(zip(heights.tolist(), phases.tolist(), strict=True)),
    )


def _brown(rng: np.random.Generator) -> Colour:
    shade = rng.uniform(0, 1)
    return (0.62 - 0.28 * shade, 0.42 - 0.22 * shade, 0.31 - 0.17 * shade)


def _variegated(
    picture: Plane, lesion: Lesion, cover: Plane, seen: Traits, rng: np.random.Generator
) -> Plane:
    """A darker part, more or less off centre, and islands of a second brown."""
    turn = rng.uniform(0, 2 * np.pi)
    aside = lesion.size * seen.asymmetry
    dark = (lesion.centre[0] + aside * math.cos(turn), lesion.centre[1] + aside * math.sin(turn))
    middle = soft_step(0.6 * lesion.size - lesion.canvas.radius(dark), 0.08)
    islands = soft_step(lesion.canvas.clouds(rng, 4, 8) - 0.3, 0.15)
    picture = mix(picture, _brown(rng), cover * middle * 0.6)
    return mix(picture, _brown(rng), cover * islands * seen.variegation)


def _structure(canvas: Canvas, seen: Traits, rng: np.random.Generator) -> Plane:
    """Share of light lost to the pigment network and to the fissures of a keratosis."""
    warp, bend = 0.035 * canvas.clouds(rng, 6), 0.035 * canvas.clouds(rng, 6)
    pitch = rng.uniform(48, 62)
    mesh = np.cos((canvas.x + warp) * pitch) * np.cos((canvas.y + bend) * pitch)
    uneven: Plane = np.clip(1 + seen.asymmetry * canvas.clouds(rng, 4), 0, 2)
    brain: Plane = 1 - np.minimum(1, np.abs(canvas.clouds(rng, 11)) * 3)
    lost: Plane = 0.17 * seen.network * uneven * (mesh > 0) + 0.32 * seen.fissures * brain
    return lost


def _patched(
    picture: Plane, canvas: Canvas, cover: Plane, seen: Traits, rng: np.random.Generator
) -> Plane:
    for colour, amount, level in (
        (_VEIL, seen.veil, 0.6),
        (_BLACK, seen.blotches, 0.9),
        (_SCAR, seen.regression, 0.9),
    ):
        region = soft_step(canvas.clouds(rng, 4, 8, 16) - level, 0.2)
        picture = mix(picture, colour, cover * region * amount)
    return picture


def _dotted(picture: Plane, lesion: Lesion, seen: Traits, rng: np.random.Generator) -> Plane:
    """Milia-like cysts are bright, comedo-like plugs and pigment globules dark."""
    for colour, count in ((_CYST, seen.cysts), (_PLUG, seen.plugs)):
        dots = np.zeros_like(lesion.depth)
        for _ in range(count):
            place = _inside(lesion, rng)
            wide = rng.uniform(0.018, 0.045)
            dots = np.maximum(dots, soft_step(wide - lesion.canvas.radius(place), 0.008))
        picture = mix(picture, colour, dots * 0.75)
    return picture


def _inside(lesion: Lesion, rng: np.random.Generator) -> Point:
    turn, away = rng.uniform(0, 2 * np.pi), lesion.size * 0.8 * math.sqrt(rng.random())
    return (
        lesion.centre[0] + away * math.cos(turn),
        lesion.centre[1] + away * math.sin(turn),
    )


def _hairy(picture: Plane, canvas: Canvas, rng: np.random.Generator) -> Plane:
    count = _few(rng, 4.0) if rng.random() < 0.6 else 0
    hairs = [_hair(rng) for _ in range(count)]
    if not hairs:
        return picture
    return mix(picture, (0.16, 0.11, 0.09), 0.8 * canvas.strokes(hairs))


def _hair(rng: np.random.Generator) -> Stroke:
    start, turn = rng.uniform(-1, 1, 2), rng.uniform(0, 2 * np.pi)
    steps = np.linspace(0, rng.uniform(0.5, 1.6), 8)
    bend = turn + rng.uniform(-0.8, 0.8) * steps
    xs, ys = start[0] + steps * np.cos(bend), start[1] + steps * np.sin(bend)
    return Stroke(list(zip(xs.tolist(), ys.tolist(), strict=True)), rng.uniform(0.009, 0.02))


def _through_the_lens(picture: Plane, canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Dark corners, a few gel bubbles, and the sharpness of the contact plate."""
    away = np.hypot(canvas.ruler[:, None], canvas.ruler[None, :])
    edge = rng.uniform(1.1, 1.7)
    light = (1 - 0.18 * away**2 * rng.random()) * soft_step(edge - away, 0.02)
    for _ in range(_few(rng, 0.7)):
        place = (rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9))
        ring = np.abs(canvas.radius(place) - rng.uniform(0.03, 0.08))
        light = light * (1 + 0.13 * soft_step(0.012 - ring, 0.005))
    soft = rng.uniform(0.002, 0.006) * canvas.size
    bands = [blurred(picture[..., band], soft) for band in range(3)]
    return np.stack(bands, axis=-1) * light[..., None]
