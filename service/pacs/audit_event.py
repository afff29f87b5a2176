"""An event of the audit as a FHIR R4B AuditEvent, in the manner of IHE's Basic Audit Log Patterns.

Their profiles also ask for the patient and for network addresses, neither of which is kept.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from fhir.resources.R4B.auditevent import AuditEvent

from service.audit.chain import Row
from service.audit.event import Action, Event
from service.pacs.fhir_shapes import TERMINOLOGY, Json, identifier
from service.pacs.uids import uuid_of

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_REST = (f"{TERMINOLOGY}/audit-event-type", "rest", "RESTful Operation")
_LOG_USED = (_DCM, "110101", "Audit Log Used")
_ALERT = (_DCM, "110113", "Security Alert")
_KEYS_CHANGED = (_DCM, "110137", "User Security Attributes Changed")
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_REQUEST = ("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId")

_LETTERS: Mapping[Action, tuple[str, str]] = {
    Action.CREATED: ("C", "create"),
    Action.READ: ("R", "read"),
    Action.SENT: ("R", "read"),
    Action.EXPLAINED: ("E", "operation"),
    Action.REVIEWED: ("U", "update"),
    Action.ERASED: ("D", "delete"),
    Action.REVOKED: ("U", "update"),
    Action.REFUSED: ("E", "operation"),
    Action.EXPORTED: ("R", "read"),
}
"""What each action is in FHIR: `AuditEvent.action`, and the interaction it is nearest to."""

SUCCESS, MINOR_FAILURE = "0", "4"


def audit_event(row: Row, event: Event) -> str:
    """The event as one line of JSON; the same event is the same resource whenever it is written."""
    letter, interaction = _LETTERS[event.action]
    refused = event.action is Action.REFUSED
    document: Json = {
        "resourceType": "AuditEvent",
        "id": str(uuid_of("fhir", "AuditEvent", row.sha256)),
        "type": _coding(*_type(event)),
        "subtype": [_coding(_INTERACTION, interaction)],
        "action": letter,
        "recorded": event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "outcome": MINOR_FAILURE if refused else SUCCESS,
        "agent": [_caller(event), _SERVICE],
        "source": {"observer": {"display": "gsco"}, "type": [_APPLICATION_SERVER]},
        "entity": list(_entities(row, event)),
    }
    return AuditEvent.model_validate(document).model_dump_json(exclude_none=True)


def _type(event: Event) -> tuple[str, str, str]:
    if event.action is Action.EXPORTED:
        return _LOG_USED
    if event.action is Action.REFUSED:
        return _ALERT
    return _KEYS_CHANGED if event.kind == "key" else _REST


def _caller(event: Event) -> Json:
    return {"who": {"identifier": identifier(event.who, "urn:gsco:caller")}, "requestor": True}


def _entities(row: Row, event: Event) -> Iterator[Json]:
    """What it was done to, which request it was, and the row of the audit that says so."""
    details = [{"type": name, "valueString": value} for name, value in _flat(event.details)]
    yield {
        "what": {"identifier": identifier(event.id, f"urn:gsco:{event.kind}")},
        "type": _SYSTEM_OBJECT,
        "role": _role("4", "Domain Resource"),
        **({"detail": details} if details else {}),
    }
    if event.request_id:
        request = {"identifier": identifier(event.request_id, "urn:gsco:request")}
        yield {"what": request, "type": _coding(*_REQUEST)}
    yield {
        "what": {"identifier": identifier(f"{row.number}:{row.sha256}", "urn:gsco:audit")},
        "type": _SYSTEM_OBJECT,
        "role": _role("13", "Security Resource"),
    }


def _flat(details: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested details by their path; FHIR's are a list of names and texts, none of them empty."""
    for name, value in details.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if text:
            yield f"{before}{name}", text


def _coding(system: str, code: str, display: str | None = None) -> Json:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def _role(code: str, display: str) -> Json:
    return _coding(f"{TERMINOLOGY}/object-role", code, display)


_SYSTEM_OBJECT = _coding(f"{TERMINOLOGY}/audit-entity-type", "2", "System Object")
_APPLICATION_SERVER = _coding(f"{TERMINOLOGY}/security-source-type", "4", "Application Server")
_SERVICE: Json = {
    "type": {"coding": [_coding(_DCM, "110150", "Application")]},
    "who": {"display": "gsco"},
    "requestor": False,
}
