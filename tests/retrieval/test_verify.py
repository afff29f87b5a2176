"""`verify` names in plain words whatever does not fit, and a new build repairs it."""

from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy
from builders import sha256_of
from library import SPECIALIST, TASK, Library, at

from retrieval import index_folder
from retrieval.verify import Verified, verify


@pytest.fixture
def sound(library: Library) -> Library:
    for degrees in range(0, 60, 5):
        library.put(f"at {degrees}", degrees)
    library.build()
    return library


def checked(library: Library) -> Verified:
    (found,) = verify(library.engine, library.indexes, TASK)
    return found


def run(library: Library, statement: str, **values: object) -> None:
    with library.engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement), values)


def vanish_from_sql(library: Library) -> None:
    run(library, "DELETE FROM reference_vectors WHERE case_id = 'at 0'")
    run(library, "DELETE FROM reference_cases WHERE id = 'at 0'")


def damage_file(library: Library) -> None:
    (file,) = library.folder().glob("main-*.faiss")
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def move_vector(library: Library) -> None:
    library.store("at 0", at(90))


def change_manifest(library: Library) -> None:
    file = library.folder() / "manifest.json"
    file.write_text(file.read_text().replace('"count": 12', '"count": 13'))


def delete_index(library: Library) -> None:
    for file in library.folder().iterdir():
        file.unlink()


def test_a_sound_index_has_no_problems(sound: Library) -> None:
    found = checked(sound)
    assert found.problems == ()
    assert (found.cases, found.stored, found.indexed, found.kind) == (12, 12, 12, "flat")
    assert found.recall == 1.0


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (vanish_from_sql, "1 case is in the index but not in the database"),
        (damage_file, "damaged or does not fit its manifest"),
        (change_manifest, "damaged or does not fit its manifest"),
        (move_vector, "1 of 3 vectors looked up differ from the stored ones"),
        (delete_index, "no index of 'resnet18' on task 'cxr-pneumonia' has been built"),
    ],
)
def test_what_is_wrong_with_an_index_is_told_and_repaired(
    sound: Library, harm: Callable[[Library], None], words: str
) -> None:
    harm(sound)
    assert words in "; ".join(checked(sound).problems)
    sound.build()
    assert checked(sound).problems == ()


def test_cases_that_wait_to_be_indexed_are_counted(sound: Library) -> None:
    sound.put("new", 50)
    assert checked(sound).problems[0] == "1 stored case is missing from the index"
    sound.update()
    assert checked(sound).problems == ()


def test_a_case_that_was_never_embedded_is_told(sound: Library) -> None:
    run(sound, "DELETE FROM reference_vectors WHERE case_id IN ('at 0', 'at 5')")
    sound.update()
    assert checked(sound).problems == ("2 cases are without a vector: ingest again",)


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (np.ones(5, "<f4"), "1 stored vector is of another size"),
        (np.array([3, 0, 0], "<f4"), "1 stored vector is not of unit length"),
        (np.full(3, np.nan, "<f4"), "1 stored vector is not of unit length"),
    ],
)
def test_a_damaged_row_is_told(sound: Library, vector: np.ndarray, words: str) -> None:
    change = "UPDATE reference_vectors SET vector = :vector WHERE case_id = 'at 10'"
    run(sound, change, vector=vector.tobytes())
    assert words in "; ".join(checked(sound).problems)


def test_an_index_of_former_weights_is_told(sound: Library) -> None:
    for degrees in range(0, 60, 5):
        sound.store(f"at {degrees}", at(degrees), encoder=sha256_of("trained again"))
    assert "the index holds vectors of encoder" in "; ".join(checked(sound).problems)


def test_an_index_that_finds_too_little_is_told(sound: Library) -> None:
    index = index_folder.read(sound.folder()).index
    index.remove(index.keys[:6])
    index.add(index.keys[:0], np.empty((0, 3), np.float32))
    with index_folder.writing(sound.folder()):
        index_folder.write(sound.folder(), index)
    problems = "; ".join(checked(sound).problems)
    assert "6 stored cases are missing from the index" in problems
    assert "of the ten nearest, less than the 98% wanted" in problems


def test_an_index_without_any_case_is_told(sound: Library) -> None:
    run(sound, "DELETE FROM reference_vectors")
    run(sound, "DELETE FROM reference_cases")
    assert checked(sound).problems == (
        "there is an index, but no vectors are stored: delete its folder",
    )


def test_other_tasks_are_left_alone(sound: Library) -> None:
    assert list(verify(sound.engine, sound.indexes, "another-task")) == []
    assert [one.specialist for one in verify(sound.engine, sound.indexes)] == [SPECIALIST]
