"""One decoding process: started, asked, watched by the clock, and replaced when it ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import IO, Any

from service.errors import Misconfigured, UnreadableImage
from service.intake import wire
from service.intake.deidentify import DicomReferences
from service.intake.limits import Limits
from service.intake.result import Decoded
from service.intake.viewable import Frame

_START_SECONDS = 60.0
_PIPE_BYTES = 2**20  # what Linux allows anyone; the default of 64 KiB makes large images slow
_CRASHED = "the image made its decoder fail"


class Worker:
    """One process, used by one thread at a time."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self._command = tuple(command)
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._decodes = 0

    @property
    def process_id(self) -> int | None:
        process = self._process
        return process.pid if process is not None else None

    def start(self) -> None:
        """Start the process and wait for it; Misconfigured when it does not come up."""
        self._spawn()
        self._wait_until_ready()

    def decode(self, data: bytes, frame: int | None) -> Decoded:
        """Have an image decoded; after a crash, or too long a time, the process is gone."""
        header, body = self._ask({"frame": frame}, data)
        try:
            return wire.decoded_from(header, body, self._limits)
        except wire.BrokenReply:
            self.discard()
            raise UnreadableImage(_CRASHED) from None

    def view(self, data: bytes, frame: int | None) -> Frame:
        """Have a frame made ready to be looked at; see `decode`."""
        header, body = self._ask({"frame": frame, "view": True}, data)
        try:
            return wire.frame_from(header, body, self._limits)
        except wire.BrokenReply:
            self.discard()
            raise UnreadableImage(_CRASHED) from None

    def identify(self, data: bytes) -> DicomReferences | None:
        """Have a file's identifiers read."""
        header, _ = self._ask({"identify": True}, data)
        try:
            return wire.references_from(header)
        except wire.BrokenReply:
            self.discard()
            raise UnreadableImage(_CRASHED) from None

    def _ask(self, what: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        """The reply of the process; UnreadableImage when it crashes or takes too long."""
        self._be_ready()
        self._decodes += 1
        try:
            with self._deadline(self._limits.timeout_seconds) as expired:
                return self._exchange(what, data)
        except (wire.BrokenReply, OSError, EOFError, ValueError):
            self.discard()
        seconds = self._limits.timeout_seconds
        late = f"decoding the image took longer than {seconds:g} s"
        raise UnreadableImage(late if expired.is_set() else _CRASHED)

    def renew_if_needed(self) -> None:
        """Replace a process that ended, or that has decoded enough for leaks to matter.

        The new one gets ready while the next image is still on its way.
        """
        if self._decodes >= self._limits.decodes_per_worker:
            self.discard()
        if self._process is None:
            self._spawn()

    def end(self) -> None:
        """Kill the process and whatever it started; safe from any thread."""
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def discard(self) -> None:
        """Kill the process and close its pipes."""
        self.end()
        process, self._process, self._is_ready = self._process, None, False
        if process is None:
            return
        process.wait()
        for pipe in _pipes(process):
            pipe.close()

    def _be_ready(self) -> None:
        if self._process is None or self._process.poll() is not None:  # it ended while idle
            self._spawn()
        if not self._is_ready:
            self._wait_until_ready()

    def _spawn(self) -> None:
        self.discard()
        self._decodes = 0
        self._process = subprocess.Popen(  # noqa: S603 - our own command, nothing from outside
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=_PIPE_BYTES,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is the service's business; and all of it can be killed
        )

    def _wait_until_ready(self) -> None:
        requests, replies = _pipes(self._running())
        try:
            with self._deadline(_START_SECONDS):
                wire.send(requests, {"limits": asdict(self._limits)})
                self._is_ready = wire.read(replies, len(wire.READY)) == wire.READY
        except (OSError, EOFError):
            self._is_ready = False
        if not self._is_ready:
            self.discard()
            raise Misconfigured("the process that decodes images does not start")

    def _exchange(self, what: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        requests, replies = _pipes(self._running())
        wire.send(requests, what, data)
        header, body = wire.receive(replies, 3 * self._limits.max_pixels)
        if header.get("spent"):  # what the image left behind would take memory from the next one
            self.discard()
        return header, body

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise EOFError("the process is gone")
        return self._process

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the process when the time is up, which ends every wait on its pipes."""
        expired = threading.Event()

        def strike() -> None:
            expired.set()
            self.end()

        clock = threading.Timer(seconds, strike)
        clock.daemon = True
        clock.start()
        try:
            yield expired
        finally:
            clock.cancel()
            clock.join()


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    """What the worker reads from, and what it writes to."""
    if process.stdin is None or process.stdout is None:
        raise EOFError("the process has no pipes")
    return process.stdin, process.stdout


def _environment() -> dict[str, str]:
    """All a worker gets to know: where the code is. Settings and secrets stay here.

    One thread for numpy, as every further one takes address space that images need.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
