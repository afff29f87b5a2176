"""The report a radiologist would dictate for a chest phantom, from a small vocabulary.

The words pneumonia, effusion and nodule appear exactly when the image shows one: absent findings
are not denied by name, so that a report can be checked by its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.demo.chest import RIGHT, Patient
from service.demo.chest_findings import Effusion, Finding, Nodule, Pneumonia

_HEART = (
    "The heart is of normal size.",
    "The cardiac silhouette is normal.",
    "Heart size and mediastinal contours are within normal limits.",
    "The cardiomediastinal silhouette is unremarkable.",
)
_LEADS = ("ECG leads overlie the chest.", "Monitoring leads project over the chest.")
_CLEAR = (
    "The lungs are clear.",
    "Both lungs are well aerated and clear.",
    "The lungs and costophrenic angles are clear.",
)
_REST_CLEAR = (
    "The remaining lungs are clear.",
    "The lungs are otherwise clear.",
    "No other abnormality is seen.",
)
_NO_FINDING = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No acute disease.",
)


def report(person: Patient, findings: Sequence[Finding], rng: np.random.Generator) -> str:
    """Findings and Impression; side, lobe and size are those of the drawn findings."""
    seen = [_one_of(rng, _described(finding)) for finding in findings]
    seen.append(_one_of(rng, _REST_CLEAR if findings else _CLEAR))
    seen.insert(int(rng.integers(2)) * len(seen), _one_of(rng, _HEART))
    if person.leads:
        seen.append(_one_of(rng, _LEADS))
    concluded = [_one_of(rng, _concluded(finding)) for finding in findings]
    concluded = concluded or [_one_of(rng, _NO_FINDING)]
    return f"Findings: {' '.join(seen)} Impression: {' '.join(concluded)}"


def _described(finding: Finding) -> tuple[str, ...]:
    if isinstance(finding, Pneumonia):
        how = "Dense" if finding.strength > 0.75 else "Faint" if finding.strength < 0.55 else "Hazy"
        return (
            f"{how} patchy opacity in the {finding.lobe}.",
            f"{how}, ill-defined airspace opacity in the {finding.lobe}.",
            f"There is {how.lower()} consolidation in the {finding.lobe}.",
        )
    if isinstance(finding, Effusion):
        side, amount = _side(finding), _amount(finding)
        return (
            f"Blunting of the {side} costophrenic angle by {amount} pleural fluid.",
            f"{amount.capitalize()} amount of fluid in the {side} pleural space with a meniscus.",
            f"The {side} costophrenic angle is blunted; the amount of fluid is {amount}.",
        )
    return (
        f"Round {finding.millimetres} mm density in the {finding.lobe}.",
        f"A {finding.millimetres} mm nodule projects over the {finding.lobe}.",
        f"Well-defined nodule of {finding.millimetres} mm in the {finding.lobe}.",
    )


def _concluded(finding: Finding) -> tuple[str, ...]:
    if isinstance(finding, Pneumonia):
        return (
            f"{finding.lobe.capitalize()} pneumonia.",
            f"Findings consistent with pneumonia in the {finding.lobe}.",
            f"Pneumonia of the {finding.lobe}.",
        )
    if isinstance(finding, Effusion):
        side, amount = _side(finding), _amount(finding)
        return (
            f"{amount.capitalize()} {side} pleural effusion.",
            f"{side.capitalize()} pleural effusion, {amount}.",
        )
    return (
        f"Solitary nodule in the {finding.lobe}, {finding.millimetres} mm.",
        f"{finding.lobe.capitalize()} nodule of {finding.millimetres} mm.",
    )


def _side(finding: Effusion | Nodule | Pneumonia) -> str:
    return "right" if finding.side == RIGHT else "left"


def _amount(finding: Effusion) -> str:
    return "small" if finding.depth < 0.2 else "moderate"


def _one_of(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    return phrases[int(rng.integers(len(phrases)))]
