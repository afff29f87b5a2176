"""A specialist's card: its manifest in words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specialists.loader import Manifest

NOT_STATED = "not stated"

_CARD = """\
# {backbone} ({scale}) for {task}

Research and evaluation only; not a medical device.

- Task: {task} ({kind}); labels: {labels}
- Parameters: {parameters:,}; embedding: {embedding}
- Preprocessing: {preprocessing}, {input_size} × {input_size} px
{trunk}- Trained on data with fingerprint `{fingerprint}`
- Licence: {licence}

| validation | |
|---|---|
{validation}

Recipe: {recipe}

Probabilities are calibrated on the validation split with temperature {temperature:.3f}. Images of
another hospital, device or age group may be answered worse than the table says.
"""


def write(manifest: "Manifest") -> str:
    """The card as Markdown."""
    dimension = manifest.embedding_dimension
    return _CARD.format(
        backbone=manifest.backbone,
        scale=manifest.scale,
        task=manifest.task,
        kind=manifest.kind,
        labels=", ".join(manifest.labels),
        parameters=manifest.parameters,
        embedding=f"{dimension} numbers, the pooled pre-logits" if dimension else "none",
        preprocessing=manifest.preprocessing.version,
        input_size=manifest.preprocessing.input_size,
        trunk=_trunk(manifest.trunk_sha256),
        fingerprint=manifest.data_fingerprint[:16] or NOT_STATED,
        licence=manifest.licence,
        validation="\n".join(_row(*entry) for entry in manifest.validation.items())
        or _row("not measured", None),
        recipe=", ".join(f"{name} {value}" for name, value in manifest.recipe.items())
        or NOT_STATED,
        temperature=manifest.temperature,
    )


def _trunk(sha256: str) -> str:
    return f"- Linear probe on a frozen trunk, sha256 `{sha256[:16]}`\n" if sha256 else ""


def _row(name: str, value: float | None) -> str:
    return f"| {name} | {'not defined' if value is None else format(value, '.4f')} |"
