"""A frontal chest radiograph without findings: proportions of a patient, and their shadow.

The image is read as radiographs are: its left is the patient's right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.demo.canvas import Canvas, Plane, Point, Pose, Stroke, bump, soft_step

RIGHT, LEFT = -1, 1  # the patient's side, as the sign of x
SIDES = (RIGHT, LEFT)
MM_PER_UNIT = 180  # half of a 36 cm detector


@dataclass(frozen=True)
class Patient:
    """Proportions in half image widths; y grows towards the feet."""

    pose: Pose
    apex: float
    base_right: float
    base_left: float
    outer_right: float  # from the midline to the lateral chest wall
    outer_left: float
    dome: float  # height of the diaphragm's dome
    heart: Point
    heart_size: Point
    rib_spacing: float
    rib_phase: float
    rib_contrast: float
    aeration: float  # how dark the lungs are
    breasts: float
    leads: bool

    def base(self, side: int) -> float:
        return self.base_right if side == RIGHT else self.base_left

    def outer(self, side: int) -> float:
        return self.outer_right if side == RIGHT else self.outer_left


def patient(rng: np.random.Generator) -> Patient:
    """One of endlessly many healthy people, with the usual asymmetries."""
    base = rng.uniform(0.46, 0.66)
    outer = rng.uniform(0.66, 0.80)
    return Patient(
        pose=Pose(
            angle=rng.normal(0, 0.05),
            shift=(rng.normal(0, 0.04), rng.normal(0, 0.04)),
            scale=rng.uniform(0.9, 1.1),
        ),
        apex=rng.uniform(-0.82, -0.70),
        base_right=base - rng.uniform(0.0, 0.07),  # the liver lifts the right dome
        base_left=base + rng.uniform(-0.02, 0.03),
        outer_right=outer + rng.normal(0, 0.02),
        outer_left=outer + rng.normal(0, 0.02),
        dome=rng.uniform(0.14, 0.24),
        heart=(rng.uniform(0.08, 0.17), base - rng.uniform(0.24, 0.32)),
        heart_size=(rng.uniform(0.25, 0.33), rng.uniform(0.26, 0.34)),
        rib_spacing=rng.uniform(0.15, 0.19),
        rib_phase=rng.uniform(0, 1),
        rib_contrast=rng.uniform(0.025, 0.06),
        aeration=rng.uniform(0.40, 0.50),
        breasts=max(0.0, rng.uniform(-0.08, 0.09)),
        leads=bool(rng.random() < 0.2),
    )


@dataclass(frozen=True, eq=False)
class Thorax:
    """One patient on one canvas: the shapes that findings are placed in."""

    canvas: Canvas
    patient: Patient

    def across(self, side: int) -> Plane:
        """Distance from the midline towards one side."""
        return self.canvas.x * side

    def dome(self, side: int) -> Plane:
        """y of the diaphragm over every pixel: highest mid-lung, lowest at the angles."""
        along = (self.across(side) - 0.36) / 0.42
        return self.patient.base(side) - self.patient.dome * (1 - np.square(along))

    def lateral(self, side: int) -> Plane:
        """Distance of the lateral chest wall from the midline, at every pixel's height."""
        person = self.patient
        height = (self.canvas.y - person.apex) / (person.base(side) - person.apex)
        rising = 1 - np.clip(height, 0, 1)
        return 0.15 + (person.outer(side) - 0.15) * (1 - rising**2.6) ** 0.62

    @cached_property
    def right_lung(self) -> Plane:
        return self._lung(RIGHT)

    @cached_property
    def left_lung(self) -> Plane:
        return self._lung(LEFT)

    def lung(self, side: int) -> Plane:
        """(size, size) 1 inside the lung field, heart included."""
        return self.right_lung if side == RIGHT else self.left_lung

    def _lung(self, side: int) -> Plane:
        across = self.across(side)
        inside = soft_step(self.lateral(side) - across, 0.012) * soft_step(across - 0.12, 0.02)
        return inside * soft_step(self.dome(side) - self.canvas.y, 0.014)

    @cached_property
    def heart(self) -> Plane:
        """(size, size) 1 where heart, great vessels and mediastinum hide the lung."""
        person, x, y = self.patient, self.canvas.x, self.canvas.y
        across = (x - person.heart[0]) * 0.88 + (y - person.heart[1]) * 0.30
        down = (y - person.heart[1]) * 0.95 - (x - person.heart[0]) * 0.30
        ventricles = np.hypot(across / person.heart_size[0], down / person.heart_size[1])
        knob = self.canvas.radius((0.13, person.apex + 0.45)) / 0.11
        stem = np.abs(x - 0.01) / (0.15 + 0.05 * soft_step(y, 0.2))
        return soft_step(1 - np.minimum(np.minimum(ventricles, knob), stem), 0.05)


def shadow(thorax: Thorax, air: Plane, rng: np.random.Generator) -> Plane:
    """The radiograph (size, size), 0 black to 1 white, for a given share of air in the lungs."""
    person, canvas = thorax.patient, thorax.canvas
    soft = 0.62 + 0.05 * canvas.clouds(rng, 3, 7) * (1 - air) + 0.10 * soft_step(canvas.y, 0.25)
    tissue = soft - person.aeration * air * (1 + 0.09 * canvas.clouds(rng, 4, 9))
    tissue = tissue + 0.35 * _vessels(thorax, rng) * air + _bones(thorax) + _breasts(thorax, rng)
    tissue = tissue - _hollows(thorax, rng) + 0.012 * canvas.clouds(rng, 22)
    film: Plane = 0.05 + (tissue - 0.05) * _outline(thorax)
    return film + _things(thorax, rng)


def _outline(thorax: Thorax) -> Plane:
    x, y = thorax.canvas.x, thorax.canvas.y
    outer = max(thorax.patient.outer_left, thorax.patient.outer_right)
    shoulders = (outer + 0.38) * soft_step(y + 0.86, 0.05)
    waist = 0.25 * soft_step(y + 0.25, 0.08)
    return soft_step(0.24 + shoulders - waist - np.abs(x), 0.014)


def _bones(thorax: Thorax) -> Plane:
    return _ribs(thorax) + _spine(thorax) + _clavicles(thorax)


def _ribs(thorax: Thorax) -> Plane:
    person, x, y = thorax.patient, thorax.canvas.x, thorax.canvas.y
    across = np.abs(x)
    back = (y - 0.85 * np.square(across - 0.22)) / person.rib_spacing + person.rib_phase
    front = (y - 0.55 * (0.8 - across)) / (person.rib_spacing * 1.25) - person.rib_phase
    back_ribs = soft_step(np.cos(2 * np.pi * (back + 0.06 * np.sign(x))) - 0.35, 0.12)
    front_ribs = soft_step(np.cos(2 * np.pi * front) - 0.45, 0.15) * soft_step(across - 0.35, 0.05)
    wall = np.where(x < 0, thorax.lateral(RIGHT), thorax.lateral(LEFT))
    cage = soft_step(wall + 0.03 - across, 0.012) * soft_step(across - 0.1, 0.02)
    cage = cage * soft_step(0.75 - y, 0.06)
    return person.rib_contrast * cage * (back_ribs + 0.5 * front_ribs)


def _spine(thorax: Thorax) -> Plane:
    x, y = thorax.canvas.x, thorax.canvas.y
    vertebrae = np.cos(2 * np.pi * (y / 0.135 + thorax.patient.rib_phase))
    return soft_step(0.085 - np.abs(x), 0.012) * (0.07 + 0.02 * vertebrae)


def _clavicles(thorax: Thorax) -> Plane:
    top = thorax.patient.apex + 0.20
    bones = [Stroke([(side * x, top + y) for x, y in _CLAVICLE], 0.055) for side in SIDES]
    return 0.09 * thorax.canvas.strokes(bones)


_CLAVICLE = ((0.06, 0.05), (0.2, 0.0), (0.4, -0.06), (0.6, -0.06), (0.85, -0.13))


def _vessels(thorax: Thorax, rng: np.random.Generator) -> Plane:
    """Streaks that fan out from each hilum and fade towards the pleura."""
    total = np.zeros_like(thorax.canvas.x)
    for side in SIDES:
        across = thorax.across(side) - 0.17
        down = thorax.canvas.y - (thorax.patient.apex + 0.66)
        reach = np.hypot(across, down)
        wander = 0.06 * thorax.canvas.clouds(rng, 6) + rng.uniform(-0.5, 0.5) * reach
        bend = np.arctan2(down, np.abs(across) + 0.02) + wander
        rays = np.interp(bend, np.linspace(-2.4, 2.4, 40), rng.standard_normal(40) ** 2)
        fading = 0.25 * np.exp(reach * -3.0) * soft_step(reach - 0.1, 0.03)
        streaks = rays.astype(np.float32) * fading
        total += streaks + 0.4 * np.exp(np.square(reach) * -60)
    return total


def _breasts(thorax: Thorax, rng: np.random.Generator) -> Plane:
    """Breast shadows, and now and then nipples, which are easily taken for nodules."""
    total = np.zeros_like(thorax.canvas.x)
    nipples = rng.random() < 0.15
    for side in SIDES:
        centre = (side * rng.uniform(0.40, 0.48), rng.uniform(0.22, 0.34))
        distance = thorax.canvas.radius(centre)
        total += thorax.patient.breasts * soft_step(0.28 - distance, 0.035)
        if nipples:
            total += 0.05 * soft_step(0.03 - distance, 0.008)
    return total


def _hollows(thorax: Thorax, rng: np.random.Generator) -> Plane:
    """The air that everybody has outside the lungs: trachea and stomach bubble."""
    person, canvas = thorax.patient, thorax.canvas
    carina = person.apex + 0.48
    trachea = bump(canvas.x - rng.normal(0, 0.015), 0.035) * soft_step(carina - canvas.y, 0.04)
    bubble = canvas.radius((0.34, person.base_left + rng.uniform(0.0, 0.1)))
    below = soft_step(canvas.y - thorax.dome(LEFT) - 0.04, 0.01)
    size = rng.uniform(0.05, 0.15)
    return 0.11 * trachea + rng.uniform(0, 0.2) * soft_step(size - bubble, 0.02) * below


def _things(thorax: Thorax, rng: np.random.Generator) -> Plane:
    """What lies on the patient: the side marker, and sometimes ECG leads."""
    mark = (-0.86 + rng.uniform(0, 0.1), -0.86 + rng.uniform(0, 0.1))
    letter = [(mark[0], mark[1] + 0.1), mark, (mark[0] + 0.06, mark[1] + 0.04)]
    total = 0.5 * thorax.canvas.strokes([Stroke(letter, 0.02)])
    if not thorax.patient.leads:
        return total
    wires, pads = [], np.zeros_like(total)
    for _ in range(int(rng.integers(2, 4))):
        pad = (rng.uniform(-0.6, 0.6), rng.uniform(-0.55, 0.35))
        wires.append(_wire(pad, rng))
        pads += soft_step(0.04 - thorax.canvas.radius(pad), 0.006)
    return total + 0.22 * thorax.canvas.strokes(wires) + 0.2 * pads


def _wire(pad: Point, rng: np.random.Generator) -> Stroke:
    end = (rng.uniform(-1, 1), 1.1)
    sag = rng.uniform(-0.3, 0.3)
    steps = np.linspace(0, 1, 9)
    xs = pad[0] + (end[0] - pad[0]) * steps + sag * np.sin(np.pi * steps)
    ys = pad[1] + (end[1] - pad[1]) * steps
    return Stroke(list(zip(xs.tolist(), ys.tolist(), strict=True)), 0.012)
