"""What the embedded engine asks of a decoder, wherever that computes. Knows nothing of torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image as Pillow

from service.domain import Image
from service.generalist.choice import Answers, Distribution
from specialists.prediction import Pixels

CACHE_BYTES = 256 << 20


def spell(text: str) -> str:
    """The text with one character per byte of its UTF-8: tokens may end within a character."""
    return text.encode().decode("latin-1")


def resized(pixels: Pixels, size: int) -> Pixels:
    """(height, width, 3) RGB → (size, size, 3): bicubic, aspect ratio not kept.

    As MedDr's `build_transform` does without padding. Pillow's resampling, which is also what
    vLLM's image processor uses: other libraries differ in the last bits. What has that size
    already stays as it is.
    """
    return np.asarray(Pillow.fromarray(pixels).resize((size, size), Pillow.Resampling.BICUBIC))


def as_seen(image: Image, size: int) -> Image:
    """All that a model of that image size takes of an image."""
    return Image(resized(image.pixels, size), image.sha256, image.media_type)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which tokens continue `emitted`, the beginning of an answer to a prompt.

    Choices and `emitted` are spelled by `spell`.
    """

    image: Image
    text: str
    answers: Answers
    emitted: str


class Decoding(Protocol):
    """A loaded checkpoint that says what comes next. Everything but `is_ready` blocks, and is
    called by one thread at a time; where it computes elsewhere, GeneralistUnavailable is raised.
    """

    @property
    def weights_sha256(self) -> str: ...

    @property
    def image_size(self) -> int:
        """The side, in pixels, of what it sees of an image."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it could compute now."""
        ...

    def be_ready(self) -> None:
        """Returns when it can compute."""
        ...

    def distributions(self, asked: Sequence[Asked]) -> Sequence[Distribution | Exception]:
        """The probabilities of the tokens that continue each towards a permitted answer.

        In the place of one that fails there is why: PromptTooLong first of all.
        """
        ...

    def pieces(self, image: Image, text: str, max_tokens: int) -> Iterator[str]:
        """What each token of the likeliest text adds to it; raises PromptTooLong."""
        ...

    def close(self) -> None: ...
