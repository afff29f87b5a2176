"""What a search returns, and what it never returns."""

import asyncio
import dataclasses

import numpy as np
import pytest
import sqlalchemy
from builders import a_reference_case, sha256_of
from library import ENCODER, TASK, Library, at, problem

from retrieval import ingest
from retrieval.neighbour import Query
from retrieval.records import ReferenceCaseRecord
from retrieval.retriever import FaissRetriever


async def test_the_nearest_cases_come_first_with_their_similarity(library: Library) -> None:
    library.put("near", 10)
    library.put("nearer", 5)
    library.build()
    retrieval = await library.search()
    assert [one.case.id for one in retrieval.neighbours] == ["nearer", "near"]
    assert retrieval.neighbours[0].similarity == pytest.approx(np.cos(np.radians(5)))
    assert retrieval.neighbours[0].case == a_reference_case("nearer")
    assert not retrieval.missing


async def test_retrievers_are_fused_and_named(library: Library) -> None:
    library.put("known to both", 20, "resnet18", "vgg16")
    library.put("known to one", 0, "vgg16")
    indexes = [library.build("resnet18").index_id, library.build("vgg16").index_id]
    retrieval = await library.search("resnet18", "vgg16")
    assert [one.retrievers for one in retrieval.neighbours] == [("resnet18", "vgg16"), ("vgg16",)]
    assert retrieval.index_ids == tuple(indexes)


async def test_nobody_retrieves_their_own_group(library: Library) -> None:
    for number in range(40):
        library.put(f"own {number}", 0, group="patient a")
    library.put("other", 10, group="patient b")
    library.build()
    assert await library.found(group="patient a") == ["other"]


async def test_the_image_itself_is_never_returned(library: Library) -> None:
    library.put("same", 0)
    library.put("other", 10)
    library.build()
    assert await library.found(image_sha256=sha256_of("image of same")) == ["other"]


async def test_a_group_stored_after_the_index_was_built_counts(library: Library) -> None:
    library.put("case", 0, group="unknown")
    library.build()
    library.put("case", 0, group="patient a")
    assert await library.found(group="patient a") == []


async def test_no_more_neighbours_than_asked_for_and_none_far_below_the_best(
    library: Library,
) -> None:
    for degrees in (0, 10, 20, 30, 60):
        library.put(f"at {degrees}", degrees)
    library.build()
    assert await library.found() == ["at 0", "at 10", "at 20"]
    assert await library.found(degrees=75) == ["at 60"]


async def test_without_a_cut_distant_cases_are_shown(library: Library) -> None:
    library.put("far", 80)
    library.put("near", 0)
    library.build()
    retriever = FaissRetriever(library.engine, library.indexes, cut=None)
    await retriever.start()
    frank = dataclasses.replace(library, retriever=retriever)
    assert await frank.found() == ["near", "far"]
    await retriever.close()


async def test_a_retriever_without_an_index_does_not_stop_the_others(library: Library) -> None:
    library.put("case", 0, "resnet18")
    library.build("resnet18")
    retrieval = await library.search("vgg16", "resnet18", "../resnet18")
    assert [one.case.id for one in retrieval.neighbours] == ["case"]
    assert [one.retriever for one in retrieval.missing] == ["vgg16", "../resnet18"]
    assert retrieval.missing[0].reason == f"no index of 'vgg16' on task {TASK!r} has been built"


async def test_an_index_of_another_encoder_is_not_searched(library: Library) -> None:
    library.put("case", 0)
    library.build()
    retrieval = await library.search(encoder=sha256_of("trained again"))
    assert retrieval.neighbours == retrieval.index_ids == ()
    assert "holds vectors of encoder" in retrieval.missing[0].reason
    assert "build it again, or restart the service" in retrieval.missing[0].reason


async def test_says_beforehand_which_indexes_cannot_be_searched(library: Library) -> None:
    library.put("case", 0, "resnet18", "vgg16")
    library.build("resnet18")
    encoders = {"resnet18": ENCODER, "vgg16": ENCODER}

    missing = await library.retriever.unsearchable(TASK, encoders)
    other = await library.retriever.unsearchable(TASK, {"resnet18": sha256_of("trained again")})

    assert [one.retriever for one in missing] == ["vgg16"]
    assert missing[0].reason == f"no index of 'vgg16' on task {TASK!r} has been built"
    assert other[0].reason == "its index is of other weights: build it again"


@pytest.mark.parametrize("vector", [np.ones(5, np.float32), np.zeros(3, np.float32)])
async def test_a_vector_that_fits_no_index_is_refused(library: Library, vector: np.ndarray) -> None:
    library.put("case", 0)
    library.build()
    query = Query("resnet18", ENCODER, vector)
    retrieval = await library.retriever.search(TASK, (query,), group=None, image_sha256="")
    assert len(retrieval.missing) == 1
    assert not retrieval.neighbours


async def test_without_the_database_every_retriever_is_missing(library: Library) -> None:
    library.put("case", 0)
    library.build()
    ReferenceCaseRecord.metadata.drop_all(library.engine)
    assert "the reference cases cannot be read" in await problem(library)


async def test_a_row_that_is_gone_is_not_returned_even_if_its_index_still_has_it(
    library: Library,
) -> None:
    for degrees in range(5):
        library.put(f"case {degrees}", degrees)
    library.build()
    with library.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM reference_cases WHERE id = 'case 0'"))
    assert await library.found() == ["case 1", "case 2", "case 3"]


async def test_an_index_beside_another_database_names_no_wrong_case(library: Library) -> None:
    library.put("first", 0)
    library.build()
    ReferenceCaseRecord.metadata.drop_all(library.engine)
    ReferenceCaseRecord.metadata.create_all(library.engine)
    ingest.ingest(library.engine, [a_reference_case("second")])
    assert await library.found() == []


async def test_searches_go_on_while_the_index_is_written(library: Library) -> None:
    library.put("case", 0)
    library.build()

    async def rebuild() -> None:
        for _ in range(20):
            await asyncio.to_thread(library.build)

    rebuilding = asyncio.create_task(rebuild())
    while not rebuilding.done():
        retrieval = await library.search()
        assert [one.case.id for one in retrieval.neighbours] == ["case"], retrieval.missing
    await rebuilding


async def test_a_search_before_the_start_is_a_mistake(library: Library) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        await FaissRetriever(library.engine, library.indexes).search(
            TASK, (Query("resnet18", ENCODER, at(0)),), group=None, image_sha256=""
        )


async def test_stats_tell_what_is_stored_and_what_can_be_searched(library: Library) -> None:
    library.put("case", 0, "resnet18", "vgg16")
    library.build("resnet18")
    built, missing = await library.retriever.stats()
    assert (built.specialist, built.cases, built.stored, built.indexed) == ("resnet18", 1, 1, 1)
    assert built.problem == ""
    assert "has been built" in missing.problem


async def test_an_index_whose_cases_are_all_unknown_is_reported_as_missing(
    library: Library,
) -> None:
    library.put("case", 0)
    library.build()
    with library.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM reference_vectors"))
        connection.execute(sqlalchemy.text("DELETE FROM reference_cases"))
    assert "do not belong together" in await problem(library)


async def test_one_known_case_far_behind_many_removed_ones_is_no_foreign_database(
    library: Library,
) -> None:
    for number in range(10):
        library.put(f"gone {number}", number / 10)
    library.put("kept", 80)
    library.build()
    with library.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM reference_cases WHERE id LIKE 'gone %'"))
    retrieval = await library.search()
    assert retrieval.missing == ()
