"""Stories of callers who ask for a diagnosis."""

from pathlib import Path

import pytest
from builders import (
    PANEL,
    a_diagnosis,
    a_neighbour,
    a_reference_case,
    a_segmentation,
    a_task,
    nothing_segmented,
    png_bytes,
    task_toml,
)
from fakes import (
    FakeGeneralist,
    FakeIntake,
    FakeRetriever,
    FakeSpecialists,
    FakeStore,
    completion,
)
from serving import a_service, problem_of
from sqlalchemy.exc import OperationalError

from retrieval.errors import IndexUnavailable
from service.domain import INTENDED_USE
from service.errors import (
    GeneralistUnavailable,
    ImageTooLarge,
    Overloaded,
    UnparsableAnswer,
    UnreadableImage,
    UnsupportedImage,
)
from specialists.errors import PoolOverloaded

LABELS = ("normal", "pneumonia")


async def test_answers_with_the_final_labels_and_where_to_read_them_again(home: Path) -> None:
    script = [completion(LABELS, "normal", 0.6), completion(LABELS, "pneumonia", 0.9)]
    async with a_service(home, generalist=FakeGeneralist(script=script)) as service:
        reply = await service.diagnose()
        again = await service.client.get(reply.headers["location"])

    body = reply.json()
    assert reply.status_code == 201
    assert body["labels"] == ["pneumonia"]
    assert body["initial"]["labels"] == ["normal"]
    assert body["probabilities"][1] == {"label": "pneumonia", "probability": 0.9}
    assert again.json() == body


async def test_shows_all_evidence_that_was_weighed(home: Path) -> None:
    async with a_service(home) as service:
        body = (await service.diagnose()).json()

    moed, rad = body["evidence"]["moed"], body["evidence"]["rad"]
    assert [row["specialist"] for row in moed] == list(PANEL)
    assert moed[0]["labels"] == ["pneumonia"]
    assert moed[0]["validation_accuracy"] == 0.9
    assert moed[0]["computed_in"] == "float32"
    assert len(moed[0]["weights_sha256"]) == 64
    assert rad[0]["case_id"] == "reference-1"
    assert {"labels", "similarity", "score", "retrievers", "source", "licence"} < rad[0].keys()
    assert body["agreement"] == 0.0
    assert body["intended_use"] == INTENDED_USE


async def test_says_what_is_outlined_and_where_but_shows_no_mask(home: Path) -> None:
    specialists = FakeSpecialists(segmentations=(a_segmentation(), nothing_segmented()))
    async with a_service(home, specialists=specialists) as service:
        body = (await service.diagnose()).json()

    found, nothing = body["evidence"]["segmentations"]
    assert found["segment"] == "lesion"
    assert (found["share"], found["areas"], found["places"]) == (0.034, 1, ["upper left"])
    assert (found["certainty"], found["validation_dice"]) == (0.81, 0.66)
    assert nothing["places"] == []
    assert not {"map", "mask"} & found.keys()
    assert {"specialist": "unet", "weights_sha256": found["weights_sha256"]} in (
        body["provenance"]["weights"]
    )


async def test_says_how_the_diagnosis_came_about(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(notes=("frame 2 of 3 was used",))) as service:
        body = (await service.diagnose()).json()

    provenance = body["provenance"]
    assert len(provenance["weights"]) == len(PANEL)
    assert provenance["generalist"]["model"] == "MedDr-nano"
    assert provenance["initial_prompt_sha256"] != provenance["arbitration_prompt_sha256"]
    assert body["notes"] == ["frame 2 of 3 was used"]
    assert body["durations_seconds"]["total"] >= 0


async def test_passes_the_chosen_frame_and_the_pseudonym_on(home: Path) -> None:
    own = a_neighbour("own", case=a_reference_case("own", group="patient-7"))
    retriever = FakeRetriever(neighbours=(own, a_neighbour("other")))
    async with a_service(home, retriever=retriever) as service:
        body = (await service.diagnose(frame="3", group="patient-7")).json()

    assert service.intake.asked == [(len(png_bytes()), 3)]
    assert [row["case_id"] for row in body["evidence"]["rad"]] == ["other"]


async def test_takes_the_pseudonym_that_intake_made_when_none_is_given(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(group="from-dicom")) as service:
        await service.diagnose(frame="")

    assert service.retriever.asked[0][2] == "from-dicom"


async def test_a_missing_specialist_degrades_and_asks_for_review(home: Path) -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights for 'vgg16'"})
    async with a_service(home, specialists=specialists) as service:
        reply = await service.diagnose()

    body = reply.json()
    assert reply.status_code == 201
    assert body["degraded"] == [{"part": "specialist vgg16", "reason": "no weights for 'vgg16'"}]
    assert body["needs_review"] is True
    assert any("vgg16" in reason for reason in body["review_reasons"])


async def test_retrieval_that_is_down_degrades(home: Path) -> None:
    retriever = FakeRetriever(failure=IndexUnavailable("no index yet"))
    async with a_service(home, retriever=retriever) as service:
        body = (await service.diagnose()).json()

    assert body["evidence"]["rad"] == []
    assert body["degraded"] == [{"part": "retrieval", "reason": "no index yet"}]


@pytest.mark.parametrize(
    ("failure", "problem", "status"),
    [
        (UnreadableImage("not an image"), "unreadable-image", 422),
        (ImageTooLarge("too many pixels"), "image-too-large", 413),
        (UnsupportedImage("a waveform"), "unsupported-image", 422),
        (Overloaded("16 images are waiting"), "overloaded", 503),
    ],
)
async def test_says_what_is_wrong_with_the_image(
    home: Path, failure: Exception, problem: str, status: int
) -> None:
    async with a_service(home, intake=FakeIntake(failure=failure)) as service:
        reply = await service.diagnose(b"whatever")

    assert (problem_of(reply), reply.status_code) == (problem, status)
    assert reply.json()["detail"] == str(failure)
    assert service.store.saved == {}


async def test_without_the_generalist_there_is_no_diagnosis(home: Path) -> None:
    generalist = FakeGeneralist(failure=GeneralistUnavailable("the generalist is starting"))
    async with a_service(home, generalist=generalist) as service:
        reply = await service.diagnose()

    assert reply.status_code == 503
    assert problem_of(reply) == "generalist-unavailable"
    assert int(reply.headers["retry-after"]) > 0
    assert service.store.saved == {}


async def test_an_answer_outside_the_labels_is_no_diagnosis(home: Path) -> None:
    generalist = FakeGeneralist(failure=UnparsableAnswer("the generalist said maybe"))
    async with a_service(home, generalist=generalist) as service:
        reply = await service.diagnose()

    assert (reply.status_code, problem_of(reply)) == (502, "unparsable-answer")


async def test_a_full_queue_of_a_specialist_asks_to_come_again(home: Path) -> None:
    specialists = FakeSpecialists(failure=PoolOverloaded("resnet18's queue is full"))
    async with a_service(home, specialists=specialists) as service:
        reply = await service.diagnose()

    assert (reply.status_code, problem_of(reply)) == (503, "overloaded")
    assert "retry-after" in reply.headers


async def test_what_cannot_be_stored_is_not_answered(home: Path) -> None:
    failure = OperationalError("INSERT patient Doe", {}, Exception("disk full"))
    async with a_service(home, store=FakeStore(failure=failure)) as service:
        reply = await service.diagnose()

    assert (reply.status_code, problem_of(reply)) == (503, "database-unavailable")
    assert "Doe" not in reply.text


async def test_an_unknown_task_is_named_with_those_there_are(home: Path) -> None:
    async with a_service(home) as service:
        reply = await service.diagnose(task="knee-mri")

    assert (reply.status_code, problem_of(reply)) == (422, "unknown-task")
    assert "cxr-pneumonia" in reply.json()["detail"]


@pytest.mark.parametrize("id", ["6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a", "no-id", "x%00y"])
async def test_an_unknown_diagnosis_is_not_found(home: Path, id: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(f"/v1/diagnoses/{id}")

    assert (reply.status_code, problem_of(reply)) == (404, "not-found")


async def test_an_old_diagnosis_outlives_its_task(home: Path) -> None:
    old = a_diagnosis(task="forgotten")
    async with a_service(home, store=FakeStore(saved={old.id: old})) as service:
        body = (await service.client.get(f"/v1/diagnoses/{old.id}")).json()

    assert body["labels"] == ["pneumonia"]
    assert body["evidence"]["moed"][0]["labels"] is None


async def test_a_task_added_while_serving_can_be_asked(home: Path) -> None:
    async with a_service(home) as service:
        (home / "tasks" / "new.toml").write_text(task_toml(a_task("busi")), "utf-8")
        reply = await service.diagnose(task="busi")
        await service.settled()

    assert reply.status_code == 201
    assert "load busi" in service.specialists.calls


async def test_a_file_of_another_modality_asks_for_review(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(modality="US")) as service:
        body = (await service.diagnose()).json()

    assert "the file says it is US, the task is for chest X-ray" in body["review_reasons"]
