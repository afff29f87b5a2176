"""The migrations make exactly the tables that the records describe."""

import dataclasses
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from builders import a_diagnosis, a_reference_case, a_vector
from sqlalchemy import Engine, inspect, text

from retrieval import database as retrieval_database
from retrieval import ingest
from service.domain import Diagnosis
from service.errors import Misconfigured
from service.persistence.database import MIGRATIONS, _alembic, open_engine, upgrade
from service.persistence.records import METADATA
from service.persistence.store import SqlStore
from service.review import Word, accepted


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/gsco.db")
    yield engine
    engine.dispose()


def test_migrations_and_records_agree(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []  # type: ignore[arg-type]


def test_upgrading_makes_every_table_and_may_be_repeated(engine: Engine) -> None:
    upgrade(engine)
    upgrade(str(engine.url))
    tables = set(inspect(engine).get_table_names())
    assert tables == {
        "reference_cases",
        "reference_vectors",
        "diagnoses",
        "reports",
        "answers",
        "jobs",
        "workers",
        "idempotency_keys",
        "api_keys",
        "audit_events",
        "audit_head",
        "reviews",
        "alembic_version",
    }


def test_processes_that_start_together_upgrade_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    url = f"sqlite:///{tmp_path}/gsco.db"
    starting = [spawn.Process(target=upgrade, args=(url,)) for _ in range(3)]
    for process in starting:
        process.start()
    for process in starting:
        process.join(60)
    assert [process.exitcode for process in starting] == [0, 0, 0]


async def test_diagnoses_outlive_the_arrival_of_reports_and_answers(engine: Engine) -> None:
    upgrade(engine)
    await SqlStore(engine).save(a_diagnosis())
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.downgrade(_alembic(connection), "0001")

    upgrade(engine)

    assert await SqlStore(engine).get(Diagnosis, a_diagnosis().id) == a_diagnosis()
    assert {"reports", "answers"} <= set(inspect(engine).get_table_names())


async def test_diagnoses_outlive_reviews_that_come_and_go(engine: Engine) -> None:
    upgrade(engine)
    store, diagnosis = SqlStore(engine), a_diagnosis()
    await store.save(diagnosis)
    await store.review(accepted(diagnosis, Word("user:reader", (), "", diagnosis.created_at)))
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.downgrade(_alembic(connection), "0003")

    upgrade(engine)

    assert await store.get(Diagnosis, diagnosis.id) == diagnosis
    assert await store.reviews(diagnosis.id) == ()


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE diagnoses (id TEXT)")
    with pytest.raises(Exception, match="already exists"):
        upgrade(engine)
    assert inspect(engine).get_table_names() == ["diagnoses"]


def test_the_migrations_are_part_of_the_package() -> None:
    assert (MIGRATIONS / "env.py").is_file()
    assert sorted((MIGRATIONS / "versions").glob("0001_*.py"))


def test_a_database_of_a_newer_version_is_named_as_such(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gsco.db'}"
    upgrade(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Misconfigured, match="another version of this program"):
        upgrade(engine)
    engine.dispose()


def test_reference_cases_and_their_vectors_outlive_the_modality_and_its_removal(
    engine: Engine,
) -> None:
    upgrade(engine)
    cases = [a_reference_case(name, modality="DX") for name in ("a", "b")]
    ingest.ingest(engine, cases)
    vectors = {"a": a_vector(1), "b": a_vector(2)}
    ingest.store_vectors(engine, "cxr-pneumonia", "resnet18", "0" * 64, vectors)
    before = retrieval_database.stored_vectors(engine)

    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.downgrade(_alembic(connection), "0002")
    columns = {column["name"] for column in inspect(engine).get_columns("reference_cases")}
    assert "modality" not in columns
    upgrade(engine)

    assert retrieval_database.stored_vectors(engine) == before
    unknown = tuple(dataclasses.replace(case, modality="") for case in cases)
    assert retrieval_database.cases(engine, "cxr-pneumonia") == unknown
