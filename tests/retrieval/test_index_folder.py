"""Indexes on disk: damage and crashes are noticed, and never answer wrongly."""

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from library import Library, at, problem

from retrieval import index_folder
from retrieval.errors import CannotPublish, IndexUnavailable


@pytest.fixture
def built(library: Library) -> Library:
    library.put("old", 0)
    library.build()
    return library


def part(library: Library, role: str = "main") -> Path:
    """The one file of a part."""
    (file,) = library.folder().glob(f"{role}-*.faiss")
    return file


async def test_a_damaged_index_file_is_reported_until_it_is_built_again(built: Library) -> None:
    content = bytearray(part(built).read_bytes())
    content[-1] ^= 1
    part(built).write_bytes(content)
    assert "damaged" in await problem(built)
    built.build()
    assert await built.found() == ["old"]


@pytest.mark.parametrize("file", ["main-*.faiss", "recent-*.faiss", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"[1, 2]", b"{}", b'{"layout": 2}'])
async def test_a_file_with_anything_else_in_it_is_refused(
    built: Library, file: str, content: bytes
) -> None:
    built.put("new", 5)
    built.update()
    next(built.folder().glob(file)).write_bytes(content)
    assert "build it again" in await problem(built)


async def test_an_old_manifest_beside_a_new_index_is_refused(built: Library) -> None:
    old = (built.folder() / "manifest.json").read_bytes()
    built.put("new", 5)
    built.build()
    (built.folder() / "manifest.json").write_bytes(old)
    assert "does not fit its manifest" in await problem(built)
    built.update()
    assert await built.found() == ["old", "new"]


def as_written_before(library: Library, *, exact: bool = True) -> None:
    """The index in its former layout: one file, and a manifest that names both by one sha256."""
    manifest = index_folder.read(library.folder()).manifest
    content = part(library).read_bytes()
    part(library).rename(library.folder() / "index.faiss")
    fields: dict[str, object] = {
        "task": manifest.task,
        "specialist": manifest.specialist,
        "encoder_sha256": manifest.encoder_sha256,
        "dim": manifest.dim,
        "count": manifest.count,
        "exact": exact,
        "removed": [],
        "index_id": hashlib.sha256(content).hexdigest(),
        "created": manifest.created,
    }
    fields["index_id"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    (library.folder() / "manifest.json").write_text(json.dumps(fields, indent=2))


async def test_an_exact_index_of_an_earlier_version_serves_on(built: Library) -> None:
    as_written_before(built)
    named = json.loads((built.folder() / "manifest.json").read_text())["index_id"]
    retrieval = await built.search()
    assert retrieval.index_ids == (named,)
    assert len(retrieval.neighbours) == 1
    built.put("new", 5)
    built.update()
    assert await built.found() == ["old", "new"]
    built.build()
    assert not (built.folder() / "index.faiss").exists()


@pytest.mark.parametrize("damage", ["graph", "content"])
async def test_any_other_index_of_an_earlier_version_is_built_again(
    built: Library, damage: str
) -> None:
    as_written_before(built, exact=damage != "graph")
    if damage == "content":
        (built.folder() / "index.faiss").write_bytes(b"another")
    assert "earlier version: build it again" in await problem(built)
    built.update()
    assert await built.found() == ["old"]


async def test_a_crash_before_the_manifest_is_swapped_leaves_the_old_index(built: Library) -> None:
    old = (built.folder() / "manifest.json").read_bytes()
    main = part(built), part(built).read_bytes()
    built.put("new", 5)
    built.build()
    (built.folder() / "manifest.json").rename(built.folder() / "manifest.json.prepared")
    (built.folder() / "manifest.json").write_bytes(old)
    main[0].write_bytes(main[1])
    assert await built.found() == ["old"]
    built.update()
    assert await built.found() == ["old", "new"]
    assert len(list(built.folder().glob("[!.]*"))) == 3  # manifest, main, recent


async def test_a_half_written_file_left_by_a_crash_disturbs_nobody(built: Library) -> None:
    (built.folder() / "main.faiss.prepared").write_bytes(b"half")
    (built.folder() / "manifest.json.prepared").write_bytes(b'{"task": ')
    assert await built.found() == ["old"]
    built.put("new", 5)
    built.update()
    assert await built.found() == ["old", "new"]
    assert not list(built.folder().glob("*.prepared"))


async def test_an_addition_rewrites_only_the_small_part(built: Library) -> None:
    before = part(built).stat().st_mtime_ns
    built.put("new", 5)
    manifest = built.update()
    assert part(built).stat().st_mtime_ns == before
    assert (manifest.main.count, manifest.recent and manifest.recent.count) == (1, 1)


async def test_a_main_part_damaged_between_additions_is_built_again(built: Library) -> None:
    for number in range(2):
        built.put(f"new {number}", 5 + number)
        built.add(f"new {number}")
    part(built).write_bytes(b"garbage")
    built.put("newest", 10)
    built.add("newest")
    assert await built.found() == ["old", "new 0", "new 1"]
    assert await built.found(degrees=20) == ["newest", "new 1", "new 0"]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The kernel itself refuses to write on, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 40, 500])
async def test_a_full_disk_while_publishing_keeps_the_old_index(built: Library, size: int) -> None:
    before = {file.name for file in built.folder().iterdir()}
    index = index_folder.read(built.folder()).index
    index.add(np.array([7]), at(5)[None, :])
    with (
        no_file_longer_than(size),
        index_folder.writing(built.folder()),
        pytest.raises(CannotPublish, match="the former one stays"),
    ):
        index_folder.write(built.folder(), index)
    assert {file.name for file in built.folder().iterdir()} == before
    assert await built.found() == ["old"]


async def test_an_index_copied_to_another_specialist_is_refused(built: Library) -> None:
    shutil.copytree(built.folder(), built.folder("vgg16"))
    retrieval = await built.search("vgg16")
    assert "does not fit" in retrieval.missing[0].reason


async def test_a_manifest_that_claims_another_encoder_is_refused(built: Library) -> None:
    file = built.folder() / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"encoder_sha256": "0" * 64}))
    assert "does not fit its manifest" in await problem(built)


async def test_a_new_index_is_searched_without_a_restart(built: Library) -> None:
    assert await built.found() == ["old"]
    built.put("new", 5)
    manifest = built.update()
    retrieval = await built.search()
    assert len(retrieval.neighbours) == 2
    assert retrieval.index_ids == (manifest.index_id,)


def test_reading_the_same_files_twice_gives_the_same_id(built: Library) -> None:
    first, second = (index_folder.read(built.folder()).manifest for _ in range(2))
    assert first == second
    assert len(bytes.fromhex(first.index_id)) == hashlib.sha256().digest_size


def test_names_that_are_no_folder_names_are_refused(built: Library) -> None:
    for name in ("..", "a/b", "", "a\0"):
        with pytest.raises(IndexUnavailable):
            index_folder.folder_of(built.indexes, name, "resnet18")
