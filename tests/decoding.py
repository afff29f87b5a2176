"""What stories of the decoder and of its engine share: prompts, and what was computed."""

import torch

from service.generalist.choice import Answers
from service.generalist.decoder import Decoder

INITIAL = "Which diagnosis? The options are normal, nodule. Answer with exactly one option."
EVIDENCE = " Diagnoses of the specialist models: nodule, nodule, normal."
LABELS = Answers(("normal", "nodule"))


class Worked:
    """Counts what the network computes: images, those at once, and tokens of the language model."""

    def __init__(self, decoder: Decoder) -> None:
        self.images = self.tokens = 0
        self.together: list[int] = []
        decoder._model.vision_model.register_forward_pre_hook(self._image)
        decoder._model.language_model.model.layers[0].register_forward_pre_hook(self._words)

    def _image(self, _module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.images += inputs[0].shape[0]
        self.together.append(inputs[0].shape[0])

    def _words(self, _module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.tokens += inputs[0].shape[1]
