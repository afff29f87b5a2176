"""The FHIR bundle: valid to the library, and with codes that are in FHIR's own value sets."""

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from builders import PANEL, a_diagnosis, a_report, a_task, sha256_of
from fhir.resources.R4B import get_fhir_model_class
from pacs_objects import INSTANCE, STUDY, a_source

from service.domain import Evidence
from service.pacs.fhir import bundle
from service.pacs.source import anonymous

# FHIR R4B, the value sets that are bound as required; the library checks none of them.
VALUE_SETS = {
    ("Bundle", "type"): {
        "document", "message", "transaction", "transaction-response", "batch", "batch-response",
        "history", "searchset", "collection",
    },
    ("DiagnosticReport", "status"): {
        "registered", "partial", "preliminary", "final", "amended", "corrected", "appended",
        "cancelled", "entered-in-error", "unknown",
    },
    ("Observation", "status"): {
        "registered", "preliminary", "final", "amended", "corrected", "cancelled",
        "entered-in-error", "unknown",
    },
    ("Device", "status"): {"active", "inactive", "entered-in-error", "unknown"},
    ("text", "status"): {"generated", "extensions", "additional", "empty"},
    ("deviceName", "type"): {
        "udi-label-name", "user-friendly-name", "patient-reported-name", "manufacturer-name",
        "model-name", "other",
    },
    ("entity", "role"): {"derivation", "revision", "quotation", "source", "removal"},
    ("request", "method"): {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"},
}  # fmt: skip


def read(data: bytes) -> dict[str, Any]:
    """The document, after the library has taken every resource of it."""
    document: dict[str, Any] = json.loads(data)
    get_fhir_model_class("Bundle").model_validate(document)
    for entry in document["entry"]:
        resource = entry["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    return document


def resources(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    every = [entry["resource"] for entry in document["entry"]]
    return [one for one in every if one["resourceType"] == kind]


def the_bundle(**more: Any) -> dict[str, Any]:
    return read(bundle(a_diagnosis(**more), a_source(), a_task()))


def nodes(node: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object with the name of its place, or of its resource type."""
    if isinstance(node, dict):
        yield node.get("resourceType", name), node
        for key, value in node.items():
            yield from nodes(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value, name)


def test_every_bound_code_is_in_its_value_set() -> None:
    seen = set()
    for place, node in nodes(the_bundle()):
        for (owner, field), allowed in VALUE_SETS.items():
            if place == owner and field in node:
                assert node[field] in allowed
                seen.add((owner, field))

    assert seen == set(VALUE_SETS)


def test_every_reference_leads_to_an_entry() -> None:
    document = the_bundle()
    addresses = [entry["fullUrl"] for entry in document["entry"]]

    assert len(addresses) == len(set(addresses))
    for _, node in nodes(document):
        if "reference" in node:
            assert node["reference"] in addresses


def test_the_report_is_preliminary_and_says_what_was_found() -> None:
    (report,) = resources(the_bundle(), "DiagnosticReport")

    assert report["status"] == "preliminary"
    assert "not for clinical use" in report["conclusion"]
    assert report["conclusionCode"][0]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "233604007",
        "display": "Pneumonia",
    }
    assert report["subject"]["identifier"]["value"] == "4711"
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert report["meta"]["security"][0]["code"] == "AIAST"


def test_a_finding_is_a_value_with_its_probability() -> None:
    finding, *_ = resources(the_bundle(), "Observation")

    assert finding["valueCodeableConcept"]["text"] == "Pneumonia"
    assert finding["component"][0]["valueQuantity"]["value"] == 0.9


def test_what_specialists_predict_is_no_finding() -> None:
    document = the_bundle()
    predictions = [
        one
        for one in resources(document, "Observation")
        if one["code"]["coding"][0]["code"] == "SPECIALIST"
    ]

    assert len(predictions) == len(PANEL)
    assert not any("valueCodeableConcept" in one for one in predictions)
    device = predictions[0]["device"]["reference"].removeprefix("urn:uuid:")
    (vgg16,) = [one for one in resources(document, "Device") if one["id"] == device]
    assert vgg16["property"][0]["valueCode"][0]["text"] == sha256_of("weights of vgg16")


def test_review_is_asked_for_with_its_reasons() -> None:
    *_, overall = resources(the_bundle(review_reasons=("low probability",)), "Observation")

    assert overall["code"]["coding"][0]["code"] == "NEEDS-REVIEW"
    assert overall["valueCodeableConcept"]["text"] == "Yes"
    assert {"text": "Reason for review: low probability"} in overall["note"]


def test_provenance_names_image_and_prompts() -> None:
    (provenance,) = resources(the_bundle(), "Provenance")

    named = {one["what"]["identifier"]["value"] for one in provenance["entity"]}
    assert {sha256_of("input"), sha256_of("arbitration prompt"), f"urn:oid:{INSTANCE}"} < named


def test_the_same_algorithm_is_the_same_device_in_every_result() -> None:
    first, second = the_bundle(), the_bundle(id="another")

    ids = [{one["id"] for one in resources(each, "Device")} for each in (first, second)]
    assert ids[0] == ids[1]
    assert first["id"] != second["id"]


def test_posting_twice_changes_nothing() -> None:
    assert bundle(a_diagnosis(), a_source(), None) == bundle(a_diagnosis(), a_source(), None)
    for entry in the_bundle()["entry"]:
        address = f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        assert entry["request"] == {"method": "PUT", "url": address}


def test_the_patient_is_named_by_identifier_only() -> None:
    text = bundle(a_diagnosis(), a_source(), a_task()).decode()

    assert not any(word in text for word in ("Doe", "Jane", "19700102", "1970-01-02", "Roe"))


def test_an_anonymous_bundle_has_no_subject() -> None:
    document = read(bundle(a_diagnosis(), anonymous("result"), None))

    assert not any("subject" in node for _, node in nodes(document))


def test_a_draft_report_concludes_with_its_impression() -> None:
    document = read(bundle(a_report(evidence=Evidence()), a_source(), None))
    (report,) = resources(document, "DiagnosticReport")

    assert report["conclusion"].startswith("No acute disease.")


@pytest.mark.parametrize("text", ["</div><script>alert(1)</script>", "a & b < c > \"d\" 'e'"])
def test_the_narrative_stays_text_whatever_it_says(text: str) -> None:
    (report,) = resources(the_bundle(review_reasons=(text,)), "DiagnosticReport")

    div = ElementTree.fromstring(report["text"]["div"])  # noqa: S314 - our own, checked here
    assert {one.tag for one in div.iter()} == {
        "{http://www.w3.org/1999/xhtml}div",
        "{http://www.w3.org/1999/xhtml}p",
    }
    assert f"Reason for review: {text}" in [one.text for one in div]
