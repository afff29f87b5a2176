"""The process that the embedded generalist computes in: a decoder at the end of a pipe.

It ends when the other end of the pipe is closed, whatever became of the service.
"""

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np
import torch

from service.domain import Image
from service.errors import GeneralistUnavailable, GscoError, InvalidCheckpoint
from service.generalist.checkpoint import Checkpoint as Loaded
from service.generalist.checkpoint import load
from service.generalist.choice import Answers
from service.generalist.decoder import Decoder
from service.generalist.wire import (
    Checkpoint,
    ComputationFailed,
    Distributions,
    Question,
    Ready,
    Reply,
    Request,
    Text,
    said,
)
from service.telemetry import places

Texts = dict[int, Iterator[str]]


def work(pipe: Connection) -> None:
    """Loads what it is told to, says so, and answers requests; errors are answers too."""
    for number in (signal.SIGINT, signal.SIGTERM):  # to the whole group: the service ends in order
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        try:
            decoder, ready = _loaded(pipe.recv())
        except Exception as error:  # noqa: BLE001 raised again in the service
            pipe.send_bytes(said(_told(error)))
            return
        pipe.send_bytes(said(ready))
        _answer(pipe, decoder)


def warm_up(decoder: Decoder) -> None:
    """The first computation allocates and compiles: not at the cost of the first case."""
    blank = Image(np.zeros((8, 8, 3), np.uint8), sha256="", media_type="image/png")
    decoder.distribution(blank, "Ready?", Answers(("yes", "no")), "")


def _loaded(checkpoint: Checkpoint) -> tuple[Decoder, Ready]:
    if checkpoint.threads is not None:
        torch.set_num_threads(checkpoint.threads)
    loaded = _read(checkpoint)
    decoder = Decoder(loaded, checkpoint.cache_bytes)
    warm_up(decoder)
    gc.collect()
    gc.freeze()  # the libraries' objects stay: each round of the collector would look at them
    return decoder, Ready(loaded.weights_sha256, decoder.image_size)


def _read(checkpoint: Checkpoint) -> Loaded:
    try:
        return load(checkpoint.folder, checkpoint.adapter)
    except OSError as error:
        place, problem = error.filename or checkpoint.folder, error.strerror or error
        raise InvalidCheckpoint(f"'{place}' cannot be read: {problem}") from error


def _answer(pipe: Connection, decoder: Decoder) -> None:
    texts: Texts = {}
    while True:
        request: Request = pipe.recv()
        for number in request.left:
            texts.pop(number, None)
        try:
            answer: Reply = _answered(decoder, texts, request.question)
        except Exception as error:  # noqa: BLE001 raised again in the service
            answer = _told(error)
        pipe.send_bytes(said(answer))


def _answered(decoder: Decoder, texts: Texts, question: Question) -> Reply:
    if isinstance(question, Distributions):
        return decoder.distributions(question.asked)
    if isinstance(question, Text):
        pieces = decoder.pieces(question.image, question.text, question.max_tokens)
        texts[question.number] = pieces
    elif question.number not in texts:
        raise GeneralistUnavailable("the generalist's process was lost while it wrote")
    return next(texts[question.number], None)


def _told(error: Exception) -> Exception:
    """As the service may hear of it: its own errors, and of others where they came from."""
    if isinstance(error, GscoError):
        return error
    return ComputationFailed(f"{type(error).__name__} at {', '.join(places(error))}")


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
