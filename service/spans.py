"""Where the time of a case goes: spans, told to whoever watches the request or job they are of.

A span is a stretch of work with a name and a few attributes. None of them says which case it was,
or whose: what is told here ends in figures, traces and logs. Who watches is kept in a context
variable, as tasks and `asyncio.to_thread` carry it along; unwatched, a span costs nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Protocol

Attributes = Mapping[str, str]

SPECIALIST = "specialist"
SPECIALIST_QUEUE = "specialist queue"
FIRST_TOKEN = "generalist first token"  # noqa: S105 - of an answer
GENERALIST_QUEUE = "generalist queue"
"""Spans below the stages of a case; a stage is named as in its `durations_seconds`."""


class Tracer(Protocol):
    """What keeps traces; `service.tracing` has the one for OpenTelemetry."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """What happens inside is a span, below the current one."""
        ...

    def past(self, name: str, seconds: float, ago_seconds: float, attributes: Attributes) -> None:
        """A span below the current one that took so long, and ended so long ago."""
        ...

    def trace(self, name: str, traceparent: str) -> AbstractContextManager["Trace"]:
        """What happens inside is the first span of ours, below the caller's where it names one."""
        ...


class Trace(Protocol):
    """One request or job, as it is traced."""

    @property
    def id(self) -> str: ...

    def headers(self) -> dict[str, str]:
        """What tells another server to go on with this trace (W3C Trace Context)."""
        ...

    def end(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """What it turned out to be."""
        ...


@dataclass(frozen=True)
class Watch:
    """Who hears of spans: `note` of each when it has ended, with its seconds."""

    note: Callable[[str, float, Attributes], None]
    tracer: Tracer | None = None


@dataclass(frozen=True)
class _Watched:
    watch: Watch
    trace: Trace | None = None


_watched: ContextVar[_Watched | None] = ContextVar("watched", default=None)


@contextmanager
def watched(watch: Watch, name: str, traceparent: str = "") -> Iterator[Trace | None]:
    """Spans inside are told to the watch; its trace, where there are traces."""
    if watch.tracer is None:
        with _as(_Watched(watch)):
            yield None
        return
    with watch.tracer.trace(name, traceparent) as trace, _as(_Watched(watch, trace)):
        yield trace


@contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """What happens inside is one span, however it ends."""
    watched = _watched.get()
    if watched is None:
        yield
        return
    tracer, started = watched.watch.tracer, time.perf_counter()
    try:
        if tracer is None:
            yield
        else:
            with tracer.span(name, attributes):
                yield
    finally:
        watched.watch.note(name, time.perf_counter() - started, attributes)


def past(name: str, seconds: float, *, ago_seconds: float = 0.0, **attributes: str) -> None:
    """A span that somebody else has timed, ended just now or so long ago."""
    watched = _watched.get()
    if watched is None:
        return
    watched.watch.note(name, seconds, attributes)
    if watched.watch.tracer is not None:
        watched.watch.tracer.past(name, seconds, ago_seconds, attributes)


def until(name: str, **attributes: str) -> Callable[[], None]:
    """A span from now to the first call of what is returned, in whichever thread that is."""
    context, started = copy_context(), time.perf_counter()
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        if not has_ended:
            has_ended = True
            seconds = time.perf_counter() - started
            context.run(lambda: past(name, seconds, ago_seconds=0.0, **attributes))

    return end


def headers() -> dict[str, str]:
    """What another server is to be sent, so that it goes on with the current trace; or nothing."""
    watched = _watched.get()
    return watched.trace.headers() if watched is not None and watched.trace is not None else {}


@contextmanager
def _as(watched: _Watched) -> Iterator[None]:
    token = _watched.set(watched)
    try:
        yield
    finally:
        _watched.reset(token)
