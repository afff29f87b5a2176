"""What the service logs: events that name the request, and no patient.

Log lines are events with fields (structlog), as JSON or for a console, with the request's id.
Fields whose names sound like a patient's are dropped, and so are the texts of errors that are
not ours: a library's message may quote what it was reading. Tracebacks keep types and places.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from service import spans
from service.spans import Trace, Watch

DENIED_WORDS = ("patient", "filename", "file_name", "birth", "accession", "physician", "_uid")
OUR_PACKAGES = ("service", "specialists", "retrieval")


def configure_logging(
    level: str = "info", log_format: str = "json", stream: TextIO | None = None
) -> None:
    """Every logger of this process, our own and the libraries', writes here: standard error."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _silence_libraries()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # first: what is not logged costs next to nothing
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def drop_patient_fields(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Fields that could hold an identifier of a patient are left out, however deep they lie."""
    return _without_denied(event)


def place_errors(_logger: object, _method: str, event: EventDict) -> EventDict:
    """An exception becomes its types and places; its text only where this project wrote it."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["error"] = [_described(link) for link in _chain(error)]
    return event


@contextmanager
def following(watch: Watch, name: str, traceparent: str = "") -> Iterator[Trace | None]:
    """Spans inside are told to the watch, and log lines name the trace where there are traces."""
    with spans.watched(watch, name, traceparent) as trace:
        named = {} if trace is None else {"trace_id": trace.id}
        with structlog.contextvars.bound_contextvars(**named):
            yield trace


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        place_errors,
        drop_patient_fields,
    ]


def _formatter(log_format: str) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _silence_libraries() -> None:
    """Uvicorn's access lines quote whole addresses; ours replace them. httpx logs every call."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for name in ("httpx", "httpcore", "PIL", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_denied(fields: MutableMapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_denied(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if not any(word in str(name).lower() for word in DENIED_WORDS)
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(error).__name__, "at": list(places(error))}
    if type(error).__module__.split(".")[0] in OUR_PACKAGES:
        described["text"] = str(error)
    if isinstance(error, BaseExceptionGroup):
        described["errors"] = [_described(part) for part in error.exceptions]
    return described


def places(error: BaseException) -> Iterator[str]:
    """Where an error came through, outermost first; nothing of what was computed there."""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        module = step.tb_frame.f_globals.get("__name__", "?")
        yield f"{module}:{step.tb_lineno} {code.co_name}"
        step = step.tb_next
