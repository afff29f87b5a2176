"""The study's other two procedures beside a panel: linear probes and the vote of the nearest.

Both rest on embeddings of the training split: of the specialists, or of their pretrained backbones
as they were before any training here (Doerrich et al., MedMNIST+; GSCo's specialists).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from specialists import catalogue
from specialists.architectures import EmbeddingClassifier, build, on_device
from specialists.catalogue import Architecture
from specialists.forward import probabilities
from specialists.loader import Specialist
from specialists.task import Task
from specialists.training import heads, pretrained
from specialists.training.batches import ResizedImages
from specialists.training.dataset import Dataset
from specialists.training.heads import NEIGHBOURS, Known
from specialists.training.metrics import Metrics, measure
from specialists.training.pretrained import Pretrained
from specialists.training.probe import embeddings


@dataclass(frozen=True, slots=True)
class Outcome:
    """How good a backbone is on a split by one procedure."""

    specialist: str
    procedure: str
    metrics: Metrics


def beside(
    specialists: Sequence[Specialist],
    dataset: Dataset,
    split: str,
    begins: Mapping[str, Pretrained] | None = None,
) -> list[Outcome]:
    """A linear probe and a vote of the nearest per specialist, measured on the split.

    `begins` names the pretrained weights to look through instead of the specialists' own. Raises
    InvalidDataset where there is no such split, InvalidWeights.
    """
    images = _Images(dataset, split)
    return [outcome for one in specialists for outcome in _outcomes(one, images, begins)]


def _outcomes(
    specialist: Specialist, images: "_Images", begins: Mapping[str, Pretrained] | None
) -> Iterator[Outcome]:
    task, name = images.dataset.task, specialist.name
    train, val, asked = images.embedded(specialist, begins)
    head = heads.linear(task, train, val, catalogue.probe_penalties())
    probed = probabilities(task.kind, head.logits(asked.features), 1.0).numpy()
    yield Outcome(name, "linear probe", measure(task, probed, asked.targets))
    shares = heads.nearest(task, train, asked.features)
    votes = measure(replace(task, thresholds=()), shares, asked.targets)
    yield Outcome(name, f"{NEIGHBOURS} nearest", votes)


class _Images:
    """The images of train, val and the split asked about, resized once per input size."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset = dataset
        self._splits = [dataset.split(name) for name in ("train", "val", split)]
        self._resized: dict[int, list[ResizedImages]] = {}

    def embedded(
        self, specialist: Specialist, begins: Mapping[str, Pretrained] | None
    ) -> list[Known]:
        architecture = catalogue.find(specialist.name).at(specialist.manifest.scale)
        model = specialist.model
        if begins is not None:
            model = _pretrained(specialist, self.dataset.task, architecture, begins)
        return [
            Known(embeddings(model, resized, architecture), split.targets)
            for split, resized in zip(self._splits, self._at(architecture.input_size), strict=True)
        ]

    def _at(self, size: int) -> list[ResizedImages]:
        if size not in self._resized:
            self._resized[size] = [ResizedImages(split.images, size) for split in self._splits]
        return self._resized[size]


def _pretrained(
    specialist: Specialist,
    task: Task,
    architecture: Architecture,
    begins: Mapping[str, Pretrained],
) -> EmbeddingClassifier:
    model = build(architecture, len(task.labels))
    pretrained.fill(model, begins[specialist.name], specialist.name)
    device = next(specialist.model.parameters()).device
    return on_device(model, str(device))
