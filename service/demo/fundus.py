"""Colour fundus photographs: vessels, disc and cup, and the lesions of diabetic retinopathy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.demo.canvas import Canvas, Colour, Plane, Point, Pose, Stroke, bump, mix, soft_step

NORMAL, RETINOPATHY, GLAUCOMA = "normal", "diabetic retinopathy", "glaucoma"
LABELS = (NORMAL, RETINOPATHY, GLAUCOMA)

_BLOOD: Colour = (0.38, 0.07, 0.05)
_VEIN: Colour = (0.45, 0.10, 0.07)
_EXUDATE: Colour = (0.97, 0.88, 0.52)
_DISC: Colour = (0.96, 0.74, 0.48)
_CUP: Colour = (1.0, 0.93, 0.76)


@dataclass(frozen=True)
class Eye:
    """One eye; the disc lies on the nasal side, to the right in a right eye."""

    pose: Pose
    nasal: int  # sign of x on the nasal side
    disc: Point
    disc_size: Point
    colour: Colour
    pigment: float
    calibre: float  # of the vessels where they leave the disc

    @property
    def macula(self) -> Point:
        return (self.disc[0] - self.nasal * 0.62, self.disc[1] + 0.06)


@dataclass(frozen=True)
class Signs:
    """What there is to be seen, in a healthy eye too."""

    cup: float  # cup to disc ratio
    notch: float  # how far the cup is drawn out downwards
    haemorrhages: int
    microaneurysms: int
    exudates: int
    drusen: int


def scene(
    label: str,
    body: np.random.Generator,
    found: np.random.Generator,
    size: int,
    field_of_view: float,
) -> Plane:
    """(size, size, 3) colours 0 to 1: the eye from `body`, its signs from `found`."""
    eye = _eye(body)
    canvas = Canvas(size, field_of_view, eye.pose)
    signs = _signs(label, found)
    picture = _background(canvas, eye, body)
    picture = _disc(picture, canvas, eye, signs)
    picture = _vessels(picture, canvas, eye, body)
    picture = _lesions(picture, canvas, eye, signs, found)
    return _camera(picture, canvas, body)


def _eye(rng: np.random.Generator) -> Eye:
    nasal = 1 if rng.random() < 0.5 else -1
    warm = rng.uniform(0, 1)
    width = rng.uniform(0.15, 0.19)
    return Eye(
        pose=Pose(rng.normal(0, 0.06), (rng.normal(0, 0.03), rng.normal(0, 0.03))),
        nasal=nasal,
        disc=(nasal * rng.uniform(0.40, 0.52), rng.normal(0, 0.04)),
        disc_size=(width, width * rng.uniform(1.0, 1.18)),
        colour=(0.66 + 0.18 * warm, 0.27 + 0.14 * warm, 0.12 + 0.08 * warm),
        pigment=rng.uniform(0.02, 0.08),
        calibre=rng.uniform(0.026, 0.036),
    )


def _signs(label: str, rng: np.random.Generator) -> Signs:
    """Early disease is nearly normal, and normal eyes have drusen and large cups too."""
    glaucoma, sick = label == GLAUCOMA, label == RETINOPATHY
    stage = rng.random() if sick else 0.0
    return Signs(
        cup=rng.uniform(0.56, 0.86) if glaucoma else rng.uniform(0.25, 0.60),
        notch=rng.uniform(0.0, 0.35) if glaucoma else rng.uniform(0.0, 0.12),
        haemorrhages=int(rng.poisson(0.6 + 7 * stage)) if sick else int(rng.random() < 0.04),
        microaneurysms=int(rng.poisson(4 + 12 * stage)) if sick else int(rng.poisson(0.5)),
        exudates=int(rng.poisson(9 * stage)) if sick else 0,
        drusen=int(rng.poisson(2.5)) if rng.random() < 0.35 else 0,
    )


def _background(canvas: Canvas, eye: Eye, rng: np.random.Generator) -> Plane:
    shade = 1 + eye.pigment * canvas.clouds(rng, 4, 10) + 0.02 * canvas.clouds(rng, 26)
    fovea = canvas.radius(eye.macula)
    shade = shade * (1 - 0.30 * bump(fovea, 0.13)) * (1 - 0.10 * np.square(canvas.radius((0, 0))))
    return shade[..., None] * np.asarray(eye.colour, dtype=np.float32)


def _disc(picture: Plane, canvas: Canvas, eye: Eye, signs: Signs) -> Plane:
    across = (canvas.x - eye.disc[0]) / eye.disc_size[0]
    down = (canvas.y - eye.disc[1]) / eye.disc_size[1]
    whole = np.hypot(across, down)
    drawn_out = 1 + signs.notch * np.clip(down, 0, 1)
    cup = np.hypot(across + 0.08 * eye.nasal, down / drawn_out) / signs.cup
    picture = mix(picture, _DISC, 0.85 * soft_step(1 - whole, 0.06))
    return mix(picture, _CUP, 0.8 * soft_step(1 - cup, 0.08) * soft_step(1 - whole, 0.05))


def _vessels(picture: Plane, canvas: Canvas, eye: Eye, rng: np.random.Generator) -> Plane:
    """Four arcades with branches; each vein runs beside a thinner and brighter artery."""
    veins: list[Stroke] = []
    arteries: list[Stroke] = []
    for up in (-1, 1):
        for towards, bow in ((-1, 0.62), (1, 0.30)):
            veins += _arcade(eye, up, towards * eye.nasal, bow, eye.calibre, rng)
            arteries += _arcade(eye, up, towards * eye.nasal, bow - 0.1, eye.calibre * 0.7, rng)
    picture = mix(picture, (0.62, 0.20, 0.12), 0.75 * canvas.strokes(arteries))
    return mix(picture, _VEIN, 0.85 * canvas.strokes(veins))


def _arcade(
    eye: Eye, up: int, towards: int, bow: float, calibre: float, rng: np.random.Generator
) -> list[Stroke]:
    """A vessel that rises from the disc and arches over; it thins and branches on its way."""
    along = np.linspace(0, 1, 12)
    length = rng.uniform(1.2, 1.5) if towards != eye.nasal else rng.uniform(0.5, 0.7)
    height = bow * rng.uniform(0.85, 1.15)
    wander = np.cumsum(rng.normal(0, 0.012, 12))
    xs = eye.disc[0] + towards * length * along**1.35
    ys = eye.disc[1] + up * height * np.sin(np.pi * 0.62 * along**0.75) + wander
    path = list(zip(xs.tolist(), ys.tolist(), strict=True))
    pieces = [
        Stroke(path[first : first + 3], calibre * (1 - 0.075 * first)) for first in range(0, 10, 2)
    ]
    return pieces + [_branch(path[at], up, towards, calibre * 0.5, rng) for at in (3, 5, 8)]


def _branch(
    start: Point, up: int, towards: int, calibre: float, rng: np.random.Generator
) -> Stroke:
    outwards = up if rng.random() < 0.75 else -up
    steps = np.linspace(0, rng.uniform(0.25, 0.45), 6)
    slope, bend = rng.uniform(0.2, 0.9), rng.uniform(-1.8, 1.8)
    xs = start[0] + towards * steps
    ys = start[1] + outwards * (slope * steps + bend * steps**2)
    return Stroke(list(zip(xs.tolist(), ys.tolist(), strict=True)), calibre)


def _lesions(
    picture: Plane, canvas: Canvas, eye: Eye, signs: Signs, rng: np.random.Generator
) -> Plane:
    focus = (eye.macula[0] + rng.normal(0, 0.2), eye.macula[1] + rng.normal(0, 0.2))
    pale = _spots(canvas, eye.macula, 0.25, signs.drusen, (0.012, 0.022), rng)
    hard = _spots(canvas, focus, 0.16, signs.exudates, (0.014, 0.034), rng)
    dots = _spots(canvas, (0.0, 0.0), 0.42, signs.microaneurysms, (0.012, 0.022), rng)
    blots = _spots(canvas, (0.0, 0.0), 0.42, signs.haemorrhages, (0.025, 0.065), rng)
    ragged = np.clip(blots * (1 + 0.35 * canvas.clouds(rng, 20)), 0, 1)
    picture = mix(picture, _EXUDATE, 0.40 * pale)
    picture = mix(picture, _BLOOD, 0.75 * np.maximum(dots, ragged))
    return mix(picture, _EXUDATE, 0.75 * hard)


def _spots(
    canvas: Canvas,
    centre: Point,
    spread: float,
    count: int,
    sizes: tuple[float, float],
    rng: np.random.Generator,
) -> Plane:
    total = np.zeros((canvas.size, canvas.size), dtype=np.float32)
    for _ in range(count):
        place = (rng.normal(centre[0], spread), rng.normal(centre[1], spread))
        wide = rng.uniform(*sizes)
        total = np.maximum(total, soft_step(wide - canvas.radius(place), 0.006))
    return total


def _camera(picture: Plane, canvas: Canvas, rng: np.random.Generator) -> Plane:
    """The round field of the camera, uneven light, and specks of dust on the lens."""
    away = np.hypot(canvas.ruler[:, None], canvas.ruler[None, :])
    lean = (rng.normal(0, 0.08), rng.normal(0, 0.08))
    light: Plane = 1 + lean[0] * canvas.ruler[None, :] + lean[1] * canvas.ruler[:, None]
    light = light * soft_step(0.95 - away, 0.008)
    dust = _spots(canvas, (0.0, 0.0), 0.5, int(rng.poisson(0.5)), (0.02, 0.04), rng)
    return picture * (light * (1 - 0.2 * dust))[..., None]
