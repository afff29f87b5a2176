"""A result as a FHIR R4B transaction: DiagnosticReport, Observations, Provenance and Devices.

Posting it to a FHIR server twice leaves what posting it once does: every resource has an
identifier of its own and is PUT there.
"""

from datetime import UTC
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from service.intake.dataset import MODEL
from service.pacs import concepts
from service.pacs.content import Algorithm, Content, Group, Written, content_of
from service.pacs.fhir_shapes import (
    AI_ASSERTED,
    TERMINOLOGY,
    URI,
    BundleType,
    Json,
    Status,
    code_of,
    coded,
    coded_shape,
    device_shape,
    entity,
    entry,
    identifier,
    narrative,
    number_shape,
    reference,
)
from service.pacs.source import Source
from service.pacs.uids import uuid_of
from specialists.task import Concept, Task

MEDIA_TYPE = "application/fhir+json"


def bundle(result: Written, source: Source, task: Task | None) -> bytes:
    """The whole result with its evidence as one JSON document, UTF-8.

    The patient is named by identifier only, and not at all where `source` is anonymous.
    """
    content = content_of(result, task)
    resources = _Resources(content, source)
    document: Json = {
        "resourceType": "Bundle",
        "id": resources.id("Bundle"),
        "type": BundleType.TRANSACTION,
        "timestamp": resources.recorded,
        "entry": [entry(one) for one in resources.all(result)],
    }
    return Bundle.model_validate(document).model_dump_json(exclude_none=True).encode()


class _Resources:
    """The resources of one result, which refer to each other by what they are about."""

    def __init__(self, content: Content, source: Source) -> None:
        self._content = content
        self._source = source
        self._whose = "anonymous" if source.is_anonymous else "patient"
        self.recorded = content.created_at.astimezone(UTC).isoformat(timespec="seconds")

    def id(self, *names: str) -> str:
        return str(uuid_of(self._content.id, self._whose, "fhir", *names))

    def all(self, result: Written) -> list[Json]:
        content = self._content
        used = dict.fromkeys((content.generalist, *(one.algorithm for one in content.groups)))
        observations = [*(self._observation(group) for group in content.groups), self._overall()]
        report = self._report(observations)
        targets = [reference(one) for one in (report, *observations)]
        devices = {one["id"]: one for one in (_service(content), *map(device_shape, used))}
        return [report, *observations, self._provenance(result, targets), *devices.values()]

    def _report(self, observations: list[Json]) -> Json:
        """`conclusion` is what a list of reports shows; the narrative is for a person."""
        content = self._content
        codes = [coded(concept) for concept in content.findings]
        return self._about_patient(
            {
                "resourceType": "DiagnosticReport",
                "id": self.id("DiagnosticReport"),
                "identifier": [identifier(f"urn:uuid:{self.id('DiagnosticReport')}", URI)],
                "text": narrative(content),
                "status": Status.PRELIMINARY,
                "category": [code_of(f"{TERMINOLOGY}/v2-0074", "IMG", "Diagnostic Imaging")],
                "code": coded(concepts.IMAGING_STUDY),
                "issued": self.recorded,
                "result": [reference(one) for one in observations],
                "conclusion": content.conclusion,
                **({"conclusionCode": codes} if codes else {}),
                **({"imagingStudy": [self._study()]} if self._source.image else {}),
            }
        )

    def _observation(self, group: Group) -> Json:
        """One group: a finding is a value, everything else is components."""
        finding = {"valueCodeableConcept": coded(group.about)} if group.is_finding else {}
        return self._observed(
            group.identifier,
            concepts.FINDING if group.is_finding else group.about,
            device_shape(group.algorithm),
            [*map(number_shape, group.numbers), *map(coded_shape, group.codes)],
            **finding,
        )

    def _overall(self) -> Json:
        """Whether a person should look, and everything that is said of the result as a whole."""
        content = self._content
        review, *others = content.codes
        return self._observed(
            "overall",
            review.what,
            device_shape(content.generalist),
            [coded_shape(one) for one in others],
            valueCodeableConcept=coded(review.value),
            note=[{"text": f"{one.what.meaning}: {one.text}"} for one in content.remarks],
        )

    def _observed(
        self, name: str, code: Concept, device: Json, components: list[Json], **more: Any
    ) -> Json:
        return self._about_patient(
            {
                "resourceType": "Observation",
                "id": self.id("Observation", name),
                "identifier": [identifier(f"{self._content.id}/{name}", "urn:gsco:group")],
                "status": Status.PRELIMINARY,
                "category": [code_of(f"{TERMINOLOGY}/observation-category", "imaging", "Imaging")],
                "code": coded(code),
                "issued": self.recorded,
                "device": reference(device),
                **({"component": components} if components else {}),
                **({"derivedFrom": [self._study()]} if self._source.image else {}),
                **more,
            }
        )

    def _provenance(self, result: Written, targets: list[Json]) -> Json:
        provenance = result.provenance
        sources = {
            "sha256 of the image file": provenance.input_sha256,
            "sha256 of the first prompt": provenance.initial_prompt_sha256,
            "sha256 of the prompt with the evidence": provenance.arbitration_prompt_sha256,
        }
        entities = [entity(text, identifier(value)) for text, value in sources.items()]
        if self._source.image:
            instance = f"urn:oid:{self._source.image.references.sop_instance_uid}"
            entities.append(entity("the image", identifier(instance, "urn:dicom:uid")))
        assembler = code_of(f"{TERMINOLOGY}/provenance-participant-type", "assembler", "Assembler")
        return {
            "resourceType": "Provenance",
            "id": self.id("Provenance"),
            "meta": AI_ASSERTED,
            "target": targets,
            "recorded": self.recorded,
            "agent": [{"type": assembler, "who": reference(_service(self._content))}],
            "entity": entities,
        }

    def _about_patient(self, resource: Json) -> Json:
        source = self._source
        resource["meta"] = AI_ASSERTED
        if source.study_date:
            year, month, day = source.study_date[:4], source.study_date[4:6], source.study_date[6:]
            resource["effectiveDateTime"] = f"{year}-{month}-{day}"
        if source.patient_id and not source.is_anonymous:
            patient = identifier(source.patient_id)
            if source.issuer_of_patient_id:
                patient["assigner"] = {"display": source.issuer_of_patient_id}
            resource["subject"] = {"type": "Patient", "identifier": patient}
        return resource

    def _study(self) -> Json:
        """The imaging study by its UID, as FHIR's own ImagingStudy identifies it."""
        image = self._source.image
        uid = image.references.study_instance_uid if image else ""
        return {
            "type": "ImagingStudy",
            "identifier": identifier(f"urn:oid:{uid}", "urn:dicom:uid"),
        }


def _service(content: Content) -> Json:
    return device_shape(Algorithm(MODEL, content.code_version))
