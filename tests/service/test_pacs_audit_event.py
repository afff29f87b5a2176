"""Events of the audit as FHIR."""

import json
from typing import Any

import pytest
from builders import a_diagnosis, sha256_of
from fhir.resources.R4B.auditevent import AuditEvent

from service.audit import chain, event
from service.audit.chain import START
from service.audit.event import Action, Event
from service.pacs.audit_event import audit_event
from service.persistence import codec


def written(one: Event) -> dict[str, Any]:
    """The resource of an event, after a FHIR library has read it."""
    line = audit_event(chain.follow(START, one), one)
    assert "\n" not in line
    AuditEvent.model_validate_json(line)
    return json.loads(line)  # type: ignore[no-any-return]


@pytest.mark.parametrize("action", Action)
def test_every_action_is_a_resource(action: Action) -> None:
    resource = written(Event(action, "key:x", "diagnosis", "7", request_id="0" * 32))

    assert resource["action"] in "CRUDE"
    assert resource["outcome"] == ("4" if action is Action.REFUSED else "0")
    assert resource["agent"][0]["who"]["identifier"]["value"] == "key:x"
    assert resource["entity"][1]["type"]["code"] == "XrequestId"


def test_weights_and_prompts_are_told() -> None:
    diagnosis = a_diagnosis()
    made = event.created(diagnosis, codec.encode(diagnosis))

    details = {one["type"]: one["valueString"] for one in written(made)["entity"][0]["detail"]}

    assert details["specialists.resnet18"] == sha256_of("weights of resnet18")
    assert details["generalist.model"] == "MedDr-nano"
    assert details["prompt.arbitration_sha256"] == sha256_of("arbitration prompt")
    assert details["document_sha256"] == made.details["document_sha256"]


def test_the_same_event_is_the_same_resource() -> None:
    one = Event(Action.READ, "key:x", "diagnosis", "7")

    assert written(one) == written(one)
    assert written(one)["id"] != written(Event(Action.READ, "key:y", "diagnosis", "7"))["id"]


def test_a_resource_leads_back_to_the_row_of_the_audit() -> None:
    one = Event(Action.READ, "key:x", "diagnosis", "7")
    row = chain.follow(START, one)

    last = written(one)["entity"][-1]["what"]["identifier"]

    assert last == {"system": "urn:gsco:audit", "value": f"1:{row.sha256}"}
