"""What an index folder's `manifest.json` says, and the name it gives to one state of an index."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from retrieval.index import Index
from retrieval.kinds import KINDS

LAYOUT = 2


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an index, named after its content."""

    file: str
    sha256: str
    count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index holds. `index_id` names this very state of it in a diagnosis."""

    task: str
    specialist: str
    encoder_sha256: str
    dim: int
    count: int
    kind: str
    storage: str
    lists: int
    probes: int
    recall: float  # of the ten nearest, measured when it was built
    recall_queries: int  # vectors held out to measure it; 0: exact, nothing to measure
    recall_of: int  # vectors there were then
    main: Part
    recent: Part | None
    removed: tuple[int, ...]
    index_id: str
    created: str  # ISO 8601, UTC
    nearest: tuple[float, ...] = ()  # quantiles of the similarity to the nearest other case
    nearest_of: int = 0  # how many cases there were when they were taken
    layout: int = LAYOUT

    @property
    def exact(self) -> bool:
        return KINDS[self.kind].exact

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(part.file for part in (self.main, self.recent) if part)


def describe(index: Index, main: Part, recent: Part | None) -> Manifest:
    """The manifest of an index whose parts are these files."""
    unnamed = Manifest(
        index.task,
        index.specialist,
        index.encoder_sha256,
        index.dim,
        len(index),
        index.kind.name,
        index.kind.storage,
        0 if index.exact else int(index.main.nlist),
        index.probes,
        index.recall.value,
        index.recall.queries,
        index.recall.count,
        main,
        recent,
        tuple(sorted(index.removed)),
        index_id="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        nearest=index.typical.quantiles,
        nearest_of=index.typical.count,
    )
    return replace(unnamed, index_id=_index_id(unnamed))


def to_json(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), indent=2).encode()


def parse(content: bytes) -> Manifest:
    """The manifest in a file; raises ValueError where it is none, or was changed by hand."""
    fields = json.loads(content)
    if not isinstance(fields, dict) or fields.get("layout") != LAYOUT:
        raise ValueError("not a manifest of this layout")
    try:
        manifest = _from(fields)
        fits = manifest.kind in KINDS and manifest.index_id == _index_id(manifest)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a manifest") from error
    if not fits:
        raise ValueError("changed since it was written")
    return manifest


def _from(fields: Mapping[str, Any]) -> Manifest:
    recent = fields["recent"]
    known: dict[str, Any] = {
        "main": Part(**fields["main"]),
        "recent": Part(**recent) if recent else None,
        "removed": tuple(fields["removed"]),
        "nearest": tuple(fields["nearest"]),
    }
    return Manifest(**{**fields, **known})


def _index_id(manifest: Manifest) -> str:
    """One name for all that decides a search: every field, and with them the files' sha256."""
    fields = asdict(replace(manifest, index_id=""))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
