"""Which features find the better neighbours? Pooled or unpooled, one retriever or all fused.

The images of one split are looked up among those of another, as specialists place them: by the
pooled embedding that this project stores, and by the last feature map or all tokens, flattened,
as the published procedure does. The ten nearest vote on the label; nobody finds their own patient.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval import fusion
from retrieval.bootstrap import Counts, Labels, counts, difference, macro_f1
from retrieval.fusion import CUT, Ranking
from retrieval.retriever import DEPTH, NEIGHBOURS
from retrieval.vectors import unit
from service.domain import target_labels
from specialists import task as tasks
from specialists.forward import forward
from specialists.loader import Specialist
from specialists.task import Task
from specialists.training import batches, dataset, evaluate
from specialists.training.batches import ResizedImages
from specialists.training.split import Split

WAYS = ("pooled", "unpooled")
BATCH_SIZE = 64

Features = Mapping[str, NDArray[np.float32]]  # by way, (images, numbers)


@dataclass(frozen=True)
class Lookup:
    """The queries and what they are looked up in."""

    known: tuple[Labels, ...]
    truth: tuple[Labels, ...]
    groups: tuple[str, ...]  # of the queries
    own: NDArray[np.bool_]  # (queries, references): of the same patient


def main(home: Path, task: str, data: Path, split: str, *, as_json: bool) -> None:
    found = tasks.find(home / "tasks", task)
    read = dataset.read(data, found)
    rows = compare(home / "specialists" / task, found, read.split("train"), read.split(split))
    print(json.dumps(rows, indent=2) if as_json else as_table(rows))


def compare(folder: Path, task: Task, reference: Split, asked: Split) -> list[dict[str, Any]]:
    """One row per retriever, then all fused; differences are pooled less unpooled."""
    torch.set_num_threads(1)
    lookup = _lookup(task, reference, asked)
    specialists, _ = evaluate.load_panel(folder, task)
    rankings: dict[str, list[list[Ranking]]] = {way: [] for way in WAYS}
    rows, tables = [], dict[str, dict[str, Counts]]()
    for one in specialists:
        known, queries = (features(one, split) for split in (reference, asked))
        for way in WAYS:
            rankings[way].append(_rankings(one.name, known[way], queries[way], lookup))
        tables[one.name] = {way: _judged(rankings[way][-1:], lookup) for way in WAYS}
        rows.append(_row(one.name, tables[one.name], {w: known[w].shape[1] for w in WAYS}))
    fused = {way: _judged(rankings[way], lookup) for way in WAYS}
    rows.append(_row("all fused", fused, {}))
    best = max(tables, key=lambda name: macro_f1(tables[name]["pooled"]).value)
    over = difference(fused["pooled"], tables[best]["pooled"])
    rows[-1] |= {"over_best_single": best, "over_best_single_f1": _shown(over)}
    return rows


@torch.inference_mode()
def features(one: Specialist, split: Split) -> Features:
    """Of every image, both ways, of unit length."""
    how = one.manifest.preprocessing
    backbone: Any = one.model.backbone
    unpooled = backbone.features if one.name == "alexnet" else backbone.forward_features
    images = ResizedImages(split.images, how.input_size)
    found: dict[str, list[NDArray[np.float32]]] = {way: [] for way in WAYS}
    for batch in batches.in_order(images, how.mean, how.std, BATCH_SIZE):
        found["pooled"].append(forward(one, batch)[1])
        found["unpooled"].append(unpooled(batch).flatten(1).numpy())
    return {way: unit(np.concatenate(parts)) for way, parts in found.items()}


def _lookup(task: Task, reference: Split, asked: Split) -> Lookup:
    groups = tuple(g or i for g, i in zip(asked.groups, asked.ids, strict=True))
    theirs = [g or i for g, i in zip(reference.groups, reference.ids, strict=True)]
    return Lookup(
        tuple(target_labels(task, one) for one in reference.targets),
        tuple(target_labels(task, one) for one in asked.targets),
        groups,
        np.array(groups)[:, None] == np.array(theirs)[None, :],
    )


def _rankings(
    name: str, known: NDArray[np.float32], queries: NDArray[np.float32], lookup: Lookup
) -> list[Ranking]:
    similar = np.where(lookup.own, -np.inf, queries @ known.T)
    best = np.argsort(-similar, axis=1, kind="stable")[:, : DEPTH * NEIGHBOURS]
    near = np.take_along_axis(similar, best, axis=1)
    return [
        Ranking(name, tuple(keys), tuple(values))
        for keys, values in zip(best.tolist(), near.tolist(), strict=True)
    ]


def _judged(rankings: Sequence[Sequence[Ranking]], lookup: Lookup) -> Counts:
    """What the vote of the fused neighbours of every query says, counted."""
    told = [_vote(list(lists), lookup) for lists in zip(*rankings, strict=True)]
    names = sorted({label for labels in lookup.known for label in labels})
    return counts(told, lookup.truth, lookup.groups, names)


def _vote(lists: list[Ranking], lookup: Lookup) -> Labels:
    near = fusion.within_cut(fusion.fuse(lists), CUT)[:NEIGHBOURS]
    return Counter(lookup.known[one.key] for one in near).most_common(1)[0][0]


def _row(name: str, judged: Mapping[str, Counts], numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "retriever": name,
        **{f"{way}_numbers": numbers.get(way) for way in WAYS},
        **{f"{way}_f1": _shown(macro_f1(judged[way])) for way in WAYS},
        "difference": _shown(difference(judged["pooled"], judged["unpooled"])),
    }


def _shown(estimate: Any) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    last = {name: value for name, value in rows[-1].items() if name not in names}
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n{last}"
