"""The process dies at any moment while cases are added: what it acknowledged is there."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from library import SPECIALIST, TASK
from sqlalchemy import Engine

from retrieval import database, index_folder, indexing
from retrieval.verify import verify
from service.persistence.database import open_engine, upgrade

KILLS = 50

ADDING = """
import sys
from pathlib import Path
from builders import a_reference_case, a_vector, sha256_of
from retrieval import index, indexing, ingest
from retrieval.kinds import IVF_FP16, Rules
from service.persistence.database import open_engine

index.FEWEST_PENDING = 7  # merges happen often
url, indexes, run = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
engine = open_engine(url)
for number in range(1_000_000):
    name = f"case-{run:03}-{number:04}"
    ingest.ingest(engine, [a_reference_case(name)])
    vector = a_vector(seed=1000 * run + number)
    ingest.store_vectors(engine, "cxr-pneumonia", "resnet18", sha256_of("encoder"), {name: vector})
    rules = Rules(40, (IVF_FP16,), floor=0)
    indexing.put(engine, indexes, "cxr-pneumonia", "resnet18", [name], rules)
    print(name, flush=True)
"""


def killed_while_adding(url: str, indexes: Path, run: int, chance: random.Random) -> list[str]:
    """The ids that the process had acknowledged when SIGKILL came."""
    tests = Path(__file__).parent.parent
    adding = subprocess.Popen(
        [sys.executable, "-c", ADDING, url, str(indexes), str(run)],
        cwd=tests,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert adding.stdout is not None
    told = [adding.stdout.readline() for _ in range(chance.randint(1, 12))]
    time.sleep(chance.uniform(0, 0.03))
    adding.kill()
    told += adding.stdout.read().splitlines(keepends=True)
    adding.wait()
    adding.stdout.close()
    return [line.strip() for line in told if line.endswith("\n")]


def indexed_ids(engine: Engine, indexes: Path) -> set[str]:
    index = index_folder.read(index_folder.folder_of(indexes, TASK, SPECIALIST)).index
    found = database.cases_by_key(engine, TASK, index.keys.tolist())
    return {case.id for case in found.values()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_lose_no_acknowledged_case_and_leave_no_unreadable_index(
    tmp_path: Path,
) -> None:
    url, indexes = f"sqlite:///{tmp_path / 'gsco.db'}", tmp_path / "indexes"
    upgrade(url)
    engine = open_engine(url)
    chance = random.Random(20261)  # noqa: S311
    acknowledged: set[str] = set()
    for run in range(KILLS):
        acknowledged |= set(killed_while_adding(url, indexes, run, chance))
        assert acknowledged <= indexed_ids(engine, indexes)
    indexing.update(engine, indexes, TASK, SPECIALIST)
    left = database.cases(engine, TASK, limit=10_000)
    assert acknowledged <= {case.id for case in left}
    (found,) = verify(engine, indexes)
    # A case may have died between its row and its vector; nothing else is wrong.
    assert all("without a vector" in problem for problem in found.problems)
    assert found.indexed == found.stored >= len(acknowledged)
    engine.dispose()
