"""What the audit records: who did what with which case, and what it rested on.

An event names cases by their id, callers by key or subject, and everything else by its hash:
neither a patient nor a word of a result is in it, so that a case can be erased while its events
stay. Whoever adds an action keeps to that.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.domain import Answer, Diagnosis, Provenance, Report, Result

KINDS: Mapping[type[Any], str] = {Diagnosis: "diagnosis", Report: "report", Answer: "answer"}
"""What results are called in the audit."""


class Action(StrEnum):
    """What was done."""

    CREATED = "created"  # a result, or a key
    READ = "read"
    SENT = "sent"  # to a PACS, or about to be
    EXPLAINED = "explained"  # an image that was not kept
    REVIEWED = "reviewed"
    ERASED = "erased"
    REVOKED = "revoked"  # a key
    REFUSED = "refused"  # a known caller asked for what they may not do
    EXPORTED = "exported"  # the audit itself


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done: by whom, to what, when.

    `kind` and `id` name what it was done to, such as a diagnosis by its id. `request_id` leads to
    the log's lines of the same request. `details` are JSON types.
    """

    action: Action
    who: str
    kind: str
    id: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    request_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return subject_of(self.kind, self.id)


def subject_of(kind: str, id: str) -> str:
    """How what an event is about is looked for."""
    return f"{kind}/{id}"


def created(result: Result, document: Mapping[str, Any]) -> Event:
    """A result was made and stored as this document."""
    return Event(
        Action.CREATED,
        result.provenance.requested_by or "anonymous",
        KINDS[type(result)],
        result.id,
        details={
            "task": result.task,
            "needs_review": result.needs_review,
            "document_sha256": document_sha256(document),
            **_rested_on(result.provenance),
        },
    )


def reviewed(
    diagnosis_id: str, who: str, decision: str, labels: tuple[str, ...], comment: str
) -> Event:
    """A person accepted a diagnosis or named other labels; of the comment only its hash."""
    details = {"decision": decision, "labels": list(labels), "comment_sha256": _sha256(comment)}
    return Event(Action.REVIEWED, who, "diagnosis", diagnosis_id, details=details)


def erased(kind: str, id: str, who: str, reason: str, document: Mapping[str, Any]) -> Event:
    """A result is gone; its hash tells later whether a copy is what was erased."""
    details = {"reason": reason, "document_sha256": document_sha256(document)}
    return Event(Action.ERASED, who, kind, id, details=details)


def document_sha256(document: Mapping[str, Any]) -> str:
    """Names a stored document by everything in it."""
    return _sha256(canonical(document))


def canonical(value: Any) -> str:
    """The one way in which a value of JSON types is written: in ASCII, without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _rested_on(provenance: Provenance) -> dict[str, Any]:
    """Which weights and which prompts, by their hashes."""
    generalist = provenance.generalist
    return {
        "code_version": provenance.code_version,
        "specialists": dict(provenance.weights_sha256),
        "generalist": {
            "engine": generalist.engine,
            "model": generalist.model,
            "weights_sha256": generalist.weights_sha256,
        },
        "prompt": {
            "template": provenance.prompt_template,
            "initial_sha256": provenance.initial_prompt_sha256,
            "arbitration_sha256": provenance.arbitration_prompt_sha256,
        },
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
