"""What the audit costs: an event alone, a result with its event and without, many writers, a check.

On a SQLite file of its own, or on an empty database that `--database` names.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Engine

from service.audit.event import Action, Event
from service.persistence import store, trail
from service.persistence.database import open_engine, upgrade, writing
from tests.builders import a_diagnosis

WRITERS = 4


def main(events: int, database: str | None, *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(database or f"sqlite:///{Path(folder) / 'gsco.db'}")
        upgrade(engine)
        figures = measure(engine, events)
        engine.dispose()
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value:.2f}")


def measure(engine: Engine, count: int) -> dict[str, float]:
    alone = median_milliseconds(lambda n: trail.record(engine, an_event(n)), count)
    recorded = median_milliseconds(lambda n: save(engine, f"with {n}", store.add), count)
    silent = median_milliseconds(lambda n: save(engine, f"without {n}", _store_only), count)
    return {
        "event_alone_ms": alone,
        "result_with_event_ms": recorded,
        "result_without_event_ms": silent,
        f"events_a_second_by_{WRITERS}_writers": together(engine, count),
        **checking(engine, 100 * count),
    }


def median_milliseconds(work: Callable[[int], object], count: int) -> float:
    times = []
    for number in range(count):
        started = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def together(engine: Engine, count: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda n: trail.record(engine, an_event(n)), range(count)))
    return count / (time.perf_counter() - started)


def checking(engine: Engine, count: int) -> dict[str, float]:
    with writing(engine) as session:
        for number in range(count):
            trail.append(session, an_event(number))
    started = time.perf_counter()
    head = trail.verify(engine)
    return {"events_checked_a_second": head.number / (time.perf_counter() - started)}


def save(engine: Engine, id: str, add: Callable[..., None]) -> None:
    with writing(engine) as session:
        add(session, a_diagnosis(id=id))


def _store_only(session: object, diagnosis: object) -> None:
    session.merge(store._record(diagnosis))  # type: ignore[attr-defined, arg-type]


def an_event(number: int) -> Event:
    return Event(Action.READ, "key:0123456789ab", "diagnosis", str(number))
