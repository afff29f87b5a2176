"""What can be found on a phantom's chest: where it lies, how it looks, what a report says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.demo.canvas import Plane, Point, soft_step
from service.demo.chest import LEFT, MM_PER_UNIT, RIGHT, SIDES, Patient, Thorax

# Height in the lung from apex (0) to base (1), and distance from the midline as a share of the
# way to the chest wall. The left lung has no middle lobe; its lingula is left out.
_LOBES = {
    (RIGHT, "right upper lobe"): ((0.20, 0.45), (0.45, 0.80)),
    (RIGHT, "right middle lobe"): ((0.56, 0.68), (0.40, 0.75)),
    (RIGHT, "right lower lobe"): ((0.74, 0.86), (0.42, 0.85)),
    (LEFT, "left upper lobe"): ((0.20, 0.50), (0.45, 0.80)),
    (LEFT, "left lower lobe"): ((0.62, 0.84), (0.62, 0.88)),
}


@dataclass(frozen=True)
class Pneumonia:
    """A patchy, ill-defined opacity in a lobe."""

    lobe: str
    side: int
    centre: Point
    reach: Point  # half axes
    strength: float  # share of the air that is lost where it is densest


@dataclass(frozen=True)
class Effusion:
    """Fluid that fills the costophrenic angle up to a meniscus."""

    side: int
    depth: float  # height of the fluid over the angle, in half image widths
    climb: float  # how far the meniscus climbs the chest wall


@dataclass(frozen=True)
class Nodule:
    """A small round density."""

    lobe: str
    side: int
    centre: Point
    radius: float
    density: float
    millimetres: int  # diameter on the detector


Finding = Pneumonia | Effusion | Nodule


def pneumonia(person: Patient, rng: np.random.Generator) -> Pneumonia:
    side, lobe, centre = _place(person, rng)
    reach = (rng.uniform(0.17, 0.29), rng.uniform(0.16, 0.28))
    return Pneumonia(lobe, side, centre, reach, rng.uniform(0.55, 1.0))


def effusion(person: Patient, rng: np.random.Generator) -> Effusion:
    del person  # fluid finds the lowest place in anybody
    side = SIDES[int(rng.integers(2))]
    return Effusion(side, depth=0.10 + 0.32 * rng.random() ** 1.5, climb=rng.uniform(0.08, 0.22))


def nodule(person: Patient, rng: np.random.Generator) -> Nodule:
    side, lobe, centre = _place(person, rng)
    radius = rng.uniform(0.07, 0.11)
    millimetres = round(2 * radius * person.pose.scale * MM_PER_UNIT)
    return Nodule(lobe, side, centre, radius, rng.uniform(0.24, 0.46), millimetres)


def _place(person: Patient, rng: np.random.Generator) -> tuple[int, str, Point]:
    side, lobe = list(_LOBES)[int(rng.integers(len(_LOBES)))]
    heights, distances = _LOBES[side, lobe]
    height = rng.uniform(*heights)
    wall = 0.15 + (person.outer(side) - 0.15) * (1 - (1 - height) ** 2.6) ** 0.62
    y = person.apex + height * (person.base(side) - person.dome * 0.6 - person.apex)
    return side, lobe, (side * wall * rng.uniform(*distances), y)


def air(thorax: Thorax, findings: tuple[Finding, ...], rng: np.random.Generator) -> Plane:
    """(size, size) share of air over every pixel: the lungs, less heart, fluid and infiltrate."""
    share = (thorax.right_lung + thorax.left_lung) * (1 - 0.93 * thorax.heart)
    for finding in findings:
        if isinstance(finding, Pneumonia):
            share = share * (1 - finding.strength * _patch(thorax, finding, rng))
        elif isinstance(finding, Effusion):
            share = share * (1 - 0.96 * _fluid(thorax, finding))
    return share


def densities(thorax: Thorax, findings: tuple[Finding, ...]) -> Plane:
    """(size, size) what findings add to the shadow beyond the air they take away."""
    total = np.zeros_like(thorax.canvas.x)
    for finding in findings:
        if isinstance(finding, Nodule):
            distance = thorax.canvas.radius(finding.centre) / finding.radius
            total += finding.density * soft_step(1 - distance, 0.09)
    return total


def _patch(thorax: Thorax, finding: Pneumonia, rng: np.random.Generator) -> Plane:
    across = (thorax.canvas.x - finding.centre[0]) / finding.reach[0]
    down = (thorax.canvas.y - finding.centre[1]) / finding.reach[1]
    ragged = np.hypot(across, down) + 0.22 * thorax.canvas.clouds(rng, 7, 14)
    patchy = 0.8 + 0.22 * thorax.canvas.clouds(rng, 12, 20)
    return soft_step(1.05 - ragged, 0.17) * np.clip(patchy, 0.15, 1)


def _fluid(thorax: Thorax, finding: Effusion) -> Plane:
    """Below the meniscus, which is low in mid-lung and climbs along the lateral wall."""
    side = finding.side
    towards_wall = np.clip(thorax.across(side) / thorax.lateral(side), 0, 1.1)
    level = thorax.patient.base(side) - finding.depth - finding.climb * (towards_wall**6 - 0.3)
    return soft_step(thorax.canvas.y - level, 0.016) * (thorax.across(side) > 0)
