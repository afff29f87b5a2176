"""`--results FOLDER`: a result as the standard objects that a PACS or a record takes."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from service.api.dependencies import Parts
from service.cli import output
from service.domain import Case, Diagnosis, Report
from service.intake.limits import Limits
from service.intake.result import IntakeResult
from service.pacs.source import Source, anonymous, read_source
from specialists.errors import SpecialistUnavailable
from specialists.prediction import Explanation


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was looked at: the case, the file it came in, and what intake made of that."""

    case: Case
    data: bytes
    decoded: IntakeResult


async def write(parts: Parts, look: Look, result: Diagnosis | Report, folder: Path) -> None:
    """Writes every object there can be; those of a file that is not DICOM name nobody."""
    explanations = await _explanations(parts, look, result)
    names = await asyncio.to_thread(_write, look, result, explanations, folder)
    output.messages.print(f"wrote {', '.join(names)} to {folder}", markup=False)


async def _explanations(
    parts: Parts, look: Look, result: Diagnosis | Report
) -> tuple[Explanation, ...]:
    """Those that can be had: results are worth writing without them."""
    from service.pacs import results

    if not isinstance(result, Diagnosis):
        return ()
    pixels, task = look.case.image.pixels, look.case.task
    made = []
    for specialist, label in results.witnesses(result, task):
        try:
            made.append(await parts.specialists.explain(pixels, task, specialist, label))
        except SpecialistUnavailable as error:
            output.messages.print(f"no heat map: {error}", markup=False)
    return tuple(made)


def _write(
    look: Look, result: Diagnosis | Report, explanations: tuple[Explanation, ...], folder: Path
) -> tuple[str, ...]:
    from service.pacs import results

    pixels, task = look.case.image.pixels, look.case.evidence_task
    files = results.files(result, _source(look, result), task, pixels, explanations)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    return tuple(file.name for file in files)


def _source(look: Look, result: Diagnosis | Report) -> Source:
    attributes = look.decoded.attributes
    frame = attributes.frame_number if attributes else 1
    return read_source(look.data, Limits(max_bytes=len(look.data)), frame) or anonymous(result.id)
