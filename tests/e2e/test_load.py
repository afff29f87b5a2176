"""A real service under load: who is answered, and what memory it takes (make load has times)."""

from pathlib import Path

import pytest

from tests.load import driving, summary
from tests.load.cases import mixed
from tests.load.process import watched
from tests.load.served import a_served_home

MORE_THAN_ALLOWED = 40
SECONDS = 90
GROWTH = 0.05


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_more_callers_than_allowed_are_answered_or_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    with a_served_home(tmp_path) as served:
        work = driving.closed(served.url, mixed(), MORE_THAN_ALLOWED, SECONDS)
        replies, looks = await watched(work, served.process_id)

    shown = summary.figures(replies, looks, SECONDS, caller_seconds=0)
    memory = [look.memory_bytes for look in looks]
    third = len(memory) // 3
    assert shown.errors == 0, shown.statuses
    assert set(shown.statuses) == {201, 503}
    assert max(memory[-third:]) < (1 + GROWTH) * max(memory[third : 2 * third])


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_models_that_answer_from_memory_are_served_as_well(tmp_path: Path) -> None:
    with a_served_home(tmp_path, without_models=True) as served:
        replies = await driving.closed(served.url, mixed(), 2, 3)

    assert {reply.status for reply in replies} == {201}
