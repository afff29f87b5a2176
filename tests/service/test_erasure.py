"""Results that are erased are gone from the file itself; the audit tells that they were there."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders import a_diagnosis, a_provenance, a_report, an_answer, sha256_of
from databases import a_database
from sqlalchemy import Engine, select, text

from service.audit.event import Action
from service.errors import AuditBroken, NotFound
from service.persistence import erasure, recorded, trail
from service.persistence.records import ReviewRecord
from service.persistence.store import SqlStore
from service.review import Word, accepted

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WHO = "local:test"
WORD = Word("user:reader", (), "", NOW)


async def results(engine: Engine, *made: object) -> None:
    for result in made:
        await SqlStore(engine).save(result)  # type: ignore[arg-type]


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


async def test_an_erased_result_leaves_a_trace_and_a_chain_that_holds(engine: Engine) -> None:
    await results(engine, a_diagnosis(id="one"), a_report("two"), an_answer("three"))

    erased = erasure.erase(engine, ["one", "two", "unknown"], WHO, "request")

    assert erased == 2
    assert erasure.known(engine, ["one", "two", "three"]) == ("three",)
    last = [event for _, event in trail.events(engine)][-2:]
    assert [(event.action, event.who, event.subject) for event in last] == [
        (Action.ERASED, WHO, "diagnosis/one"),
        (Action.ERASED, WHO, "report/two"),
    ]
    assert last[0].details["reason"] == "request"
    assert trail.verify(engine).number == 5
    assert recorded.check(engine) == 0


async def test_erasing_again_erases_nothing_and_records_nothing(engine: Engine) -> None:
    await results(engine, a_diagnosis(id="one"))
    erasure.erase(engine, ["one"], WHO, "request")

    assert erasure.erase(engine, ["one"], WHO, "request") == 0
    assert trail.verify(engine).number == 2


async def test_what_is_too_old_is_found_and_the_rest_is_not(engine: Engine) -> None:
    await results(
        engine,
        a_diagnosis(id="old", created_at=days_ago(400)),
        a_report("older", created_at=days_ago(900)),
        a_diagnosis(id="young", created_at=days_ago(364)),
    )

    assert set(erasure.before(engine, days_ago(365))) == {"old", "older"}


async def test_everything_that_was_made_of_an_image_is_found(engine: Engine) -> None:
    image = sha256_of("the image")
    of_it = a_provenance(input_sha256=image)
    await results(engine, a_diagnosis(id="one", provenance=of_it), a_diagnosis(id="other"))
    await results(engine, an_answer("two", provenance=of_it))

    assert set(erasure.of_image(engine, image)) == {"one", "two"}


async def test_many_results_are_erased_a_few_at_a_time(engine: Engine) -> None:
    many = [a_report(f"report {n}") for n in range(erasure.AT_ONCE + 5)]
    await results(engine, *many)

    assert erasure.erase(engine, (one.id for one in many), WHO, "retention") == len(many)
    assert trail.verify(engine).number == 2 * len(many)


async def test_nothing_of_an_erased_result_is_left_in_the_files(tmp_path: Path) -> None:
    with a_database(tmp_path) as engine:
        await results(engine, a_report(findings="A word nobody else writes: zyzzyva."), an_answer())
        assert "zyzzyva" in everything_in(tmp_path)

        erasure.erase(engine, ["report-1"], WHO, "request")

        assert "zyzzyva" not in everything_in(tmp_path)


def everything_in(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.iterdir())


async def test_a_diagnosis_goes_with_its_reviews_and_the_audit_still_holds(engine: Engine) -> None:
    store = SqlStore(engine)
    await results(engine, a_diagnosis(id="one"), a_diagnosis(id="other"))
    for id in ("one", "one", "other"):
        await store.review(accepted(a_diagnosis(id=id), WORD))

    erasure.erase(engine, ["one"], WHO, "request")

    with engine.connect() as connection:
        left = connection.scalars(select(ReviewRecord.diagnosis_id)).all()
    assert left == ["other"]
    assert [one.diagnosis.id for one in await store.page()] == ["other"]
    assert trail.verify(engine).number == 6
    assert recorded.check(engine) == 0


async def test_a_review_is_recorded_with_the_review_or_there_is_neither(engine: Engine) -> None:
    await results(engine, a_diagnosis(id="one"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_head"))

    with pytest.raises(AuditBroken):
        await SqlStore(engine).review(accepted(a_diagnosis(id="one"), WORD))

    assert await SqlStore(engine).reviews("one") == ()


async def test_who_reviews_what_is_being_erased_is_told_that_it_is_gone(engine: Engine) -> None:
    store = SqlStore(engine)
    many = [a_diagnosis(id=f"diagnosis {n}") for n in range(20)]
    await results(engine, *many)
    erasing = asyncio.to_thread(erasure.erase, engine, [one.id for one in many], WHO, "request")
    reviewing = (store.review(accepted(one, WORD)) for one in reversed(many))

    _, *ends = await asyncio.gather(erasing, *reviewing, return_exceptions=True)

    assert all(end is None or isinstance(end, NotFound) for end in ends), ends
    assert trail.verify(engine).number == 2 * len(many) + ends.count(None)
    assert recorded.check(engine) == 0


async def test_two_who_erase_the_same_do_not_stand_in_each_others_way(engine: Engine) -> None:
    ids = [f"diagnosis {n}" for n in range(50)]
    await results(engine, *(a_diagnosis(id=id) for id in ids))

    counts = await asyncio.gather(
        *(asyncio.to_thread(erasure.erase, engine, some, WHO, "request") for some in (ids, ids))
    )

    assert sum(counts) == len(ids)
    assert trail.verify(engine).number == 2 * len(ids)
