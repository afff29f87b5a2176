"""The kind of an index follows from how many vectors there are and how many of them it finds."""

import numpy as np
import pytest
from builders import sha256_of
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import index_folder, making
from retrieval.index import Index, Selection
from retrieval.kinds import FLAT, IVF_FP16, IVF_SQ8, KINDS, Kind, Rules
from retrieval.neighbour import Query
from retrieval.vectors import BLOCK, Keys, Vectors, blocks, nearest, unit

ENCODER = sha256_of("encoder")
MANY = Rules(exact_up_to=1000)
NOBODY = np.empty(0, np.int64)


def clustered(count: int, dim: int = 64, spread: float = 0.5) -> tuple[Keys, Vectors]:
    """Vectors around centres, as embeddings are."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, count // 100), dim), dtype=np.float32)
    vectors = centres[random.integers(0, len(centres), count)]
    vectors += spread * random.standard_normal(vectors.shape, dtype=np.float32)
    return np.arange(count, dtype=np.int64) * 7, unit(vectors)


def built(count: int = 4000, rules: Rules = MANY) -> Index:
    return making.build("task", "resnet18", ENCODER, *clustered(count), rules)


def test_few_vectors_are_compared_one_by_one() -> None:
    index = built(200)
    assert (index.kind, index.recall.value, len(index)) == (FLAT, 1.0, 200)


def test_many_vectors_get_the_smallest_storage_that_finds_enough() -> None:
    assert built(rules=Rules(1000, floor=0.9)).kind == IVF_SQ8
    index = built(rules=Rules(1000, floor=0.985))
    assert index.kind == IVF_FP16
    assert index.recall.value >= 0.985
    assert (index.recall.queries, index.recall.count, len(index)) == (400, 4000, 4000)


def test_where_no_lists_find_enough_the_index_is_exact() -> None:
    assert built(rules=Rules(1000, floor=1.01)).kind == FLAT
    blind = Kind("blind", "sq8", lists_per_root=0.01)
    assert built(rules=Rules(1000, (blind,), floor=0.999)).kind == FLAT


def test_recall_is_told_honestly() -> None:
    keys, vectors = clustered(5000)
    index = making.build("task", "resnet18", ENCODER, keys, vectors, Rules(1000))
    unseen = unit(vectors[::50] + 0.01 * np.roll(vectors[::50], 1, axis=0))
    truth = nearest(unseen, 10, blocks(keys, vectors))
    assert making.recall(index, unseen, truth) == pytest.approx(index.recall.value, abs=0.02)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_only_selected_cases_are_found_however_few(kind: Kind) -> None:
    keys, vectors = clustered(4000)
    rules = Rules(0, (kind,), floor=0) if not kind.exact else Rules(4000)
    index = making.build("task", "resnet18", ENCODER, keys, vectors, rules)
    few = keys[::500]
    query = Query("resnet18", ENCODER, vectors[7])
    found = index.search(query, 10, few[:1], Selection(few)).keys
    assert sorted(found) == sorted(few[1:].tolist())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_additions_and_removals_in_any_order_end_in_what_a_new_index_finds(
    data: st.DataObject,
) -> None:
    keys, vectors = clustered(300, dim=8)
    index = making.build("task", "resnet18", ENCODER, keys[:200], vectors[:200])
    held = set(range(200))
    for _ in range(data.draw(st.integers(1, 6))):
        gone = data.draw(st.sets(st.sampled_from(range(300)), max_size=20))
        index.remove(keys[sorted(gone)])
        held -= gone
        new = sorted(data.draw(st.sets(st.sampled_from(range(300)), max_size=20)) - held)
        index.add(keys[new], vectors[new])
        held |= set(new)
    now = np.array(sorted(held), np.int64)
    query = Query("resnet18", ENCODER, vectors[data.draw(st.integers(0, 299))])
    fresh = making.build("task", "resnet18", ENCODER, keys[now], vectors[now])
    assert index.keys.tolist() == keys[now].tolist()
    assert index.search(query, 10, NOBODY) == fresh.search(query, 10, NOBODY)


def test_comparing_block_by_block_finds_what_comparing_all_at_once_does() -> None:
    keys, vectors = clustered(BLOCK + 500, dim=8)
    wanted = np.argsort(-(vectors[:20] @ vectors.T), axis=1, kind="stable")[:, :5]
    found = nearest(vectors[:20], 5, blocks(keys, vectors))
    assert [set(row) for row in found.tolist()] == [set(row) for row in keys[wanted].tolist()]


def test_lists_are_mapped_from_disk_and_outlive_their_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "task" / "resnet18"
    index = built()
    query = Query("resnet18", ENCODER, clustered(4000)[1][5])
    with index_folder.writing(folder):
        index_folder.write(folder, index)
    mapped = index_folder.read(folder).index
    assert type(mapped.main.invlists).__name__ != "ArrayInvertedLists"
    for file in folder.iterdir():
        file.unlink()
    assert mapped.search(query, 10, NOBODY) == index.search(query, 10, NOBODY)
