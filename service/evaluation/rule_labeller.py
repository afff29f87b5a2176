"""A labeller of rules, with denials in the manner of NegEx (Chapman et al. 2001).

The rules are data: `finding_rules.toml` reads the reports of chest phantoms. It is no substitute
for a labeller that was validated on real reports.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from service.errors import InvalidInput
from service.evaluation.intervals import Marks

_SENTENCE_END = re.compile(r"[.;:!?](?=\s|$)")  # a full stop within a number ends nothing


@dataclass(frozen=True, slots=True)
class RuleLabeller:
    """Marks a finding where a phrase of it stands undenied in a clause."""

    name: str
    phrases: dict[str, re.Pattern[str]]
    denials: re.Pattern[str]
    later_denials: re.Pattern[str]
    not_denials: re.Pattern[str]
    ends: re.Pattern[str]
    nothing_found: str | None

    @property
    def findings(self) -> tuple[str, ...]:
        """The "nothing found" mark first, as in the phantoms' task."""
        return (*filter(None, [self.nothing_found]), *self.phrases)

    def marks(self, texts: Sequence[str]) -> Marks:
        """(texts, findings)."""
        return np.array([self._row(text) for text in texts], dtype=bool).reshape(
            len(texts), len(self.findings)
        )

    def _row(self, text: str) -> list[bool]:
        clauses = list(self._clauses(text))
        found = [
            any(self._affirms(phrase, clause) for clause in clauses)
            for phrase in self.phrases.values()
        ]
        return [not any(found), *found] if self.nothing_found else found

    def _clauses(self, text: str) -> Iterator[str]:
        """Sentences, cut where the reach of a denial ends; what only looks like one is gone."""
        for sentence in _SENTENCE_END.split(" ".join(text.lower().split())):
            plain = self.not_denials.sub(" ", sentence)
            start = 0
            for end in self.ends.finditer(plain):
                yield plain[start : end.start()]
                start = end.start()
            yield plain[start:]

    def _affirms(self, phrase: re.Pattern[str], clause: str) -> bool:
        return any(
            not self.denials.search(clause, 0, found.start())
            and not self.later_denials.search(clause, found.end())
            for found in phrase.finditer(clause)
        )


def phantom_labeller() -> RuleLabeller:
    """For the reports of chest phantoms."""
    return _parsed(
        "phantom rules",
        files("service.evaluation").joinpath("finding_rules.toml").read_text("utf-8"),
    )


def read_rules(path: Path) -> RuleLabeller:
    """Rules of one's own, in a file like `finding_rules.toml`; raises InvalidInput."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not UTF-8 text") from error
    return _parsed(path.stem, text)


def _parsed(name: str, text: str) -> RuleLabeller:
    try:
        rules = tomllib.loads(text)
        return RuleLabeller(
            name=name,
            phrases={one["name"]: _any(one["phrases"]) for one in rules["findings"]},
            denials=_any(rules.get("denials", ())),
            later_denials=_any(rules.get("later_denials", ())),
            not_denials=_any(rules.get("not_denials", ())),
            ends=_any(rules.get("ends", ())),
            nothing_found=rules.get("nothing_found"),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, re.error) as error:
        raise InvalidInput(f"the rules {name!r} cannot be used: {error}") from error


def _any(patterns: Sequence[str]) -> re.Pattern[str]:
    """One of the patterns between word boundaries; nothing where there are none."""
    if not patterns:
        return re.compile(r"(?!)")
    return re.compile("|".join(rf"(?<!\w)(?:{one})(?!\w)" for one in patterns))
