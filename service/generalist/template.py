"""Prompt templates as data: a TOML file with the sentences, their slots in braces.

`paper` says what the published procedure says, `rich` adds signals of trust, `rich_segmentation`
what segmentation specialists outline; a path names one of the user's own. A template may extend a
shipped one. A sentence that a template leaves out is never said.
"""

import hashlib
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from service.errors import Misconfigured
from specialists.task import TaskKind

DEFAULT = "rich"
CHOICES = "choices"
"""The sentence after a question whose permitted answers are given."""

_ASK_SLOTS = frozenset({"modality", "options", "question"})
_EVIDENCE_SLOTS: Mapping[str, frozenset[str]] = {
    "first_look": frozenset({"list"}),
    "neighbours": frozenset({"list"}),
    "neighbour": frozenset({"labels", "similarity"}),
    "typicality": frozenset({"typicality"}),
    "reports": frozenset({"list"}),
    "predictions": frozenset({"list"}),
    "prediction": frozenset({"labels", "scored", "accuracy", "specialist"}),
    "average": frozenset({"list"}),
    "segmentations": frozenset({"list"}),
    "segmentation": frozenset(
        {"specialist", "segment", "share", "areas", "places", "certainty", "dice"}
    ),
    "nothing_segmented": frozenset({"specialist", "segment", "certainty", "dice"}),
    "draft": frozenset({"text"}),
}


@dataclass(frozen=True, slots=True)
class Template:
    """`ask` by kind of task, and "choices", comes first, the sentences of `evidence` after it.

    `version` is the template's own name and the beginning of its file's sha256.
    """

    version: str
    ask: Mapping[str, str]
    evidence: Mapping[str, str]

    def asked(self, key: str, **slots: str) -> str:
        """Role, task, image and answer format by kind of task: equal for all cases of a task."""
        return self.ask[key].format(**slots)

    def said(self, sentence: str, **slots: object) -> str:
        """A sentence of the evidence, empty where the template leaves it out."""
        return self.evidence.get(sentence, "").format(**slots)


def find(name: str) -> Template:
    """A shipped template by name, or the one in a .toml file; raises Misconfigured."""
    if not name.endswith(".toml"):
        return _shipped(name)
    try:
        return parse(Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"no prompt template can be read from {name!r}") from error


def parse(text: str) -> Template:
    """The template of a TOML document; raises Misconfigured with the first thing wrong."""
    try:
        fields = tomllib.loads(text)
        base = _shipped(str(fields["extends"])) if "extends" in fields else _NOTHING
        name, ask = str(fields["name"]), {**base.ask, **fields.get("ask", {})}
        asked = {key: ask[key] for key in (*TaskKind, CHOICES)}
        evidence = {**base.evidence, **fields.get("evidence", {})}
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"not a prompt template: {error}") from error
    for key, sentence in asked.items():
        _check(key, sentence, _ASK_SLOTS)
    for key, sentence in evidence.items():
        if key not in _EVIDENCE_SLOTS:
            raise Misconfigured(f"a prompt template has no sentence called {key!r}")
        _check(key, sentence, _EVIDENCE_SLOTS[key])
    digest = hashlib.sha256((base.version + text).encode()).hexdigest()
    return Template(f"{name}@{digest[:12]}", asked, evidence)


_NOTHING = Template("", {}, {})
"""What a template extends that extends none."""


@cache
def _shipped(name: str) -> Template:
    file = files("service.generalist").joinpath("templates", f"{name}.toml")
    if not name.isidentifier() or not file.is_file():
        raise Misconfigured(
            f"no prompt template {name!r}: choose paper, rich, rich_segmentation or a .toml file"
        )
    return parse(file.read_text("utf-8"))


def _check(key: str, sentence: object, allowed: frozenset[str]) -> None:
    place = f"sentence {key!r} of the prompt template"
    if not isinstance(sentence, str):
        raise Misconfigured(f"{place} is no text")
    try:
        parts = [part for part in string.Formatter().parse(sentence) if part[1] is not None]
    except ValueError as error:
        raise Misconfigured(f"{place}: {error}") from error
    for _, slot, form, conversion in parts:
        if slot not in allowed:
            raise Misconfigured(f"{place} has no slot {slot!r}")
        if form or conversion:
            raise Misconfigured(f"{place}: slot {slot!r} takes no format")
