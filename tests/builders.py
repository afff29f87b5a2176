"""Values for tests: everything has a default, a test names only what its story needs."""

import hashlib
import io
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
from PIL import Image as PillowImage

from retrieval.neighbour import Neighbour, ReferenceCase
from service.domain import (
    Answer,
    Case,
    Diagnosis,
    Evidence,
    GeneralistIdentity,
    Image,
    LabelledAnswer,
    Missing,
    Prompt,
    Provenance,
    Report,
)
from service.intake.deidentify import DicomAttributes
from specialists.prediction import (
    Consultation,
    Embedding,
    Pixels,
    Segmentation,
    SpecialistPrediction,
    Vector,
)
from specialists.task import Concept, Label, Task, TaskKind

PANEL = (
    "vgg16",
    "alexnet",
    "resnet18",
    "densenet121",
    "efficientnet-b4",
    "vit-b16",
    "clip-vit-b16",
    "eva02-b16",
    "dino-vit-b16",
    "sam-vit-b16",
)
DIMENSION = 8
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sha256_of(text: str) -> str:
    """A sha256 that is the same in every run, for whatever a test calls it."""
    return hashlib.sha256(text.encode()).hexdigest()


def a_task(name: str = "cxr-pneumonia", **fields: object) -> Task:
    """A single-label chest X-ray task with the labels normal and pneumonia."""
    task = Task(
        name=name,
        kind=TaskKind.SINGLE_LABEL,
        modality="chest X-ray",
        body_part="chest",
        labels=(Label("normal"), Label("pneumonia", Concept("SCT", "233604007", "Pneumonia"))),
    )
    return replace(task, **fields)  # type: ignore[arg-type]


def a_multi_label_task(name: str = "cxr-findings", **fields: object) -> Task:
    """Three labels of which several may hold; "no finding" stands for none of them."""
    return a_task(
        name,
        **{
            "kind": TaskKind.MULTI_LABEL,
            "labels": (Label("no finding"), Label("effusion"), Label("nodule")),
            "nothing_found": "no finding",
            "thresholds": (0.5, 0.5, 0.5),
            **fields,
        },
    )


def task_toml(task: Task) -> str:
    """The TOML file that describes a task (without concepts)."""
    lines = [f'name = "{task.name}"', f'kind = "{task.kind}"', f'modality = "{task.modality}"']
    lines.append(f'body_part = "{task.body_part}"')
    if task.nothing_found is not None:
        lines.append(f'nothing_found = "{task.nothing_found}"')
    if task.thresholds:
        lines.append(f"thresholds = {list(task.thresholds)}")
    if task.panel:
        lines.append(f"panel = {list(task.panel)}")
    if task.consults:
        lines.append(f'consults = "{task.consults}"')
    lines.append(f"labels = {list(task.label_names)}")
    for rule in task.rules:
        lines += ["[[rules]]", f"modality = {list(rule.modality)}"]
        lines += [f"body_part = {list(rule.body_part)}", f"procedure = {list(rule.procedure)}"]
    return "\n".join(lines).replace("'", '"') + "\n"


def a_picture(height: int = 32, width: int = 32, seed: int = 0) -> Pixels:
    """Pixels that look like nothing, different for each seed."""
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png_bytes(pixels: Pixels | None = None) -> bytes:
    return image_bytes("PNG", pixels)


def jpeg_bytes(pixels: Pixels | None = None) -> bytes:
    return image_bytes("JPEG", pixels)


def image_bytes(format_name: str, pixels: Pixels | None = None) -> bytes:
    """A picture as a file of any format that Pillow writes."""
    file = io.BytesIO()
    PillowImage.fromarray(a_picture() if pixels is None else pixels).save(file, format_name)
    return file.getvalue()


def an_image(pixels: Pixels | None = None, **fields: object) -> Image:
    pixels = a_picture() if pixels is None else pixels
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return replace(Image(pixels, digest, "image/png"), **fields)  # type: ignore[arg-type]


def some_attributes(**said: object) -> DicomAttributes:
    """What a DICOM file says of its image: nothing but what is given."""
    nothing = dict.fromkeys(field.name for field in fields(DicomAttributes))
    empty = {"anatomic_regions": (), "procedure_codes": ()}
    sizes = dict.fromkeys(("rows", "columns", "bits_stored"), 32)
    one = {"number_of_frames": 1, "frame_number": 1}
    return DicomAttributes(**{**nothing, **empty, **sizes, **one, **said})  # type: ignore[arg-type]


def a_case(
    task: Task | None = None,
    image: Image | None = None,
    *,
    id: str = "case-1",
    group: str | None = None,
    **more: object,
) -> Case:
    case = Case(id=id, task=task or a_task(), image=image or an_image(), group=group)
    return replace(case, **more)  # type: ignore[arg-type]


def a_report_task(name: str = "cxr-report", **fields: object) -> Task:
    """Reports of chest X-rays, with the specialists and cases of cxr-findings."""
    kind = {"kind": TaskKind.REPORT, "labels": (), "consults": "cxr-findings"}
    return a_task(name, **{**kind, **fields})


def a_question_task(name: str = "cxr-questions", **fields: object) -> Task:
    """Questions about chest X-rays, with the specialists and cases of cxr-findings."""
    return a_report_task(name, **{"kind": TaskKind.QUESTION, **fields})


def a_prompt(
    text: str = "What is it?", *, choices: tuple[str, ...] = ("normal", "pneumonia")
) -> Prompt:
    return Prompt(an_image(), text, choices=choices)


def a_prediction(
    specialist: str = "resnet18", probabilities: tuple[float, ...] = (0.2, 0.8), **fields: object
) -> SpecialistPrediction:
    prediction = SpecialistPrediction(
        specialist=specialist,
        probabilities=probabilities,
        weights_sha256=sha256_of(f"weights of {specialist}"),
        validation_accuracy=0.9,
        computed_in="float32",
    )
    return replace(prediction, **fields)  # type: ignore[arg-type]


def a_panel(
    probabilities: tuple[float, ...] = (0.2, 0.8), specialists: tuple[str, ...] = PANEL
) -> tuple[SpecialistPrediction, ...]:
    """Every specialist of the same mind."""
    return tuple(a_prediction(name, probabilities) for name in specialists)


def a_segmentation(specialist: str = "unet", **fields: object) -> Segmentation:
    """A lesion in the upper left; its map has it in the first of four places."""
    found = Segmentation(
        specialist=specialist,
        segment="lesion",
        weights_sha256=sha256_of(f"weights of {specialist}"),
        share=0.034,
        areas=1,
        places=("upper left",),
        certainty=0.81,
        validation_dice=0.66,
        map=np.array([[0.9, 0.2], [0.1, 0.1]], np.float32),
    )
    return replace(found, **fields)  # type: ignore[arg-type]


def nothing_segmented(**fields: object) -> Segmentation:
    return a_segmentation(**{"share": 0.0, "areas": 0, "places": (), **fields})


def a_vector(seed: int = 0, dimension: int = DIMENSION) -> Vector:
    """A direction of unit length, different for each seed."""
    vector = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def an_embedding(specialist: str = "resnet18", vector: Vector | None = None) -> Embedding:
    vector = a_vector() if vector is None else vector
    return Embedding(specialist, sha256_of(f"weights of {specialist}"), vector)


def a_consultation(
    predictions: tuple[SpecialistPrediction, ...] | None = None, **fields: object
) -> Consultation:
    """The panel's answer, an embedding beside every prediction."""
    predictions = a_panel() if predictions is None else predictions
    embeddings = tuple(
        Embedding(p.specialist, p.weights_sha256, a_vector(seed))
        for seed, p in enumerate(predictions)
    )
    return replace(Consultation("cxr-pneumonia", predictions, embeddings), **fields)  # type: ignore[arg-type]


def a_reference_case(id: str = "reference-1", **fields: object) -> ReferenceCase:
    case = ReferenceCase(
        id=id,
        task="cxr-pneumonia",
        labels=("pneumonia",),
        image_sha256=sha256_of(f"image of {id}"),
        group=f"group-of-{id}",
        report="Right lower lobe opacity.",
        source="phantoms",
        licence="CC0-1.0",
    )
    return replace(case, **fields)  # type: ignore[arg-type]


def a_neighbour(id: str = "reference-1", **fields: object) -> Neighbour:
    """Found by two retrievers; `case` replaces the reference case, other fields its own."""
    found = Neighbour(
        case=a_reference_case(id), similarity=0.93, score=0.032, retrievers=("vgg16", "resnet18")
    )
    return replace(found, **fields)  # type: ignore[arg-type]


def an_identity(**fields: object) -> GeneralistIdentity:
    identity = GeneralistIdentity("embedded", "MedDr-nano", sha256_of("generalist"), "greedy")
    return replace(identity, **fields)  # type: ignore[arg-type]


def some_evidence(**fields: object) -> Evidence:
    """Ten specialists and one neighbour that say pneumonia."""
    indexes = tuple(f"cxr-pneumonia/{name}" for name in PANEL)
    evidence = Evidence(moed=a_panel(), rad=(a_neighbour(),), index_ids=indexes)
    return replace(evidence, **fields)  # type: ignore[arg-type]


def a_provenance(**fields: object) -> Provenance:
    provenance = Provenance(
        input_sha256=sha256_of("input"),
        code_version="0.1.0",
        preprocessing_version="1",
        task_sha256=sha256_of("task"),
        weights_sha256={name: sha256_of(f"weights of {name}") for name in PANEL},
        index_ids=tuple(f"cxr-pneumonia/{name}" for name in PANEL),
        prompt_template="gsco-plain/1",
        initial_prompt_sha256=sha256_of("initial prompt"),
        arbitration_prompt_sha256=sha256_of("arbitration prompt"),
        generalist=an_identity(),
    )
    return replace(provenance, **fields)  # type: ignore[arg-type]


def a_report(id: str = "report-1", **fields: object) -> Report:
    report = Report(
        id=id,
        created_at=NOW,
        task="cxr-report",
        consulted="cxr-findings",
        label_names=("no finding", "effusion", "nodule"),
        findings="The lungs are clear.",
        impression="No acute disease.",
        text="Findings: The lungs are clear. Impression: No acute disease.",
        initial_text="Findings: The lungs are clear. Impression: Normal.",
        evidence=some_evidence(moed=a_panel((0.8, 0.1, 0.1))),
        review_reasons=(),
        provenance=a_provenance(),
    )
    return replace(report, **fields)  # type: ignore[arg-type]


def an_answer(id: str = "answer-1", **fields: object) -> Answer:
    answer = Answer(
        id=id,
        created_at=NOW,
        task="cxr-questions",
        consulted=None,
        label_names=(),
        question="Is there fluid?",
        text="no",
        initial_text="no",
        choices=("yes", "no"),
        probabilities=(0.1, 0.9),
        evidence=Evidence(),
        review_reasons=(),
        provenance=a_provenance(),
    )
    return replace(answer, **fields)  # type: ignore[arg-type]


def a_diagnosis(**fields: object) -> Diagnosis:
    """The generalist first said normal, then pneumonia as the evidence does."""
    diagnosis = Diagnosis(
        id="6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
        created_at=NOW,
        task="cxr-pneumonia",
        label_names=("normal", "pneumonia"),
        final=LabelledAnswer(("pneumonia",), (0.1, 0.9)),
        initial=LabelledAnswer(("normal",), (0.6, 0.4)),
        evidence=some_evidence(),
        agreement=1.0,
        review_reasons=(),
        provenance=a_provenance(),
        durations_seconds={"total": 0.5, "specialists": 0.1},
    )
    return replace(diagnosis, **fields)  # type: ignore[arg-type]


def a_missing_part(part: str = "specialist vgg16", reason: str = "no weights") -> Missing:
    return Missing(part, reason)
