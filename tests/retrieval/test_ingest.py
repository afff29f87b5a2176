"""Putting cases in, taking them out, and keeping indexes in step."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy
from builders import a_reference_case, a_vector, sha256_of
from library import ENCODER, SPECIALIST, TASK, Library, at
from sqlalchemy import Engine

from retrieval import database, ingest
from retrieval.errors import IndexMismatch, InvalidReferenceCase, NoReferenceCases


def test_ingesting_twice_stores_once(engine: Engine) -> None:
    cases = [a_reference_case("a"), a_reference_case("b")]
    assert ingest.ingest(engine, cases) == ("a", "b")
    assert ingest.ingest(engine, cases) == ("a", "b")
    assert database.cases(engine, TASK) == tuple(cases)


def test_a_known_image_keeps_its_id_and_takes_the_new_labels(engine: Engine) -> None:
    first = a_reference_case("a")
    ingest.ingest(engine, [first], thumbnails={"a": b"small"})
    again = dataclasses.replace(first, id="another id", labels=("normal",))
    assert ingest.ingest(engine, [again]) == ("a",)
    assert database.case(engine, "a") == dataclasses.replace(first, labels=("normal",))
    assert database.thumbnail(engine, "a") == b"small"


def test_the_same_image_may_serve_two_tasks(engine: Engine) -> None:
    chest, other = a_reference_case("a"), a_reference_case("a2", task="cxr-nih")
    other = dataclasses.replace(other, image_sha256=chest.image_sha256)
    assert ingest.ingest(engine, [chest, other, chest]) == ("a", "a2", "a")
    assert database.count_cases(engine) == {TASK: 1, "cxr-nih": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"id": "a\nb"},
        {"task": "../cxr"},
        {"labels": (), "report": " "},
        {"labels": ("pneumonia", "")},
        {"labels": ("x" * 101,)},
        {"labels": ("pneumonia, left",)},
        {"labels": ('so-called "normal"',)},
        {"group": ""},
        {"image_sha256": "abc"},
        {"report": "nul \0 byte"},
        {"report": "x" * 100_001},
        {"source": "two\nlines"},
    ],
)
def test_one_bad_case_and_nothing_is_written(engine: Engine, fields: dict[str, object]) -> None:
    bad = dataclasses.replace(a_reference_case("bad"), **fields)
    with pytest.raises(InvalidReferenceCase):
        ingest.ingest(engine, [*(a_reference_case(f"good {n}") for n in range(900)), bad])
    assert database.count_cases(engine) == {}


def test_an_id_cannot_name_two_images_and_nothing_is_written(engine: Engine) -> None:
    good = [a_reference_case(f"good {n}") for n in range(900)]
    clash = a_reference_case("good 0", image_sha256=sha256_of("another image"))
    with pytest.raises(InvalidReferenceCase, match="'good 0' names another image"):
        ingest.ingest(engine, [*good, clash])
    assert database.count_cases(engine) == {}


def test_cases_are_listed_page_by_page(engine: Engine) -> None:
    ingest.ingest(engine, [a_reference_case(name) for name in "cab"])
    first = database.cases(engine, TASK, limit=2)
    rest = database.cases(engine, TASK, limit=2, after=first[-1].id)
    assert [case.id for case in first + rest] == ["a", "b", "c"]


def test_a_vector_needs_its_case_and_a_direction(library: Library) -> None:
    library.put("a", 0)
    with pytest.raises(InvalidReferenceCase, match="no reference case 'b'"):
        library.store("b", at(0))
    for useless in (np.zeros(3), np.full(3, np.nan)):
        with pytest.raises(IndexMismatch):
            library.store("a", useless.astype(np.float32))
    assert [stored.count for stored in database.stored_vectors(library.engine)] == [1]


def test_vectors_of_unequal_sizes_are_refused(library: Library) -> None:
    library.put("a", 0)
    library.put("b", 0)
    with pytest.raises(IndexMismatch, match="unequal sizes"):
        ingest.store_vectors(
            library.engine, TASK, SPECIALIST, ENCODER, {"a": a_vector(), "b": at(0)}
        )
    library.store("a", a_vector())
    with pytest.raises(IndexMismatch, match="unequal sizes"):
        library.build()


def test_nothing_stored_is_nothing_to_build(library: Library) -> None:
    with pytest.raises(NoReferenceCases):
        library.build()


async def test_added_cases_are_found_and_removed_ones_are_not(library: Library) -> None:
    library.put("a", 0)
    library.build()
    library.put("b", 5)
    library.update()
    assert await library.found() == ["a", "b"]
    assert library.remove("a", "unknown") == 1
    assert await library.found() == ["b"]
    assert database.case(library.engine, "a") is None


async def test_an_emptied_index_finds_nothing_and_is_not_missing(library: Library) -> None:
    library.put("a", 0)
    library.build()
    library.remove("a")
    retrieval = await library.search()
    assert retrieval.neighbours == retrieval.missing == ()


async def test_an_update_lets_go_of_cases_removed_behind_its_back(library: Library) -> None:
    library.put("a", 0)
    library.put("b", 5)
    library.build()
    with library.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM reference_vectors WHERE case_id = 'a'"))
    assert library.update().count == 1
    assert await library.found() == ["b"]


async def test_a_lost_index_is_rebuilt_from_the_stored_vectors(library: Library) -> None:
    library.put("a", 0)
    first = library.build()
    for file in library.folder().iterdir():
        file.unlink()
    assert await library.found() == []
    assert library.update().count == first.count
    assert await library.found() == ["a"]


async def test_a_specialist_trained_again_starts_a_new_index(library: Library) -> None:
    library.put("a", 0)
    library.put("b", 5)
    library.build()
    again = sha256_of("trained again")
    for name in "ab":
        library.store(name, a_vector(dimension=8), encoder=again)
    manifest = library.update()
    assert (manifest.encoder_sha256, manifest.dim, manifest.count) == (again, 8, 2)


@pytest.mark.parametrize("change", [Library.build, Library.update])
async def test_cases_embedded_only_by_former_weights_keep_the_old_index(
    library: Library, change: Callable[[Library], object]
) -> None:
    for degrees in range(5):
        library.put(f"at {degrees}", degrees)
    library.build()
    library.store("at 0", at(0), encoder=sha256_of("trained again"))
    with pytest.raises(IndexMismatch, match="4 of 5 reference cases of task 'cxr-pneumonia' have"):
        change(library)
    assert await library.found() == ["at 0", "at 1", "at 2"]


async def test_lists_drop_and_take_back_cases_as_an_exact_index_does(library: Library) -> None:
    for degrees in range(0, 150, 5):
        library.put(f"at {degrees}", degrees)
    assert not library.build(exact_up_to=10).exact
    library.remove("at 5")
    assert await library.found(degrees=4) == ["at 0", "at 10", "at 15"]
    library.put("at 200", 200)
    assert library.update(exact_up_to=10).removed
    assert (await library.found(degrees=200))[0] == "at 200"
    library.put("at 5", 5)
    assert library.update(exact_up_to=10).count == 31
    assert (await library.found(degrees=4))[0] == "at 5"


async def test_what_waits_too_long_is_merged_and_nothing_is_lost(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.index.FEWEST_PENDING", 5)
    for degrees in range(0, 150, 5):
        library.put(f"at {degrees}", degrees)
    library.build(exact_up_to=10)
    library.remove("at 5")
    for degrees in range(200, 230, 5):
        library.put(f"at {degrees}", degrees)
        manifest = library.add(f"at {degrees}", exact_up_to=10)
    assert (manifest.main.count, manifest.recent, manifest.removed) == (35, None, ())
    assert await library.found(degrees=211) == ["at 210", "at 215", "at 205"]
    assert await library.found(degrees=6) == ["at 10", "at 0", "at 15"]


async def test_lists_far_outgrown_are_made_again(library: Library) -> None:
    for degrees in range(20):
        library.put(f"at {degrees}", degrees)
    assert library.build(exact_up_to=10).recall_of == 20
    for degrees in range(20, 45):
        library.put(f"at {degrees}", degrees)
    assert library.update(exact_up_to=10).recall_of == 45


async def test_a_vector_stored_again_replaces_the_former_one(library: Library) -> None:
    library.put("moves", 0)
    library.put("stays", 10)
    library.build()
    library.store("moves", at(40))
    assert library.add("moves").count == 2
    assert await library.found(degrees=40) == ["moves", "stays"]


async def test_an_index_that_outgrows_exact_search_gets_lists(library: Library) -> None:
    for degrees in range(10):
        library.put(f"at {degrees}", degrees)
    assert library.build(exact_up_to=10).exact
    library.put("one more", 11)
    assert not library.update(exact_up_to=10).exact
    assert (await library.found(degrees=11))[0] == "one more"
