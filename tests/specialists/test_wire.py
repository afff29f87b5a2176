"""Stories of what travels between the service and the panel's machines."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from specialists import wire
from specialists.errors import InvalidMessage
from specialists.prediction import (
    Consultation,
    Embedding,
    Explanation,
    MissingSpecialist,
    Pixels,
    Segmentation,
    SpecialistPrediction,
)
from specialists.task import Label, Task


def a_consultation(task: Task) -> Consultation:
    outline = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    return Consultation(
        task.name,
        (SpecialistPrediction("vgg16", (0.1, 0.9), "a" * 64, None, "bfloat16"),),
        (Embedding("vgg16", "a" * 64, np.array([0.6, 0.8], np.float32)),),
        (MissingSpecialist("alexnet", "no weights"),),
        (Segmentation("unet", "lesion", "b" * 64, 0.1, 1, ("left",), 0.8, None, outline),),
    )


def test_a_task_arrives_whole(new_task, pixels: Pixels) -> None:
    task = new_task(
        rules=[{"modality": ["DX"]}],
        labels=[
            "dark",
            {"name": "bright", "concept": {"scheme": "S", "code": "1", "meaning": "B"}},
        ],
    )
    task = replace(task, segment=Label("lesion"), thresholds=(0.3, 0.7))

    arrived, image, asked = wire.read_question(wire.question(task, pixels, label="dark"))

    assert (arrived, asked) == (task, {"label": "dark"})
    np.testing.assert_array_equal(image, pixels)


def test_a_consultation_arrives_whole(task: Task) -> None:
    said = a_consultation(task)

    arrived = wire.read_consultation(wire.consultation(said), task)

    assert arrived.predictions == said.predictions
    assert arrived.missing == said.missing
    assert arrived.segmentations == said.segmentations
    np.testing.assert_array_equal(arrived.segmentations[0].map, said.segmentations[0].map)
    np.testing.assert_array_equal(arrived.embeddings[0].vector, said.embeddings[0].vector)


@pytest.mark.parametrize("said", [{}, {"computed_in": "[/b]"}])
def test_numbers_that_a_panel_does_not_tell_or_nobody_knows_are_left_out(
    task: Task, said: dict[str, str]
) -> None:
    document, arrays = wire.unpack(wire.consultation(a_consultation(task)))
    del document["predictions"][0]["computed_in"]
    document["predictions"][0] |= said

    arrived = wire.read_consultation(wire.pack(document, arrays), task)

    assert arrived.predictions[0].computed_in == ""


def test_an_explanation_arrives_whole() -> None:
    grid = np.eye(3, dtype=np.float32)
    said = Explanation("vgg16", "a" * 64, "dark", 0.9, "features.30", grid)

    arrived = wire.read_explanation(wire.explanation(said))

    assert (arrived.specialist, arrived.label, arrived.layer) == ("vgg16", "dark", "features.30")
    np.testing.assert_array_equal(arrived.grid, grid)


def test_embeddings_cost_four_bytes_a_number(task: Task) -> None:
    vector = np.zeros(768, np.float32)
    said = replace(a_consultation(task), embeddings=(Embedding("vgg16", "a" * 64, vector),))

    assert len(wire.consultation(said)) < 768 * 4 + 1500


@pytest.mark.parametrize(
    "spoilt",
    [
        {"embeddings": ()},
        {"embeddings": (Embedding("vgg16", "a" * 64, np.array([np.nan], np.float32)),)},
        {"embeddings": (Embedding("vgg16", "a" * 64, np.zeros((2, 2), np.float32)),)},
        {"predictions": (SpecialistPrediction("vgg16", (1.0,), "a" * 64),)},
        {"predictions": (SpecialistPrediction("vgg16", (np.nan, 0.9), "a" * 64),)},
        {"predictions": (SpecialistPrediction("vgg16", (0.1, 9.0), "a" * 64),)},
        {"missing": (MissingSpecialist("made up", "to be a new series of each figure"),)},
        {"segmentations": (Segmentation("unet", "lesion", "b", np.inf, 1, (), 0.8),)},
        {"task": "another"},
    ],
)
def test_what_does_not_fit_together_is_refused(task: Task, spoilt: dict[str, object]) -> None:
    body = wire.consultation(replace(a_consultation(task), **spoilt))

    with pytest.raises(InvalidMessage):
        wire.read_consultation(body, task)


def test_nobody_is_heard_twice_or_uninvited(task: Task) -> None:
    once = a_consultation(task)
    twice = replace(
        once, predictions=once.predictions * 2, embeddings=once.embeddings * 2, missing=()
    )
    other = replace(
        once,
        predictions=(replace(once.predictions[0], specialist="made up"),),
        embeddings=(replace(once.embeddings[0], specialist="made up"),),
    )

    for said in (twice, other):
        with pytest.raises(InvalidMessage):
            wire.read_consultation(wire.consultation(said), task)


@pytest.mark.parametrize(
    "spoilt",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float64),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image_spoils_nobodys_batch(task: Task, spoilt: np.ndarray) -> None:
    with pytest.raises(InvalidMessage):
        wire.read_question(wire.question(task, spoilt))


@pytest.mark.parametrize("spoilt", [{"probability": np.nan}, {"probability": "high"}, {"more": 1}])
def test_an_explanation_says_what_explanations_say(spoilt: dict[str, object]) -> None:
    told = {"specialist": "vgg16", "weights_sha256": "a", "label": "dark", "layer": "features.30"}
    body = wire.pack({**told, "probability": 0.9, **spoilt}, {"grid": np.eye(3, dtype=np.float32)})

    with pytest.raises(InvalidMessage):
        wire.read_explanation(body)


def test_a_document_without_end_is_no_message() -> None:
    nested = np.frombuffer(b"[" * 1_000_000, np.uint8)

    with pytest.raises(InvalidMessage):
        wire.read_question(save({"document": nested}))


def test_pickle_is_no_message() -> None:
    with pytest.raises(InvalidMessage):
        wire.read_question(pickle.dumps({"task": "phantom-cxr"}))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        wire.read_question(body)
