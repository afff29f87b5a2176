"""The process that decodes: `python -m service.intake.worker`, started by the sandbox.

It imports decoders and nothing else, gives up what it does not need before it sees the first
byte from outside, and ends when its input does.
"""

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import IO, Any

from service.errors import GscoError, ImageTooLarge
from service.intake import wire
from service.intake.decoder import NO_MEMORY, decoded, identified, viewed
from service.intake.limits import Limits
from service.intake.result import Decoded
from service.intake.viewable import Frame

Decode = Callable[[bytes, Limits, int | None], Decoded]
View = Callable[[bytes, Limits, int | None], Frame]
_CPU_GRACE_SECONDS = 2


def serve(decode: Decode = decoded, view: View = viewed) -> None:
    """Decode what arrives on standard input until it ends; replies go to standard output."""
    requests, replies = _own_streams()
    header, _ = wire.receive(requests, max_body=0)
    limits = Limits(**header["limits"])
    _give_up(limits)
    replies.write(wire.READY)
    _silence(sys.stderr.fileno())
    while True:
        try:
            header, data = wire.receive(requests, limits.max_bytes)
        except EOFError:
            return
        _limit_cpu(limits.timeout_seconds)
        if header.get("identify"):
            wire.send(replies, wire.identified_header(identified(bytes(data), limits)))
        else:
            work = view if header.get("view") else decode
            _reply(replies, work, bytes(data), limits, header["frame"])


def _reply(
    replies: IO[bytes], work: Decode | View, data: bytes, limits: Limits, frame: int | None
) -> None:
    try:
        found = work(data, limits, frame)
    except GscoError as error:
        wire.send(replies, wire.refusal_header(error))
    except MemoryError:
        wire.send(replies, wire.refusal_header(ImageTooLarge(NO_MEMORY), spent=True))
    else:
        wire.send(replies, _header(found), found.pixels.data.cast("B"))


def _header(found: Decoded | Frame) -> dict[str, Any]:
    return wire.frame_header(found) if isinstance(found, Frame) else wire.decoded_header(found)


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes, out of reach of C libraries that print to standard output."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    _silence(0)
    _silence(1)
    return requests, replies


def _silence(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def _give_up(limits: Limits) -> None:
    """No more memory than allowed, no files, and no core dump: it would hold the image."""
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)


def _limit_cpu(seconds: float) -> None:
    """A backstop for the day when the parent, which watches the clock, is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = usage.ru_utime + usage.ru_stime
    soft = ceil(spent + seconds) + _CPU_GRACE_SECONDS
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
        resource.setrlimit(what, (allowed, allowed))


if __name__ == "__main__":
    serve()
