"""Examples for the OpenAPI document; a test holds them against the schemas."""

from typing import Any

from service.domain import INTENDED_USE

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _probabilities(normal: float, pneumonia: float) -> list[dict[str, Any]]:
    return [
        {"label": "normal", "probability": normal},
        {"label": "pneumonia", "probability": pneumonia},
    ]


TASK: dict[str, Any] = {
    "name": "cxr-pneumonia",
    "kind": "single-label",
    "modality": "chest X-ray",
    "body_part": "chest",
    "labels": [
        {"name": "normal", "concept": None},
        {
            "name": "pneumonia",
            "concept": {"scheme": "SCT", "code": "233604007", "meaning": "Pneumonia"},
        },
    ],
    "nothing_found": None,
    "thresholds": [],
    "panel": [],
    "consults": "",
    "segment": None,
    "segmenters": [],
    "rules": [{"modality": ["CR", "DX"], "body_part": ["CHEST"], "procedure": []}],
}

REFERENCE: dict[str, Any] = {
    "source": "hospital",
    "study_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "series_instance_uid": None,
    "sop_instance_uid": None,
    "task": "cxr-pneumonia",
    "frame": None,
    "frames": None,
    "group": None,
}

DIAGNOSIS: dict[str, Any] = {
    "id": "6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
    "created_at": "2026-01-02T03:04:05Z",
    "task": "cxr-pneumonia",
    "labels": ["pneumonia"],
    "probabilities": _probabilities(0.08, 0.92),
    "initial": {"labels": ["normal"], "probabilities": _probabilities(0.55, 0.45)},
    "evidence": {
        "moed": [
            {
                "specialist": "resnet18",
                "labels": ["pneumonia"],
                "probabilities": _probabilities(0.12, 0.88),
                "validation_accuracy": 0.91,
                "weights_sha256": _SHA256,
                "computed_in": "float32",
            }
        ],
        "rad": [
            {
                "case_id": "kermany-0412",
                "labels": ["pneumonia"],
                "similarity": 0.94,
                "score": 0.16,
                "retrievers": ["resnet18", "densenet121"],
                "source": "Kermany 2018",
                "licence": "CC-BY-4.0",
                "report": "",
            }
        ],
        "typicality": 0.44,
        "segmentations": [],
    },
    "agreement": 0.9,
    "arbitration": "corrected",
    "label_set": ["pneumonia"],
    "coverage": 0.9,
    "needs_review": True,
    "review_reasons": ["missing evidence: specialist vgg16: no weights for 'vgg16'"],
    "degraded": [{"part": "specialist vgg16", "reason": "no weights for 'vgg16'"}],
    "provenance": {
        "input_sha256": _SHA256,
        "code_version": "0.1.0",
        "preprocessing_version": "1",
        "task_sha256": _SHA256,
        "weights": [{"specialist": "resnet18", "weights_sha256": _SHA256}],
        "index_ids": ["cxr-pneumonia/resnet18@9f86d081"],
        "prompt_template": "gsco-rich/1@5f1c9e0b7a2d",
        "initial_prompt_sha256": _SHA256,
        "arbitration_prompt_sha256": _SHA256,
        "generalist": {
            "engine": "embedded",
            "model": "MedDr-nano",
            "weights_sha256": _SHA256,
            "sampling": "greedy",
        },
    },
    "durations_seconds": {"specialists": 0.06, "initial": 0.09, "arbitration": 0.04, "total": 0.15},
    "notes": ["frame 1 of 3 was used"],
    "intended_use": INTENDED_USE,
}

_SHARED = {
    name: DIAGNOSIS[name]
    for name in (
        "id", "created_at", "evidence", "needs_review", "review_reasons", "degraded",
        "provenance", "durations_seconds", "notes", "intended_use",
    )
}  # fmt: skip

REPORT: dict[str, Any] = {
    **_SHARED,
    "task": "cxr-report",
    "consulted": "cxr-pneumonia",
    "findings": "Hazy opacity in the right lower lobe. The heart is of normal size.",
    "impression": "Right lower lobe pneumonia.",
    "text": "Findings: Hazy opacity in the right lower lobe. The heart is of normal size. "
    "Impression: Right lower lobe pneumonia.",
    "initial_text": "Findings: The lungs are clear. Impression: No acute disease.",
    "draft_sha256": None,
}

ANSWER: dict[str, Any] = {
    **_SHARED,
    "task": "cxr-questions",
    "consulted": "cxr-pneumonia",
    "question": "Is there pneumonia?",
    "answer": "yes",
    "probabilities": [
        {"label": "yes", "probability": 0.91},
        {"label": "no", "probability": 0.09},
    ],
    "initial_answer": "no",
}

SPECIALISTS: dict[str, Any] = {
    "tasks": [
        {
            "task": "cxr-pneumonia",
            "loading": False,
            "in_memory": True,
            "specialists": [
                {
                    "specialist": "resnet18",
                    "scale": "nano",
                    "weights_sha256": _SHA256,
                    "validation": {"accuracy": 0.91, "auroc": 0.96},
                    "refused": None,
                }
            ],
            "missing": [{"specialist": "vgg16", "reason": "no weights for 'vgg16'"}],
        }
    ]
}

EXPLANATION: dict[str, Any] = {
    "task": "cxr-pneumonia",
    "specialist": "resnet18",
    "weights_sha256": _SHA256,
    "label": "pneumonia",
    "probability": 0.88,
    "layer": "layer4",
    "image_height": 1024,
    "image_width": 1024,
    "heat": [[0.0, 0.1, 0.0], [0.2, 1.0, 0.1], [0.0, 0.3, 0.0]],
    "notes": [],
    "intended_use": INTENDED_USE,
}

REVIEW: dict[str, Any] = {
    "created_at": "2026-01-02T09:00:00Z",
    "reviewer": "user:reader-7",
    "decision": "override",
    "labels": ["normal"],
    "comment": "Superimposed vessels.",
}

WORKLIST: dict[str, Any] = {
    "diagnoses": [
        {
            "id": "6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
            "created_at": "2026-01-02T03:04:05Z",
            "task": "cxr-pneumonia",
            "labels": ["pneumonia"],
            "probabilities": _probabilities(0.08, 0.92),
            "arbitration": "corrected",
            "needs_review": True,
            "review_reasons": ["the specialists disagree"],
            "review": None,
        }
    ],
    "next_cursor": None,
}

AGREEMENT: dict[str, Any] = {
    "weeks": [
        {
            "task": "cxr-pneumonia",
            "week": "2025-12-29",
            "diagnoses": 120,
            "needing_review": 18,
            "reviewed": 20,
            "accepted": 17,
            "overridden": 3,
            "agreement": 0.85,
            "model": None,
            "weights_sha256": None,
        }
    ]
}

REFERENCE_CASES: dict[str, Any] = {
    "cases": [
        {
            "case_id": "kermany-0412",
            "task": "cxr-pneumonia",
            "labels": ["pneumonia"],
            "report": "",
            "source": "Kermany 2018",
            "licence": "CC-BY-4.0",
            "modality": "chest X-ray",
        }
    ],
    "next_cursor": None,
}

EXAMPLES: dict[str, Any] = {"examples": [{"task": "cxr-pneumonia", "name": "1.dcm"}]}

SEGMENTATIONS: dict[str, Any] = {
    "task": "busi",
    "segmentations": [
        {
            "specialist": "unet",
            "segment": "lesion",
            "share": 0.04,
            "areas": 1,
            "places": ["upper left"],
            "certainty": 0.81,
            "validation_dice": 0.66,
            "weights_sha256": _SHA256,
            "map": [[0.9, 0.2], [0.1, 0.1]],
        }
    ],
    "intended_use": INTENDED_USE,
}

READINESS: dict[str, Any] = {
    "status": "degraded",
    "parts": [
        {"part": "database", "status": "ready", "reason": None},
        {"part": "generalist", "status": "ready", "reason": None},
        {"part": "intake", "status": "ready", "reason": None},
        {"part": "jobs", "status": "ready", "reason": None},
        {"part": "retrieval for cxr-pneumonia", "status": "ready", "reason": None},
        {
            "part": "specialists of cxr-pneumonia",
            "status": "degraded",
            "reason": "9 of 10 answer; missing: vgg16",
        },
    ],
}

PROBLEM: dict[str, Any] = {
    "type": "urn:gsco:problem:unreadable-image",
    "title": "The file is not a readable image",
    "status": 422,
    "detail": "the file is neither DICOM nor an image of a known format",
    "instance": "0b5a3c1f9e6d4a7fb2c8d1e0f3a4b5c6",
}

JOB: dict[str, Any] = {
    "id": "6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
    "status": "succeeded",
    "kind": "diagnosis",
    "task": "cxr-pneumonia",
    "priority": "medium",
    "submitted_at": "2026-01-02T03:04:05Z",
    "started_at": "2026-01-02T03:04:06Z",
    "ended_at": "2026-01-02T03:04:07Z",
    "attempts": 1,
    "result": "/v1/diagnoses/6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a",
    "problem": None,
}

CALLER: dict[str, Any] = {"name": "key:5f1c0a9b2d3e", "scopes": ["read", "submit"]}

SIGN_IN: dict[str, Any] = {
    "client_id": "gsco-page",
    "authorization_endpoint": "https://idp.example.org/authorize",
    "token_endpoint": "https://idp.example.org/token",
    "scopes": ["openid"],
}

SOURCES: dict[str, Any] = {"sources": ["hospital"]}

INSTANCES: dict[str, Any] = {
    "instances": [
        {
            "series_instance_uid": "1.2.840.113619.2.55.3.1.2",
            "sop_instance_uid": "1.2.840.113619.2.55.3.1.2.3",
            "modality": "DX",
        }
    ]
}

INSTANCE: dict[str, Any] = {
    "source": "hospital",
    "study_instance_uid": "1.2.840.113619.2.55.3.1",
    "sop_instance_uid": "1.2.840.113619.2.55.3.1.2.3",
    "frame": 2,
}

EVALUATIONS: dict[str, Any] = {
    "evaluations": [
        {"name": "cxr-pneumonia-test", "files": ["table.md", "metrics.json", "plots/roc.svg"]}
    ]
}

SPECIALIST: dict[str, Any] = {
    "task": "cxr-pneumonia",
    "specialist": "resnet18",
    "kind": "single-label",
    "labels": ["normal", "pneumonia"],
    "scale": "nano",
    "parameters": 175_266,
    "embedding_dimension": 128,
    "preprocessing": "1",
    "input_size": 64,
    "recipe": {"epochs": 20},
    "data_fingerprint": "9f" * 32,
    "validation": {"accuracy": 0.93},
    "temperature": 1.4,
    "licence": "Apache-2.0",
    "weights_sha256": "9f" * 32,
    "card": "# resnet18 (nano) for cxr-pneumonia",
}
