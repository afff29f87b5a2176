"""Only cases that a filter lets through are retrieved."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
import sqlalchemy
from library import Library

from retrieval.neighbour import Filter
from retrieval.retriever import FaissRetriever

Restricted = Callable[[Filter], Awaitable[Library]]


@pytest.fixture
async def restricted(library: Library) -> AsyncIterator[Restricted]:
    """The same library, asked through a retriever that filters."""
    async with AsyncExitStack() as stack:

        async def restrict(only: Filter) -> Library:
            retriever = FaissRetriever(library.engine, library.indexes, neighbours=3, only=only)
            await retriever.start()
            stack.push_async_callback(retriever.close)
            return dataclasses.replace(library, retriever=retriever)

        yield restrict


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        (Filter(), ["open", "closed", "other"]),
        (Filter(licences=("CC0-1.0",)), ["open", "other"]),
        (Filter(sources=("hospital B",)), ["other"]),
        (Filter(sources=("hospital A", "hospital B"), licences=("CC0-1.0",)), ["open", "other"]),
        (Filter(modalities=("CT",)), ["closed"]),
        (Filter(modalities=("MR",)), []),
    ],
)
async def test_licence_source_and_modality(
    library: Library, restricted: Restricted, only: Filter, ids: list[str]
) -> None:
    library.put("open", 0, licence="CC0-1.0", source="hospital A", modality="DX")
    library.put("closed", 5, licence="internal", source="hospital A", modality="CT")
    library.put("other", 10, licence="CC0-1.0", source="hospital B", modality="DX")
    library.build()
    retrieval = await (await restricted(only)).search()
    assert [one.case.id for one in retrieval.neighbours] == ids
    assert retrieval.missing == ()


async def test_the_day_a_case_was_added(library: Library, restricted: Restricted) -> None:
    for case_id, degrees, day in (("old", 0, 1), ("new", 5, 20)):
        library.put(case_id, degrees)
        with library.engine.begin() as connection:
            connection.execute(
                sqlalchemy.text("UPDATE reference_cases SET created_at = :day WHERE id = :id"),
                {"day": f"2026-01-{day:02} 00:00:00.000000", "id": case_id},
            )
    library.build()
    ides_of_january = datetime(2026, 1, 15, tzinfo=UTC)
    assert await (await restricted(Filter(since=ides_of_january))).found() == ["new"]
    assert await (await restricted(Filter(until=ides_of_january))).found() == ["old"]


async def test_few_allowed_cases_are_found_behind_many_that_are_not(
    library: Library, restricted: Restricted
) -> None:
    for number in range(300):
        library.put(f"closed {number}", number / 10, licence="internal")
    library.put("open", 40, licence="CC0-1.0")
    library.build(exact_up_to=100)
    assert await (await restricted(Filter(licences=("CC0-1.0",)))).found() == ["open"]


async def test_a_case_whose_licence_was_withdrawn_is_not_shown_from_that_moment(
    library: Library, restricted: Restricted
) -> None:
    library.put("case", 0, licence="CC0-1.0")
    library.build()
    careful = await restricted(Filter(licences=("CC0-1.0",)))
    assert await careful.found() == ["case"]
    library.put("case", 0, licence="withdrawn")
    assert await careful.found() == []


async def test_own_cases_stay_hidden_under_a_filter(
    library: Library, restricted: Restricted
) -> None:
    library.put("own", 0, group="patient a")
    library.put("other", 5, group="patient b")
    library.build()
    careful = await restricted(Filter(licences=("CC0-1.0",)))
    assert await careful.found(group="patient a") == ["other"]
