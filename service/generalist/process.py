"""A decoder in a process of its own: started, asked, and replaced when it has ended.

Python has one lock a process, and a decoder of many small operations would hold it all the time
(docs/decisions/0018-prompts-together.md).
"""

import multiprocessing
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from service.domain import Image
from service.errors import GeneralistUnavailable, PromptTooLong
from service.generalist.asked import Asked
from service.generalist.choice import Distribution
from service.generalist.wire import Checkpoint, Distributions, Piece, Question, Ready, Request, Text

log = structlog.stdlib.get_logger(__name__)

_ENDED = "the generalist's process has ended"
_LATE = object()


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    pipe: Connection

    def has_ended(self) -> bool:
        return self.process.poll() is not None


class DecodingProcess:
    """As a Decoder on the same checkpoint computes; see `Decoding`.

    A computation that takes longer than `timeout_seconds` ends with the process. Whoever asks
    when it has ended gets GeneralistUnavailable, and the next one a new process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        adapter: Path | None,
        threads: int | None,
        cache_bytes: int,
        timeout_seconds: float,
    ) -> None:
        """Starts it and waits until it has loaded; raises InvalidCheckpoint."""
        self._checkpoint = Checkpoint(folder, adapter, threads, cache_bytes)
        self._timeout_seconds = timeout_seconds
        self._numbers = count()
        self._left: deque[int] = deque()  # texts that are not read on; any thread adds to them
        self._running: _Running | None = None
        self._ready = self._start()

    @property
    def weights_sha256(self) -> str:
        return self._ready.weights_sha256

    @property
    def image_size(self) -> int:
        return self._ready.image_size

    @property
    def is_ready(self) -> bool:
        running = self._running
        return running is not None and not running.has_ended()

    def be_ready(self) -> None:
        """Starts another process where the last one has ended; raises GeneralistUnavailable."""
        if self.is_ready:
            return
        if self._running is not None:
            self._lose()
        ready = self._start()
        if ready != self._ready:
            self._discard()
            raise GeneralistUnavailable(
                "the generalist's checkpoint has changed: restart the service to use it"
            )

    def distributions(self, asked: Sequence[Asked]) -> list[Distribution | PromptTooLong]:
        found: list[Distribution | PromptTooLong] = self._ask(Distributions(tuple(asked)))
        return found

    def pieces(self, image: Image, text: str, max_tokens: int) -> Iterator[str]:
        number = next(self._numbers)
        question: Question = Text(number, image, text, max_tokens)
        try:
            while (piece := self._ask(question)) is not None:
                yield piece
                question = Piece(number)
        finally:
            self._left.append(number)

    def close(self) -> None:
        self._discard()

    def _ask(self, question: Question) -> Any:
        self.be_ready()
        left = [self._left.popleft() for _ in range(len(self._left))]
        return self._exchange(Request(question, tuple(left)), self._timeout_seconds)

    def _start(self) -> Ready:
        self._running = _spawned(self._timeout_seconds)
        try:
            ready: Ready = self._exchange(self._checkpoint, None)
        except BaseException:
            self._discard()
            raise
        return ready

    def _exchange(self, message: object, seconds: float | None) -> Any:
        """Raises what the process raised, and GeneralistUnavailable when it ends or is late."""
        running = self._running
        if running is None:
            raise GeneralistUnavailable(_ENDED)
        try:
            running.pipe.send(message)
            reply = running.pipe.recv() if running.pipe.poll(seconds) else _LATE
        except BlockingIOError:  # it takes nothing
            reply = _LATE
        except (EOFError, OSError):
            self._lose()
            raise GeneralistUnavailable(_ENDED) from None
        if reply is _LATE:
            self._lose()
            raise GeneralistUnavailable(f"the generalist took longer than {seconds:g} s")
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _discard(self) -> None:
        """Nothing is lost with the process but what it was computing."""
        running, self._running = self._running, None
        if running is not None:
            running.pipe.close()
            running.process.kill()
            running.process.wait()

    def _lose(self) -> None:
        """Gives it up; whoever looks after the service is told."""
        running = self._running
        self._discard()
        if running is not None:
            log.warning("generalist process ended", status=running.process.returncode)


def _spawned(seconds: float) -> _Running:
    here, there = _pipe(seconds)
    with there:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own command
                (sys.executable, "-P", "-m", "service.generalist.worker", str(there.fileno())),
                pass_fds=(there.fileno(),),
                env=_environment(),
                start_new_session=True,  # Ctrl-C is the service's business
            )
        except OSError as error:
            here.close()
            problem = f"the generalist's process does not start: {error.strerror}"
            raise GeneralistUnavailable(problem) from error
    return _Running(process, here)


def _pipe(seconds: float) -> tuple[Connection, Connection]:
    """Both ends; what the other side does not take for so long is BlockingIOError."""
    here, there = multiprocessing.Pipe()
    with socket.socket(fileno=os.dup(here.fileno())) as end:
        bound = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
    return here, there


def _environment() -> dict[str, str]:
    """What the process gets to know: where the code is, and no setting or secret."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    others = {name: said for name, said in os.environ.items() if not name.startswith("GSCO_")}
    return others | {"PYTHONPATH": path}
