"""The audit: one chain whoever writes, nothing to change in it, and every break named."""

import asyncio
import multiprocessing

import pytest
from audits import NOBODY, behind_its_back, some_events
from builders import a_diagnosis
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.audit import chain
from service.audit.chain import START, Head, Row
from service.audit.event import Action, Event
from service.errors import AuditBroken
from service.persistence import erasure, recorded, store, trail
from service.persistence.database import open_engine, writing


def test_events_come_back_as_they_were_recorded_in_their_order(engine: Engine) -> None:
    given = Event(Action.REVIEWED, "user:ä", "diagnosis", "7", details={"a": [1, {"b": None}]})
    trail.record(engine, given)
    trail.record(engine, Event(Action.READ, "key:x", "report", "8"))

    (first, one), (second, other) = trail.events(engine)

    assert (first.number, second.number) == (1, 2)
    assert one == given
    assert (other.action, other.subject) == (Action.READ, "report/8")


def test_what_has_the_longest_id_is_in_it_too(engine: Engine) -> None:
    trail.record(engine, Event(Action.ERASED, "key:x", "reference-case", "a" * 200))

    ((_, found),) = trail.events(engine)
    assert found.id == "a" * 200


def test_an_audit_without_events_holds(engine: Engine) -> None:
    assert trail.verify(engine) == START


def test_the_head_is_the_last_event(engine: Engine) -> None:
    rows = some_events(engine)

    assert trail.verify(engine) == Head(5, rows[-1].sha256)


def test_events_can_be_neither_changed_nor_deleted(engine: Engine) -> None:
    some_events(engine)
    attempts = ["UPDATE audit_events SET entry = '{}'", "DELETE FROM audit_events"]

    for attempt in attempts:
        with pytest.raises(DBAPIError, match="never"), engine.begin() as connection:
            connection.execute(text(attempt))

    assert trail.verify(engine).number == 5


BREAKS = {
    "UPDATE audit_events SET entry = replace(entry, 'read', 'sign') WHERE number = 3": "event 3 is",
    "UPDATE audit_events SET sha256 = '0' WHERE number = 3": "event 3 is",
    "UPDATE audit_events SET subject = 'report/1' WHERE number = 3": "event 3 is filed",
    "DELETE FROM audit_events WHERE number = 3": "event 3 is missing",
    "DELETE FROM audit_events WHERE number = 1": "event 1 is missing",
    "DELETE FROM audit_events WHERE number = 5": "ends at event 4, and should hold 5",
    "DELETE FROM audit_events": "ends at event 0, and should hold 5",
    "DELETE FROM audit_head": "should hold no events",
    "INSERT INTO audit_events (number, subject, entry, sha256) VALUES (6, 'a', '{}', '0')": "6 is",
}


@pytest.mark.parametrize(("statement", "named"), BREAKS.items())
def test_the_first_event_that_does_not_hold_is_named(
    engine: Engine, statement: str, named: str
) -> None:
    some_events(engine)
    behind_its_back(engine, statement)

    with pytest.raises(AuditBroken, match=named):
        trail.verify(engine)


def test_events_that_changed_places_do_not_hold(engine: Engine) -> None:
    some_events(engine)
    behind_its_back(
        engine,
        "UPDATE audit_events SET number = 0 WHERE number = 2",
        "UPDATE audit_events SET number = 2 WHERE number = 3",
        "UPDATE audit_events SET number = 3 WHERE number = 0",
    )

    with pytest.raises(AuditBroken, match="event 2 is"):
        trail.verify(engine)


def test_a_chain_that_was_made_anew_is_given_away_by_a_head_that_was_noted(
    engine: Engine,
) -> None:
    some_events(engine)
    noted = trail.verify(engine)
    behind_its_back(
        engine,
        "DELETE FROM audit_events",
        f"UPDATE audit_head SET number = 0, sha256 = '{START.sha256}'",
    )
    some_events(engine)
    trail.verify(engine)

    with pytest.raises(AuditBroken, match="event 5 is not the one that was noted"):
        trail.verify(engine, noted)


def test_an_end_that_was_cut_off_with_care_is_given_away_by_a_head_that_was_noted(
    engine: Engine,
) -> None:
    rows = some_events(engine)
    noted = trail.verify(engine)
    behind_its_back(
        engine,
        "DELETE FROM audit_events WHERE number > 3",
        f"UPDATE audit_head SET number = 3, sha256 = '{rows[2].sha256}'",
    )

    assert trail.verify(engine).number == 3
    with pytest.raises(AuditBroken, match="event 5 was noted; the last one is 3"):
        trail.verify(engine, noted)


def test_a_head_of_an_earlier_day_is_still_in_the_chain(engine: Engine) -> None:
    some_events(engine, 2)
    noted = trail.verify(engine)
    some_events(engine, 2)

    assert trail.verify(engine, noted).number == 4
    assert chain.head_of(str(noted)) == noted


@pytest.mark.parametrize("text", ["", "5", "5:abc", "x:" + "0" * 64])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int() says some of them in its own words
        chain.head_of(text)


def test_nothing_is_recorded_of_what_did_not_happen(engine: Engine) -> None:
    with Session(engine) as session:
        store.add(session, a_diagnosis())
        session.rollback()

    assert trail.verify(engine) == START
    assert erasure.known(engine, [a_diagnosis().id]) == ()


def test_without_its_head_nothing_is_appended(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_head"))

    with pytest.raises(AuditBroken, match="lost its head"):
        trail.record(engine, Event(Action.READ, NOBODY, "diagnosis", "x"))


def append_many(url: str, who: str, count: int) -> None:
    """What a process of the service does all day."""
    engine = open_engine(url)
    for number in range(count):
        if number % 2:
            with writing(engine) as session:
                store.add(session, a_diagnosis(id=f"{who} {number}"))
        else:
            trail.record(engine, Event(Action.READ, who, "diagnosis", str(number)))
    engine.dispose()


def test_processes_that_write_at_once_make_one_chain(engine: Engine) -> None:
    spawn = multiprocessing.get_context("spawn")
    url = engine.url.render_as_string(hide_password=False)
    writing = [spawn.Process(target=append_many, args=(url, f"key:{n}", 40)) for n in range(3)]
    for process in writing:
        process.start()
    for process in writing:
        process.join(120)

    assert [process.exitcode for process in writing] == [0] * 3
    assert trail.verify(engine).number == 120
    recorded.check(engine)
    assert len({row.sha256 for row, _ in trail.events(engine)}) == 120


async def test_threads_that_write_at_once_make_one_chain(engine: Engine) -> None:
    audit = trail.SqlTrail(engine)
    events = [Event(Action.READ, NOBODY, "diagnosis", str(n)) for n in range(64)]

    await asyncio.gather(*map(audit.record, events))

    assert trail.verify(engine).number == 64


WORDS = st.text(max_size=20)
DETAILS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.builds(
    Event, st.sampled_from(Action), WORDS, WORDS, WORDS, details=st.dictionaries(WORDS, DETAILS)
)


def chained(events: list[Event]) -> list[Row]:
    rows, head = list[Row](), START
    for one in events:
        rows.append(chain.follow(head, one))
        head = Head(rows[-1].number, rows[-1].sha256)
    return rows


@given(st.lists(EVENTS, max_size=4))
def test_any_events_make_a_chain_that_holds(events: list[Event]) -> None:
    assert [one for _, one in chain.checked(chained(events))] == events


@given(st.lists(EVENTS, min_size=2, max_size=4), st.data())
def test_no_letter_of_a_chain_can_be_changed_unnoticed(events: list[Event], data) -> None:
    rows = chained(events)
    place = data.draw(st.integers(0, len(rows) - 2))
    row = rows[place]
    letter = data.draw(st.integers(0, len(row.entry) - 1))
    changed = row.entry[:letter] + chr(ord(row.entry[letter]) ^ 1) + row.entry[letter + 1 :]
    rows[place] = Row(row.number, row.subject, changed, row.sha256)

    with pytest.raises(AuditBroken, match=f"event {row.number} "):
        list(chain.checked(rows))
