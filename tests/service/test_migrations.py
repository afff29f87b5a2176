"""The migrations make exactly the tables that the records describe."""

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from builders import a_diagnosis, a_reference_case, a_vector
from databases import empty_url
from sqlalchemy import Engine, MetaData, String, inspect, text

from retrieval import database as retrieval_database
from retrieval import ingest
from service.domain import Diagnosis
from service.errors import Misconfigured
from service.persistence.database import MIGRATIONS, _alembic, open_engine, upgrade, writing
from service.persistence.records import METADATA
from service.persistence.store import SqlStore
from service.review import Word, accepted

REVISIONS = tuple(sorted(f.name[:4] for f in (MIGRATIONS / "versions").glob("0*.py")))
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def url(either_database: str, tmp_path: Path) -> str:
    return empty_url(tmp_path)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A database without a table."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


def migrate(engine: Engine, revision: str, to: Callable[..., None] = command.upgrade) -> None:
    with writing(engine) as session:
        to(_alembic(session.connection()), revision)


def rows_of(engine: Engine) -> Rows:
    """All rows of all tables, as they lie there."""
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


def fill(engine: Engine) -> None:
    """A row in every table that has none; those that name another name its row."""
    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if connection.execute(table.select()).first() is None:
                values = {one.name: VALUES[one.type.python_type] for one in table.columns}
                connection.execute(table.insert().values(values))


VALUES = {
    str: "x",
    int: 1,
    bool: True,
    bytes: b"\0\xff",
    object: {"é": [None, 0.1]},
    datetime: datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
}


def are_kept(before: Rows, after: Rows) -> bool:
    """Whether every value of before is there; columns may have been added."""
    return all(
        all(old.items() <= new.items() for old, new in zip(rows, after[table], strict=True))
        for table, rows in before.items()
    )


def _unless_text(_context: object, _found: object, _named: object, old: Any, new: Any) -> Any:
    """SQLite knows no length of a text, so that none is changed there."""
    return False if isinstance(old, String) and isinstance(new, String) else None


def test_migrations_and_records_agree(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        compare_type = connection.dialect.name != "sqlite" or _unless_text
        context = MigrationContext.configure(connection, opts={"compare_type": compare_type})
        assert compare_metadata(context, METADATA) == []  # type: ignore[arg-type]


def test_upgrading_makes_every_table_and_may_be_repeated(engine: Engine, url: str) -> None:
    upgrade(engine)
    upgrade(url)
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


def test_processes_that_start_together_upgrade_once(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    starting = [spawn.Process(target=upgrade, args=(url,)) for _ in range(6)]
    for process in starting:
        process.start()
    for process in starting:
        process.join(60)
    assert [process.exitcode for process in starting] == [0] * 6


def test_every_step_up_and_down_keeps_what_the_older_tables_hold(engine: Engine) -> None:
    held: dict[str, Rows] = {}
    for revision in REVISIONS:
        before = rows_of(engine)
        migrate(engine, revision)
        assert are_kept(before, rows_of(engine)), revision
        fill(engine)
        held[revision] = rows_of(engine)

    for revision in reversed(REVISIONS[:-1]):
        migrate(engine, revision, command.downgrade)
        assert rows_of(engine) == held[revision], revision

    migrate(engine, "base", command.downgrade)
    assert rows_of(engine) == {}


async def test_diagnoses_outlive_the_arrival_of_reports_and_answers(engine: Engine) -> None:
    upgrade(engine)
    await SqlStore(engine).save(a_diagnosis())
    migrate(engine, "0001", command.downgrade)

    upgrade(engine)

    assert await SqlStore(engine).get(Diagnosis, a_diagnosis().id) == a_diagnosis()
    assert {"reports", "answers"} <= set(inspect(engine).get_table_names())


async def test_diagnoses_outlive_reviews_that_come_and_go(engine: Engine) -> None:
    upgrade(engine)
    store, diagnosis = SqlStore(engine), a_diagnosis()
    await store.save(diagnosis)
    await store.review(accepted(diagnosis, Word("user:reader", (), "", diagnosis.created_at)))
    migrate(engine, "0003", command.downgrade)

    upgrade(engine)

    assert await store.get(Diagnosis, diagnosis.id) == diagnosis
    assert await store.reviews(diagnosis.id) == ()


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE diagnoses (id TEXT)")
    with pytest.raises(Exception, match="already exists"):
        upgrade(engine)
    assert inspect(engine).get_table_names() == ["diagnoses"]


def test_the_migrations_are_part_of_the_package() -> None:
    assert (MIGRATIONS / "env.py").is_file()
    assert sorted((MIGRATIONS / "versions").glob("0001_*.py"))


def test_a_database_of_a_newer_version_is_named_as_such(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Misconfigured, match="another version of this program"):
        upgrade(engine)


def test_reference_cases_and_their_vectors_outlive_the_modality_and_its_removal(
    engine: Engine,
) -> None:
    upgrade(engine)
    cases = [a_reference_case(name, modality="DX") for name in ("a", "b")]
    ingest.ingest(engine, cases)
    vectors = {"a": a_vector(1), "b": a_vector(2)}
    ingest.store_vectors(engine, "cxr-pneumonia", "resnet18", "0" * 64, vectors)
    before = retrieval_database.stored_vectors(engine)

    migrate(engine, "0002", command.downgrade)
    columns = {column["name"] for column in inspect(engine).get_columns("reference_cases")}
    assert "modality" not in columns
    upgrade(engine)

    assert retrieval_database.stored_vectors(engine) == before
    unknown = tuple(dataclasses.replace(case, modality="") for case in cases)
    assert retrieval_database.cases(engine, "cxr-pneumonia") == unknown
