"""Indexes as they were written before they had parts: `index.faiss` beside its manifest.

Exact ones are read on as they are, and keep their name until they are next written. Graphs (HNSW)
must be built again.
"""

import hashlib
import json
from typing import Any

from retrieval.kinds import FLAT
from retrieval.manifest import Manifest, Part

FILE = "index.faiss"
_TYPICALITY = ("nearest", "nearest_of")


def parse(content: bytes, sha256: str) -> Manifest:
    """The manifest that fits an index file of this sha256; raises ValueError where none does."""
    fields = json.loads(content)
    if not isinstance(fields, dict) or not fields.get("exact") or fields.get("removed"):
        raise ValueError("no exact index of the former layout")
    if fields.get("index_id") != _index_id(fields, sha256):
        raise ValueError("index and manifest do not belong together")
    return Manifest(
        fields["task"],
        fields["specialist"],
        fields["encoder_sha256"],
        fields["dim"],
        fields["count"],
        FLAT.name,
        FLAT.storage,
        lists=0,
        probes=1,
        recall=1.0,
        recall_queries=0,
        recall_of=0,
        main=Part(FILE, sha256, fields["count"]),
        recent=None,
        removed=(),
        index_id=fields["index_id"],
        created=fields["created"],
        nearest=tuple(fields.get("nearest", ())),
        nearest_of=fields.get("nearest_of", 0),
    )


def _index_id(fields: dict[str, Any], sha256: str) -> str:
    told = {**fields, "index_id": sha256}
    if not fields.get("nearest"):
        told = {name: value for name, value in told.items() if name not in _TYPICALITY}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
