"""The result of a reader study as Markdown and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from service.evaluation.agreement import Concordance, Preference
from service.evaluation.intervals import Interval
from service.evaluation.study import Incomplete, StudyResult


def markdown(result: StudyResult) -> str:
    """Mean ranks, agreement, preferences in pairs and the win matrix; then what was left out."""
    return "".join(_lines(result))


def as_json(result: StudyResult) -> dict[str, Any]:
    """Everything in the tables, unrounded, and the readers' comments."""
    return asdict(result)


def _lines(result: StudyResult) -> Iterator[str]:
    found = result.agreement
    yield f"{found.readings} readings of {_many(found.cases, 'case')}"
    yield f" by {_many(found.readers, 'reader')}.\n"
    yield from _left_out(result)
    yield "\n| system | mean rank (95 %) |\n|---|--:|\n"
    for row in found.mean_ranks:
        yield f"| {_cell(row.system)} | {row.mean:.2f}{_spread(row.interval, 2)} |\n"
    yield "\n| Kendall's W | W | chi-square | degrees of freedom | p |\n|---|--:|--:|--:|--:|\n"
    yield _concordance("across readers, of their mean ranks", found.across_readers)
    yield _concordance("between readers of a case, mean of cases", found.by_case)
    yield _concordance("between cases of a reader, mean of readers", found.within_readers)
    for reader, one in found.by_reader.items():
        yield _concordance(f"between cases of reader {reader}", one)
    names = [row.system for row in found.mean_ranks]
    yield from _pairs(names, found.preferences)
    yield from _matrix(names, found.preferences)


def _left_out(result: StudyResult) -> Iterator[str]:
    if result.missing:
        yield f"\nNo sheet of reader {', '.join(map(str, result.missing))}.\n"
    if result.incomplete:
        rows = sum(len(one.letters) for one in result.incomplete)
        yield f"\n{_many(rows, 'row')} without a rank. Left out: "
        yield f"{'; '.join(map(_named, result.incomplete))}.\n"


def _named(one: Incomplete) -> str:
    return f"case {one.case} of reader {one.reader} ({', '.join(one.letters)})"


def _concordance(name: str, found: Concordance | None) -> str:
    if found is None:
        return f"| {name} | – | – | – | – |\n"
    p = f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"
    return f"| {name} | {found.w:.3f} | {found.chi_square:.2f} | {found.degrees} | {p} |\n"


def _pairs(names: Sequence[str], preferences: Sequence[Preference]) -> Iterator[str]:
    """Each pair once, the better mean rank first."""
    place = {name: number for number, name in enumerate(names)}
    yield "\n| preferred | to | share (95 %) | better, tied, worse | readers |\n"
    yield "|---|---|--:|--:|--:|\n"
    ordered = sorted(preferences, key=lambda one: (place[one.first], place[one.second]))
    for one in ordered:
        if place[one.first] < place[one.second]:
            counts = f"{one.better}, {one.ties}, {one.worse}"
            share = f"{one.share:.3f}{_spread(one.interval, 3)}"
            readers = f"{one.readers:g} of {one.of_readers}"
            yield f"| {_cell(one.first)} | {_cell(one.second)} | {share} | {counts} | {readers} |\n"


def _matrix(names: Sequence[str], preferences: Sequence[Preference]) -> Iterator[str]:
    shares = {(one.first, one.second): f"{one.share:.2f}" for one in preferences}
    yield f"\n| row preferred to column | {' | '.join(map(_cell, names))} |\n"
    yield f"|---|{'--:|' * len(names)}\n"
    for row in names:
        cells = " | ".join(shares.get((row, column), "–") for column in names)
        yield f"| {_cell(row)} | {cells} |\n"


def _spread(interval: Interval | None, digits: int) -> str:
    return f" ({interval.low:.{digits}f} to {interval.high:.{digits}f})" if interval else ""


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _cell(name: str) -> str:
    """A system's name as text of a table's cell."""
    return name.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
