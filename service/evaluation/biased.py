"""A panel of one wrong mind, to see whether the generalist still looks for itself."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from service import ports
from service.domain import pixels_sha256
from specialists.prediction import Consultation, Pixels, SpecialistPrediction
from specialists.task import Task


@dataclass(frozen=True)
class BiasedPanel:
    """The panel within, every specialist of which names a wrong label as surely as its own answer.

    `wrong` gives the label's place by the image's `pixels_sha256`. Embeddings stay as they are.
    """

    within: ports.Specialists
    wrong: Mapping[str, int]

    async def consult(self, pixels: Pixels, task: Task) -> Consultation:
        consultation = await self.within.consult(pixels, task)
        label = self.wrong[pixels_sha256(pixels)]
        return replace(
            consultation,
            predictions=tuple(forced(one, label) for one in consultation.predictions),
        )


def forced(prediction: SpecialistPrediction, label: int) -> SpecialistPrediction:
    """The prediction with the likeliest label's probability and the given one's exchanged."""
    said = list(prediction.probabilities)
    likeliest = max(range(len(said)), key=said.__getitem__)
    said[label], said[likeliest] = said[likeliest], said[label]
    return replace(prediction, probabilities=tuple(said))


def wrong_label(case_id: str, truth: int, labels: int) -> int:
    """A label other than the truth, always the same for a case."""
    drawn = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8])
    return (truth + 1 + drawn % (labels - 1)) % labels
