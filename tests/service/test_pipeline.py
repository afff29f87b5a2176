"""The protocol of a case: who is asked what, in which order, and what becomes of failures."""

import asyncio

import pytest
from builders import a_case, a_multi_label_task, a_neighbour, a_reference_case, a_task
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists, FakeStore, completion

from retrieval.errors import IndexUnavailable
from service.domain import pixels_sha256
from service.errors import GeneralistUnavailable, InvalidInput
from service.generalist import prompt
from service.pipeline import Pipeline
from specialists.errors import PoolOverloaded


def a_pipeline(**parts: object) -> Pipeline:
    given = {
        "specialists": FakeSpecialists(),
        "retriever": FakeRetriever(),
        "generalist": FakeGeneralist(),
        "store": FakeStore(),
    }
    return Pipeline(**(given | parts))  # type: ignore[arg-type]


async def test_the_generalist_answers_first_alone_and_then_with_the_evidence() -> None:
    generalist = FakeGeneralist()
    case = a_case()

    diagnosis = await a_pipeline(generalist=generalist).diagnose(case)

    first, second = generalist.asked
    assert first.text == prompt.instruction(case.task)
    assert second.text.startswith(first.text)
    assert "specialist models: pneumonia, pneumonia" in second.text
    assert diagnosis.initial.labels == ("normal",)


async def test_the_final_answer_is_the_generalists_not_the_vote() -> None:
    script = [
        completion(a_task().label_names, "pneumonia"),
        completion(a_task().label_names, "normal"),
    ]

    diagnosis = await a_pipeline(generalist=FakeGeneralist(script=script)).diagnose(a_case())

    assert diagnosis.final.labels == ("normal",)
    assert diagnosis.agreement == 0
    assert "0 of 10 specialists name normal" in diagnosis.review_reasons[0]


async def test_a_diagnosis_is_stored_with_its_provenance_before_it_is_returned() -> None:
    store = FakeStore()
    case = a_case()

    diagnosis = await a_pipeline(store=store).diagnose(case)

    assert await store.get(case.id) == diagnosis
    assert diagnosis.provenance.input_sha256 == case.image.sha256
    assert len(diagnosis.provenance.weights_sha256) == 10
    assert (
        diagnosis.provenance.initial_prompt_sha256 != diagnosis.provenance.arbitration_prompt_sha256
    )


async def test_evidence_is_gathered_while_the_generalist_looks() -> None:
    slow = {"delay_seconds": 0.2}
    parts = {"generalist": FakeGeneralist(**slow), "specialists": FakeSpecialists(**slow)}

    diagnosis = await a_pipeline(**parts).diagnose(a_case())

    seconds = diagnosis.durations_seconds
    assert seconds["total"] < seconds["initial"] + seconds["specialists"] + seconds["arbitration"]


async def test_a_missing_specialist_degrades_the_diagnosis_and_asks_for_review() -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights for 'vgg16'"})

    diagnosis = await a_pipeline(specialists=specialists).diagnose(a_case())

    assert [missing.part for missing in diagnosis.degraded] == ["specialist vgg16"]
    assert len(diagnosis.evidence.moed) == 9
    assert diagnosis.needs_review


async def test_without_reference_cases_the_panel_still_testifies() -> None:
    retriever = FakeRetriever(failure=IndexUnavailable("no index for task 'cxr-pneumonia'"))
    generalist = FakeGeneralist()

    diagnosis = await a_pipeline(retriever=retriever, generalist=generalist).diagnose(a_case())

    assert diagnosis.degraded[0].part == "retrieval"
    assert "similar cases" not in generalist.asked[1].text
    assert "specialist models" in generalist.asked[1].text


async def test_without_any_specialist_nothing_is_retrieved() -> None:
    retriever = FakeRetriever()
    nobody = FakeSpecialists(missing=dict.fromkeys(FakeSpecialists().names, "no weights"))

    diagnosis = await a_pipeline(specialists=nobody, retriever=retriever).diagnose(a_case())

    assert retriever.asked == []
    assert diagnosis.agreement is None
    assert diagnosis.needs_review


async def test_nobody_answers_in_the_generalists_name() -> None:
    store = FakeStore()
    generalist = FakeGeneralist(failure=GeneralistUnavailable("the server does not answer"))

    with pytest.raises(GeneralistUnavailable, match="does not answer"):
        await a_pipeline(generalist=generalist, store=store).diagnose(a_case())

    assert store.asked == []


async def test_a_full_panel_is_an_error_of_its_own_and_stops_the_other_branch() -> None:
    specialists = FakeSpecialists(
        failure=PoolOverloaded("specialist 'vgg16' has 64 images waiting")
    )

    with pytest.raises(PoolOverloaded):
        await a_pipeline(specialists=specialists).diagnose(a_case())


async def test_retrieval_is_told_whose_case_it_is() -> None:
    case = a_case(group="patient-7")
    own = a_neighbour("own", case=a_reference_case("own", group="patient-7"))
    retriever = FakeRetriever(neighbours=(own,))

    diagnosis = await a_pipeline(retriever=retriever).diagnose(case)

    assert diagnosis.evidence.rad == ()
    assert retriever.asked[0][3] == pixels_sha256(case.image.pixels)


async def test_a_kind_of_task_that_is_not_supported_is_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidInput, match="only single-label tasks"):
        await a_pipeline().diagnose(a_case(task=a_multi_label_task()))


async def test_cancelling_a_case_cancels_both_branches() -> None:
    generalist = FakeGeneralist(delay_seconds=30)
    running = asyncio.create_task(a_pipeline(generalist=generalist).diagnose(a_case()))
    await asyncio.sleep(0.05)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
