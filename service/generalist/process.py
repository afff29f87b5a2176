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
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from service.domain import Image
from service.errors import ComputationLost, GeneralistUnavailable, GscoError, PromptTooLong
from service.generalist.asked import Asked
from service.generalist.choice import Distribution
from service.generalist.wire import (
    REPLY_BYTES,
    Checkpoint,
    ComputationFailed,
    Distributions,
    Piece,
    Question,
    Ready,
    Request,
    Text,
    heard,
)

log = structlog.stdlib.get_logger(__name__)

START_SECONDS = 600.0  # the largest checkpoints are read in minutes
RETRY_SECONDS = 10.0  # from a start that failed to the next: each takes a core for seconds

_ENDED = "the generalist's process has ended"
_TOLD = (
    *("HF_HUB_OFFLINE", "HOME", "LANG", "LC_", "LD_", "MALLOC_", "PATH", "TMPDIR", "XDG_"),
    *("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TORCH"),
)
"""How the names of variables begin that say how to compute, or where files of its own may lie."""


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    pipe: Connection

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def exchange(self, message: object, seconds: float) -> Any:
        """The reply, an error too; raises GeneralistUnavailable when it ends or is late."""
        try:
            self.pipe.send(message)
            said = self.pipe.recv_bytes(REPLY_BYTES) if self.pipe.poll(seconds) else None
        except BlockingIOError:  # it takes nothing
            said = None
        except (EOFError, OSError):
            raise GeneralistUnavailable(_ENDED) from None
        if said is None:
            raise GeneralistUnavailable(f"the generalist took longer than {seconds:g} s")
        return heard(said)

    def end(self) -> None:
        """Nothing is lost with the process but what it was computing."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


class DecodingProcess:
    """As a Decoder on the same checkpoint computes; see `Decoding`.

    A computation that takes longer than `timeout_seconds` ends with the process. Whoever it
    computes for when it ends gets ComputationLost, and the next one a new process.
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
        self._failed: tuple[float, str] | None = None  # when the last start did, and why
        self._running: _Running | None = None  # once it has loaded
        self._running, self._ready = self._started()

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
            self._lose(GeneralistUnavailable(_ENDED))
        if self._failed is not None and time.monotonic() - self._failed[0] < RETRY_SECONDS:
            raise GeneralistUnavailable(self._failed[1])
        try:
            self._running, self._failed = self._replaced(), None
        except GeneralistUnavailable as error:
            self._failed = time.monotonic(), str(error)
            raise

    def distributions(self, asked: Sequence[Asked]) -> Sequence[Distribution | Exception]:
        """Where several fail together, each is computed alone: only its own fault is one's failure.

        As long as there is time left: what was late together is not begun again.
        """
        latest = time.monotonic() + self._timeout_seconds
        try:
            return self._together(asked)
        except (ComputationLost, ComputationFailed) as error:
            if len(asked) == 1:
                raise
            return [self._alone(one, latest, error) for one in asked]

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
        running, self._running = self._running, None
        if running is not None:
            running.end()

    def _together(self, asked: Sequence[Asked]) -> list[Distribution | PromptTooLong]:
        found: list[Distribution | PromptTooLong] = self._ask(Distributions(tuple(asked)))
        return found

    def _alone(self, asked: Asked, latest: float, error: Exception) -> Distribution | Exception:
        if time.monotonic() > latest:
            return error
        try:
            return self._together([asked])[0]
        except (GeneralistUnavailable, ComputationFailed) as own:
            return own

    def _ask(self, question: Question) -> Any:
        self.be_ready()
        if self._running is None:
            raise GeneralistUnavailable(_ENDED)
        left = [self._left.popleft() for _ in range(len(self._left))]
        try:
            reply = self._running.exchange(Request(question, tuple(left)), self._timeout_seconds)
        except BaseException as error:  # a reply still to come would answer the next question
            self._lose(error)
            if isinstance(error, GeneralistUnavailable):
                raise ComputationLost(str(error)) from error
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _replaced(self) -> _Running:
        """Another one with the same weights; what keeps it from starting is waited out."""
        try:
            running, ready = self._started()
        except GscoError as error:
            raise GeneralistUnavailable(str(error)) from error
        except ComputationFailed as error:
            log.warning("generalist process does not start", exc_info=error)
            problem = "the generalist's process fails while it loads: the log says where"
            raise GeneralistUnavailable(problem) from error
        if ready != self._ready:
            running.end()
            raise GeneralistUnavailable(
                "the generalist's checkpoint has changed: restart the service to use it"
            )
        return running

    def _started(self) -> tuple[_Running, Ready]:
        running = _spawned(self._timeout_seconds)
        try:
            reply = running.exchange(self._checkpoint, START_SECONDS)
        except BaseException as error:
            _give_up(running, error)
            raise
        if isinstance(reply, Ready):
            return running, reply
        running.end()
        raise reply

    def _lose(self, error: BaseException) -> None:
        running, self._running = self._running, None
        if running is not None:
            _give_up(running, error)


def _give_up(running: _Running, error: BaseException) -> None:
    """Whoever looks after the service is told: one that was late has the status of being killed."""
    running.end()
    status = running.process.returncode
    log.warning("generalist process ended", status=status, exc_info=error)


def _spawned(seconds: float) -> _Running:
    try:
        here, there = _pipe(seconds)
        with there:
            return _Running(_process(there), here)
    except OSError as error:
        problem = f"the generalist's process does not start: {error.strerror}"
        raise GeneralistUnavailable(problem) from error


def _process(there: Connection) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command
        (sys.executable, "-P", "-m", "service.generalist.worker", str(there.fileno())),
        pass_fds=(there.fileno(),),
        env=_environment(),
        start_new_session=True,  # Ctrl-C is the service's business
    )


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
    told = {name: said for name, said in os.environ.items() if name.startswith(_TOLD)}
    return told | {"PYTHONPATH": path}
