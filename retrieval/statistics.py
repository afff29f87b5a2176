"""What retrieval holds, for operators."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from retrieval import database, index_folder
from retrieval.database import StoredVectors
from retrieval.errors import IndexUnavailable
from retrieval.manifest import Manifest


@dataclass(frozen=True, slots=True)
class IndexStats:
    """One specialist's index of one task; `problem` says why it cannot be searched or is behind."""

    task: str
    specialist: str
    encoder_sha256: str
    cases: int
    stored: int
    indexed: int
    exact: bool
    kind: str
    recall: float | None
    index_id: str
    created: str
    problem: str = ""


def stats(engine: Engine, indexes: Path) -> tuple[IndexStats, ...]:
    """One entry per task, specialist and encoder with stored vectors. Reads every index: slow."""
    counts = database.count_cases(engine)
    return tuple(
        _entry(stored, counts.get(stored.task, 0), indexes)
        for stored in database.stored_vectors(engine)
    )


def _entry(stored: StoredVectors, cases: int, indexes: Path) -> IndexStats:
    manifest, problem = _manifest(stored, indexes)
    return IndexStats(
        stored.task,
        stored.specialist,
        stored.encoder_sha256,
        cases,
        stored.count,
        manifest.count if manifest else 0,
        exact=manifest.exact if manifest else True,
        kind=manifest.kind if manifest else "",
        recall=manifest.recall if manifest else None,
        index_id=manifest.index_id if manifest else "",
        created=manifest.created if manifest else "",
        problem=problem,
    )


def _manifest(stored: StoredVectors, indexes: Path) -> tuple[Manifest | None, str]:
    try:
        folder = index_folder.folder_of(indexes, stored.task, stored.specialist)
        manifest = index_folder.read(folder).manifest
    except IndexUnavailable as error:
        return None, str(error)
    if manifest.encoder_sha256 != stored.encoder_sha256:
        return None, f"the index holds vectors of encoder {manifest.encoder_sha256[:12]}"
    if manifest.count != stored.count:
        return manifest, f"{stored.count} vectors are stored, {manifest.count} indexed"
    return manifest, ""
