"""What stories of the decoder and of its engine share: prompts, and what was computed."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
from builders import an_image

from service.domain import Prompt
from service.generalist.asked import CACHE_BYTES, Decoding
from service.generalist.checkpoint import load
from service.generalist.choice import Answers
from service.generalist.decoder import Decoder
from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.process import DecodingProcess

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


class InThisProcess(EmbeddedGeneralist):
    """The engine with its decoder at hand: quicker to start, and open to be watched."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        super().__init__(folder, **terms)
        self._begin = lambda: DecoderAtHand(folder)

    @property
    def decoder(self) -> "DecoderAtHand":
        decoder: Decoding = self._demand_decoder()
        assert isinstance(decoder, DecoderAtHand)
        return decoder


class Borrowing(EmbeddedGeneralist):
    """The engine with a process that others use after it."""

    def __init__(self, folder: Path, process: DecodingProcess) -> None:
        super().__init__(folder)
        self._begin = lambda: process

    async def close(self) -> None:
        self._decoder = None
        await super().close()


class DecoderAtHand(Decoder):
    """A decoder in the thread of whoever asks."""

    def __init__(self, folder: Path) -> None:
        loaded = load(folder)
        super().__init__(loaded)
        self.weights_sha256 = loaded.weights_sha256
        self.is_ready = True

    def be_ready(self) -> None: ...

    def close(self) -> None: ...


def a_process(folder: Path) -> DecodingProcess:
    return DecodingProcess(
        folder, adapter=None, threads=1, cache_bytes=CACHE_BYTES, timeout_seconds=60
    )


def process_of(generalist: EmbeddedGeneralist) -> subprocess.Popen[bytes]:
    decoder = generalist._demand_decoder()
    assert isinstance(decoder, DecodingProcess)
    assert decoder._running is not None
    return decoder._running.process


def a_long_text() -> Prompt:
    return Prompt(an_image(), INITIAL, max_tokens=300)


@asynccontextmanager
async def started(generalist: EmbeddedGeneralist) -> AsyncIterator[EmbeddedGeneralist]:
    await generalist.start()
    try:
        yield generalist
    finally:
        await generalist.close()
