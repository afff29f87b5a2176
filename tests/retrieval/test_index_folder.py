"""Indexes on disk: damage and crashes are noticed, and never answer wrongly."""

import hashlib
import json
import shutil

import pytest
from library import Library, problem

from retrieval import index_folder
from retrieval.errors import IndexUnavailable


@pytest.fixture
def built(library: Library) -> Library:
    library.put("old", 0)
    library.build()
    return library


async def test_a_damaged_index_file_is_reported_until_it_is_built_again(built: Library) -> None:
    file = built.folder() / "index.faiss"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "damaged" in await problem(built)
    built.build()
    assert await built.found() == ["old"]


@pytest.mark.parametrize("file", ["index.faiss", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"[1, 2]", b"{}"])
async def test_a_file_with_anything_else_in_it_is_refused(
    built: Library, file: str, content: bytes
) -> None:
    (built.folder() / file).write_bytes(content)
    assert "build it again" in await problem(built)


async def test_an_old_manifest_beside_a_new_index_is_refused(built: Library) -> None:
    old = (built.folder() / "manifest.json").read_bytes()
    built.put("new", 5)
    built.update()
    (built.folder() / "manifest.json").write_bytes(old)
    assert "does not fit its manifest" in await problem(built)
    built.update()
    assert await built.found() == ["old", "new"]


async def test_a_crash_between_the_two_swaps_leaves_the_new_index(built: Library) -> None:
    manifest = built.folder() / "manifest.json"
    old = manifest.read_bytes()
    built.put("new", 5)
    built.update()
    manifest.rename(built.folder() / "manifest.json.prepared")
    manifest.write_bytes(old)
    assert await built.found() == ["old", "new"]


async def test_a_crash_between_the_first_two_swaps_ever_leaves_the_index(built: Library) -> None:
    manifest = built.folder() / "manifest.json"
    manifest.rename(built.folder() / "manifest.json.prepared")
    assert await built.found() == ["old"]


async def test_a_crash_before_the_first_swap_leaves_the_old_index(built: Library) -> None:
    before = {file.name: file.read_bytes() for file in built.folder().iterdir()}
    built.put("new", 5)
    built.update()
    for name in ("index.faiss", "manifest.json"):
        (built.folder() / name).rename(built.folder() / f"{name}.prepared")
        (built.folder() / name).write_bytes(before[name])
    assert await built.found() == ["old"]
    built.update()
    assert await built.found() == ["old", "new"]


async def test_a_half_written_file_left_by_a_crash_disturbs_nobody(built: Library) -> None:
    (built.folder() / "index.faiss.prepared").write_bytes(b"half")
    (built.folder() / "manifest.json.prepared").write_bytes(b'{"task": ')
    assert await built.found() == ["old"]
    built.put("new", 5)
    built.update()
    assert await built.found() == ["old", "new"]


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
    _, first = index_folder.read(built.folder())
    _, second = index_folder.read(built.folder())
    assert first == second
    assert len(bytes.fromhex(first.index_id)) == hashlib.sha256().digest_size


def test_names_that_are_no_folder_names_are_refused(built: Library) -> None:
    for name in ("..", "a/b", "", "a\0"):
        with pytest.raises(IndexUnavailable):
            index_folder.folder_of(built.indexes, name, "resnet18")
