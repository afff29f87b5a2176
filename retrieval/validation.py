"""What may be stored as a reference case."""

import re

from retrieval.errors import InvalidReferenceCase
from retrieval.neighbour import ReferenceCase

MAX_LABEL_LENGTH = 100  # as a task's labels, which specialists/task.py checks
MAX_REPORT_LENGTH = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def check(case: ReferenceCase) -> None:
    """Raises InvalidReferenceCase with the first thing wrong."""
    if problem := _problem_with(case):
        raise InvalidReferenceCase(f"reference case {case.id[:80]!r}: {problem}")


def _problem_with(case: ReferenceCase) -> str | None:
    if not _is_line(case.id, 200):
        return "an id is 1 to 200 printable characters"
    if not _TASK.fullmatch(case.task):
        return f"{case.task[:80]!r} is no task name"
    if not _SHA256.fullmatch(case.image_sha256):
        return "image_sha256 is 64 lower-case hexadecimal digits"
    if not _is_line(case.group, 200):
        return "a group is needed: a pseudonym of the patient or study, or the image's sha256"
    if not case.labels and not case.report.strip():
        return "it has neither labels nor a report"
    if not all(_is_label(label) for label in case.labels):
        return f"a label is 1 to {MAX_LABEL_LENGTH} printable characters without ',' or '\"'"
    if len(case.report) > MAX_REPORT_LENGTH or "\0" in case.report:
        return f"a report is text of at most {MAX_REPORT_LENGTH} characters"
    if not _is_line(case.source or "-", 500) or not _is_line(case.licence or "-", 200):
        return "source and licence are one line each, of at most 500 and 200 characters"
    if not _is_line(case.modality or "-", 64):
        return "a modality is one line of at most 64 characters"
    return None


def _is_label(text: str) -> bool:
    """Labels are joined with commas and quoted in prompts, so neither mark may occur in one."""
    return _is_line(text, MAX_LABEL_LENGTH) and not {",", '"'} & set(text)


def _is_line(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable() and bool(text.strip())
