"""What results are coded with: standard concepts where there are any, else the scheme 99GSCO.

Labels and report texts come from outside. Whatever they hold, codes and meanings fit DICOM's value
representations SH and LO (PS3.5 section 6.2), and with them FHIR and HL7 v2.
"""

import re
import unicodedata
from hashlib import sha256

from service.domain import Arbitration
from specialists.task import Concept, Label, Task

SCHEME = "99GSCO"  # private designators begin with 99: PS3.16 section 8.2
NOT_FOR_CLINICAL_USE = "not for clinical use"
LONGEST_MEANING = 64
LONGEST_TEXT = 20_000

_CODE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_DESIGNATOR = re.compile(r"[A-Za-z0-9._-]{1,16}")


def _ours(code: str, meaning: str) -> Concept:
    return Concept(SCHEME, code, meaning)


PROBABILITY = Concept("DCM", "122157", "Probability")
FINDING = Concept("DCM", "121071", "Finding")
FINDINGS = Concept("DCM", "121070", "Findings")
IMPRESSIONS = Concept("DCM", "121072", "Impressions")
STUDY_INSTANCE_UID = Concept("DCM", "110180", "Study Instance UID")
IMAGING_STUDY = Concept("LN", "18748-4", "Diagnostic imaging study")
YES = Concept("SCT", "373066001", "Yes")
NO = Concept("SCT", "373067005", "No")

FINAL = _ours("FINAL", "Final answer of the generalist")
INITIAL = _ours("INITIAL", "Initial diagnosis, from the image alone")
SPECIALIST = _ours("SPECIALIST", "Prediction of one specialist")
OUTLINE = _ours("OUTLINE", "Outline by one segmentation specialist")
SHARE = _ours("SHARE", "Share of the image that is outlined")
CERTAINTY = _ours("CERTAINTY", "Certainty of the outline, as expected Dice")
PLACE = _ours("PLACE", "Third of the image where an outlined area lies")
SIMILAR_CASE = _ours("SIMILAR-CASE", "Similar reference case, of another patient")
LABEL = _ours("LABEL", "Label named")
REFERENCE_LABEL = _ours("REFERENCE-LABEL", "Label of the reference case")
LABEL_SET = _ours("LABEL-SET", "Label of the conformal label set")
SIMILARITY = _ours("SIMILARITY", "Cosine similarity")
COVERAGE = _ours("COVERAGE", "Coverage of the conformal label set")
AGREEMENT = _ours("AGREEMENT", "Share of the specialists that agree")
TYPICALITY = _ours("TYPICALITY", "Typicality among the reference cases")
NEEDS_REVIEW = _ours("NEEDS-REVIEW", "Needs review by a person")
REVIEW_REASON = _ours("REVIEW-REASON", "Reason for review")
ARBITRATION = _ours("ARBITRATION", "How the final answer came about")
MISSING = _ours("MISSING", "Evidence that was missing")
NOTE = _ours("NOTE", "Note")
PROVENANCE = _ours("PROVENANCE", "How the result was computed")
INTENDED_USE = _ours("INTENDED-USE", "Intended use")
SOP_INSTANCE_UID = _ours("SOP-INSTANCE-UID", "SOP Instance UID of the image")


def arbitration(how: Arbitration) -> Concept:
    """The coded value of how a final answer came about."""
    return _ours(how.name, f"The answer is {how.value}")


def place(words: str) -> Concept:
    """The coded value of a third of the image, such as `upper left`."""
    code = "-".join(re.findall(r"[A-Z]+", words.upper()))
    return _ours(code[:16] or "UNNAMED", name(words))


def label_concepts(
    task_name: str, labels: tuple[str, ...], task: Task | None
) -> dict[str, Concept]:
    """A usable concept for every label of a result.

    `task` is as it is now: its concepts count only where it still has the same labels. A label
    without a usable concept has one in our own scheme, whose code depends on task and label alone.
    """
    known: dict[str, Concept | None] = {}
    if task is not None and task.label_names == labels:
        known = {label.name: label.concept for label in task.labels}
    return {name: label_concept(task_name, Label(name, known.get(name))) for name in labels}


def label_concept(task_name: str, label: Label) -> Concept:
    """The label's own concept, where it is usable, else one of our own scheme."""
    return _usable(label.concept) or _private(task_name, label.name)


def _usable(concept: Concept | None) -> Concept | None:
    if concept is None:
        return None
    meaning = line(str(concept.meaning))
    fits = _CODE.fullmatch(str(concept.code)) and _DESIGNATOR.fullmatch(str(concept.scheme))
    return Concept(concept.scheme, concept.code, meaning) if fits and meaning else None


def _private(task_name: str, label: str) -> Concept:
    digest = sha256(f"{task_name}\x1f{label}".encode(errors="replace")).hexdigest()
    return _ours(f"L-{digest[:12].upper()}", name(label))


def line(text: str, longest: int = LONGEST_MEANING) -> str:
    """One line of at most so many characters, without controls and DICOM's separator."""
    shown = " ".join(_visible(text).replace("\\", "/").split())
    return _cut(shown, longest)


def name(text: str) -> str:
    """A line that is never empty, for what must have a name."""
    return line(text) or "unnamed"


def paragraphs(text: str, longest: int = LONGEST_TEXT) -> str:
    """Text with its line breaks, of at most so many characters, without other controls."""
    lines = (" ".join(_visible(one).split()) for one in text.splitlines())
    shown = "\n".join(lines).strip()
    return _cut(shown, longest)


def _cut(text: str, longest: int) -> str:
    """Marked in ASCII: some readers count a value's bytes where DICOM counts characters."""
    return text if len(text) <= longest else text[: longest - 3].rstrip() + "..."


def _visible(text: str) -> str:
    """Every kind of space is a plain one; what cannot be seen or encoded is left out."""
    return "".join(map(_visible_letter, text))


def _visible_letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    return "" if unicodedata.category(letter) in {"Cf", "Cs", "Cn", "Co"} else " "
