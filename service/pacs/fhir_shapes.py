"""Pieces of FHIR R4B that resources are made of. The library takes any word for a code, so the
codes used are enumerations here.
"""

from enum import StrEnum
from html import escape
from typing import Any

from service.domain import INTENDED_USE
from service.intake.dataset import MANUFACTURER
from service.pacs.concepts import NOT_FOR_CLINICAL_USE, SCHEME
from service.pacs.content import Algorithm, Coded, Content, Number
from service.pacs.uids import uuid_of
from specialists.task import Concept

Json = dict[str, Any]

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
}
URI = "urn:ietf:rfc:3986"
_UCUM = "http://unitsofmeasure.org"


class Status(StrEnum):
    """Of a DiagnosticReport and of an Observation: the same word in both value sets."""

    PRELIMINARY = "preliminary"


class DeviceStatus(StrEnum):
    ACTIVE = "active"


class DeviceNameType(StrEnum):
    MODEL_NAME = "model-name"


class BundleType(StrEnum):
    TRANSACTION = "transaction"


class Verb(StrEnum):
    PUT = "PUT"


class NarrativeStatus(StrEnum):
    GENERATED = "generated"


class EntityRole(StrEnum):
    SOURCE = "source"


def coded(concept: Concept) -> Json:
    """A CodeableConcept; a scheme without a known address keeps its designator."""
    fallback = "urn:gsco:coding-scheme"
    system = _SYSTEMS.get(concept.scheme, f"{fallback}:{concept.scheme}")
    return {
        "coding": [
            {
                "system": fallback if concept.scheme == SCHEME else system,
                "code": concept.code,
                "display": concept.meaning,
            }
        ],
        "text": concept.meaning,
    }


AI_ASSERTED: Json = {
    "security": [
        {
            "system": f"{TERMINOLOGY}/v3-ObservationValue",
            "code": "AIAST",
            "display": "Artificial Intelligence asserted",
        }
    ]
}
"""The label of HL7's AI Transparency on FHIR: a machine said so."""


def number_shape(number: Number) -> Json:
    unit, code = ("probability", "{probability}") if number.is_probability else ("1", "1")
    quantity = {"value": number.value, "unit": unit, "system": _UCUM, "code": code}
    return {"code": coded(number.what), "valueQuantity": quantity}


def coded_shape(one: Coded) -> Json:
    return {"code": coded(one.what), "valueCodeableConcept": coded(one.value)}


def device_shape(algorithm: Algorithm) -> Json:
    """The same algorithm is the same Device in every result."""
    identity = (algorithm.name, algorithm.version, algorithm.weights_sha256)
    device: Json = {
        "resourceType": "Device",
        "id": str(uuid_of("fhir", "Device", *identity)),
        "status": DeviceStatus.ACTIVE,
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": algorithm.name, "type": DeviceNameType.MODEL_NAME}],
        "version": [{"value": algorithm.version}],
        "note": [{"text": f"{NOT_FOR_CLINICAL_USE}. {INTENDED_USE}"}],
    }
    if algorithm.weights_sha256:
        value = [{"text": algorithm.weights_sha256}]
        device["property"] = [{"type": {"text": "weights sha256"}, "valueCode": value}]
    return device


def narrative(content: Content) -> Json:
    lines = [content.conclusion, *(f"{one.what.meaning}: {one.text}" for one in content.remarks)]
    lines += [f"{one.what.meaning}: {one.value.meaning}" for one in content.codes]
    body = "".join(f"<p>{escape(one)}</p>" for one in lines)
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'
    return {"status": NarrativeStatus.GENERATED, "div": div}


def entity(text: str, identifier: Json) -> Json:
    return {"role": EntityRole.SOURCE, "what": {"identifier": identifier, "display": text}}


def code_of(system: str, code: str, display: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def identifier(value: str, system: str | None = None) -> Json:
    return {"system": system, "value": value} if system else {"value": value}


def reference(resource: Json) -> Json:
    return {"reference": f"urn:uuid:{resource['id']}", "type": resource["resourceType"]}


def entry(resource: Json) -> Json:
    address = f"{resource['resourceType']}/{resource['id']}"
    return {
        "fullUrl": f"urn:uuid:{resource['id']}",
        "resource": resource,
        "request": {"method": Verb.PUT, "url": address},
    }
