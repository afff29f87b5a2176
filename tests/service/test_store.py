"""Diagnoses in the database, and the way back."""

import asyncio
import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import (
    a_diagnosis,
    a_missing_part,
    a_neighbour,
    a_prediction,
    a_report,
    a_segmentation,
    an_answer,
    some_evidence,
)
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from service.domain import Answer, Arbitration, Diagnosis, LabelledAnswer, Report
from service.errors import Misconfigured, NotFound, Overloaded
from service.identity.caller import LONGEST_SUBJECT
from service.persistence import codec
from service.persistence.database import open_engine, upgrade
from service.persistence.records import DiagnosisRecord
from service.persistence.store import SqlStore
from service.review import Decision, Review, Wanted

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def store(engine: Engine) -> SqlStore:
    return SqlStore(engine)


def diagnoses(count: int, **fields: object) -> list[Diagnosis]:
    return [
        a_diagnosis(id=f"id {n:03}", created_at=NOON + timedelta(minutes=n), **fields)
        for n in range(count)
    ]


async def test_a_diagnosis_comes_back_as_it_was_saved(store: SqlStore) -> None:
    evidence = some_evidence(missing=(a_missing_part(),))
    diagnosis = a_diagnosis(evidence=evidence, agreement=None, review_reasons=("low probability",))
    await store.save(diagnosis)
    assert await store.get(Diagnosis, diagnosis.id) == diagnosis


async def test_what_was_outlined_is_stored_in_words_and_its_mask_is_not(
    store: SqlStore, engine: Engine
) -> None:
    diagnosis = a_diagnosis(evidence=some_evidence(segmentations=(a_segmentation(),)))

    await store.save(diagnosis)

    kept = await store.get(Diagnosis, diagnosis.id)
    assert kept == diagnosis
    assert kept.evidence.segmentations[0].map is None
    with engine.connect() as connection:
        document = connection.scalar(select(DiagnosisRecord.document))
    assert document is not None
    assert "map" not in document["evidence"]["segmentations"][0]


async def test_a_diagnosis_stored_before_there_were_segmentations_still_reads(
    store: SqlStore,
) -> None:
    document = codec.encode(a_diagnosis())
    del document["evidence"]["segmentations"]
    assert codec.decode(Diagnosis, document) == a_diagnosis()


async def test_a_saved_diagnosis_outlives_the_process(store: SqlStore, engine: Engine) -> None:
    await store.save(a_diagnosis())
    engine.dispose()
    again = open_engine(engine.url.render_as_string(hide_password=False))
    assert await SqlStore(again).get(Diagnosis, a_diagnosis().id) == a_diagnosis()
    again.dispose()


async def test_an_unknown_id_is_not_found(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no diagnosis 'nobody'"):
        await store.get(Diagnosis, "nobody")
    with pytest.raises(NotFound):
        await store.page(after="nobody")


async def test_saving_again_replaces(store: SqlStore) -> None:
    await store.save(a_diagnosis())
    await store.save(a_diagnosis(notes=("frame 3 of 9",)))
    assert (await store.get(Diagnosis, a_diagnosis().id)).notes == ("frame 3 of 9",)
    assert len(await store.page()) == 1


async def test_a_person_with_the_longest_name_may_review(store: SqlStore) -> None:
    await store.save(a_diagnosis())
    name = f"user:{'a' * LONGEST_SUBJECT}"
    await store.review(Review(a_diagnosis().id, NOON, name, Decision.ACCEPT, ()))
    (review,) = await store.reviews(a_diagnosis().id)
    assert review.reviewer == name


async def test_recent_diagnoses_come_page_by_page_newest_first(store: SqlStore) -> None:
    twins = [dataclasses.replace(one, created_at=NOON) for one in diagnoses(3)]
    for diagnosis in [*twins, *diagnoses(7)[3:]]:
        await store.save(diagnosis)
    seen: list[str] = []
    while page := await store.page(limit=2, after=seen[-1] if seen else None):
        seen += [one.diagnosis.id for one in page]
    assert seen == [f"id {n:03}" for n in reversed(range(7))]


async def test_recent_diagnoses_of_one_task(store: SqlStore) -> None:
    await store.save(a_diagnosis(id="chest"))
    await store.save(a_diagnosis(id="skin", task="derm"))
    assert [one.diagnosis.id for one in await store.page(Wanted(task="derm"))] == ["skin"]


async def test_moments_are_ordered_whatever_their_time_zone(store: SqlStore) -> None:
    tokyo = datetime(2026, 1, 2, 20, tzinfo=timezone(timedelta(hours=9)))  # an hour before NOON
    await store.save(a_diagnosis(id="later", created_at=NOON))
    await store.save(a_diagnosis(id="earlier", created_at=tokyo))
    assert [one.diagnosis.id for one in await store.page()] == ["later", "earlier"]
    assert (await store.get(Diagnosis, "earlier")).created_at == tokyo


def test_eight_threads_saving_at_once_lose_nothing(store: SqlStore) -> None:
    many = diagnoses(80)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: asyncio.run(store.save(one)), many))
    assert len(asyncio.run(store.page(limit=500))) == len(many)


async def test_a_store_is_ready_only_with_its_tables(store: SqlStore, tmp_path: Path) -> None:
    await store.check()
    empty = open_engine(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(Exception, match="no such table"):
        await SqlStore(empty).check()
    empty.dispose()


async def test_a_store_on_a_full_disk_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/full.db")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(Overloaded, match="the disk is full"):
        await SqlStore(engine).check()
    engine.dispose()


def test_a_document_is_plain_json() -> None:
    evidence = some_evidence(moed=(a_prediction(probabilities=(np.float32(0.25), 0.75)),))  # type: ignore[arg-type]
    document = json.loads(json.dumps(codec.encode(a_diagnosis(evidence=evidence)), allow_nan=False))
    assert codec.decode(Diagnosis, document) == a_diagnosis(evidence=evidence)


def test_a_diagnosis_of_before_arbitration_was_recorded_still_reads() -> None:
    document = codec.encode(a_diagnosis())
    for later in ("arbitration", "label_set", "coverage"):
        del document[later]
    del document["evidence"]["typicality"]

    old = codec.decode(Diagnosis, document)

    assert (old.arbitration, old.label_set, old.coverage) == (Arbitration.UNAIDED, (), None)
    assert old.evidence.typicality is None


@pytest.mark.parametrize("document", [{}, {"id": 1}, {"created_at": "yesterday"}])
def test_any_other_document_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the document of a diagnosis"):
        codec.decode(Diagnosis, document)


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)
NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple)


@given(TEXTS, NUMBERS, st.datetimes(timezones=st.just(UTC)), st.none() | st.floats(0, 1))
def test_any_diagnosis_survives_the_journey_through_json(
    texts: tuple[str, ...], numbers: tuple[float, ...], moment: datetime, share: float | None
) -> None:
    diagnosis = a_diagnosis(
        created_at=moment,
        final=LabelledAnswer(texts, numbers),
        evidence=some_evidence(rad=(a_neighbour(retrievers=texts),), moed=()),
        agreement=share,
        notes=texts,
    )
    decoded = codec.decode(Diagnosis, json.loads(json.dumps(codec.encode(diagnosis))))
    assert decoded == diagnosis
    assert isinstance(decoded.final.probabilities, tuple)


def test_a_new_database_is_for_nobody_elses_eyes(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/new/gsco.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE results (report TEXT)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    engine.dispose()

    assert modes == dict.fromkeys(("gsco.db", "gsco.db-wal", "gsco.db-shm"), 0o600)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:", "oracle://x"]
)
def test_an_unusable_url_is_named_as_such(url: str) -> None:
    with pytest.raises(Misconfigured):
        open_engine(url)


def test_a_place_that_cannot_hold_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder, and not a database")
    for place in (tmp_path / "file" / "gsco.db", tmp_path / "file", tmp_path):
        with pytest.raises(Misconfigured, match="cannot be used"):
            open_engine(f"sqlite:///{place}")


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(Misconfigured) as told:
        upgrade("postgresql://me:secret@localhost:1/gsco")
    assert "secret" not in str(told.value)


async def test_reports_and_answers_are_kept_beside_diagnoses(store: SqlStore) -> None:
    report, answer = a_report(), an_answer()

    for result in (report, answer, a_diagnosis()):
        await store.save(result)

    assert await store.get(Report, report.id) == report
    assert await store.get(Answer, answer.id) == answer
    with pytest.raises(NotFound, match="no report"):
        await store.get(Report, answer.id)
