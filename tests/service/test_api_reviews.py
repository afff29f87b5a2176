"""Stories of reviewers: the worklist, their word on a diagnosis, and how often they agree."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from builders import a_diagnosis, a_multi_label_task, task_toml
from databases import a_database
from serving import Service, a_service, problem_of

from service.domain import Diagnosis, LabelledAnswer
from service.persistence.store import SqlStore

NOW = datetime.now(UTC)


@pytest.fixture
def store(either_database: str, home: Path) -> Iterator[SqlStore]:
    with a_database(home) as engine:
        yield SqlStore(engine)


async def stored(store: SqlStore, **fields: Any) -> Diagnosis:
    diagnosis = a_diagnosis(**{"id": str(uuid4()), "created_at": NOW, **fields})
    await store.save(diagnosis)
    return diagnosis


async def review(service: Service, id: str, **said: Any) -> httpx.Response:
    return await service.client.post(f"/v1/diagnoses/{id}/review", json=said)


async def listed(service: Service, **asked: Any) -> list[dict[str, Any]]:
    reply = await service.client.get("/v1/diagnoses", params=asked)
    return reply.json()["diagnoses"]  # type: ignore[no-any-return]


async def test_accepting_keeps_the_labels_of_the_diagnosis(home: Path, store: SqlStore) -> None:
    diagnosis = await stored(store)
    async with a_service(home, store=store) as service:
        reply = await review(service, diagnosis.id, decision="accept", comment=" Clear. ")
        again = await service.client.get(f"/v1/diagnoses/{diagnosis.id}/review")
        unchanged = await service.client.get(f"/v1/diagnoses/{diagnosis.id}")

    assert reply.status_code == 201
    assert (reply.json()["labels"], reply.json()["comment"]) == (["pneumonia"], "Clear.")
    assert again.json()["reviews"] == [reply.json()]
    assert unchanged.json()["labels"] == ["pneumonia"]


async def test_of_several_reviews_the_last_counts(home: Path, store: SqlStore) -> None:
    diagnosis = await stored(store)
    async with a_service(home, store=store) as service:
        await review(service, diagnosis.id, decision="accept")
        await review(service, diagnosis.id, decision="override", labels=["normal"])
        (entry,) = await listed(service)
        reviews = (await service.client.get(f"/v1/diagnoses/{diagnosis.id}/review")).json()

    assert (entry["review"]["decision"], entry["review"]["labels"]) == ("override", ["normal"])
    assert [one["decision"] for one in reviews["reviews"]] == ["override", "accept"]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"decision": "override", "labels": ["measles"]}, "normal, pneumonia"),
        ({"decision": "override", "labels": ["pneumonia"]}, "accept it instead"),
        ({"decision": "override", "labels": []}, "name one"),
        ({"decision": "override", "labels": ["normal", "pneumonia"]}, "name one"),
        ({"decision": "accept", "labels": ["normal"]}, "override it instead"),
        ({"decision": "perhaps"}, "accept"),
        ({"decision": "accept", "comment": "x" * 2001}, "2000"),
        ({"decision": "accept", "comment": "a\0b"}, "without NUL"),
        ({"decision": "accept", "reviewer": "Dr. Doe"}, "not known here"),
    ],
)
async def test_what_is_no_review_is_refused_with_a_sentence(
    home: Path, store: SqlStore, said: dict[str, Any], sentence: str
) -> None:
    diagnosis = await stored(store)
    async with a_service(home, store=store) as service:
        reply = await review(service, diagnosis.id, **said)
        (entry,) = await listed(service)

    assert reply.status_code == 422
    assert sentence in reply.json()["detail"]
    assert entry["review"] is None


async def test_several_findings_may_hold_but_nothing_stands_alone(
    home: Path, store: SqlStore
) -> None:
    task = a_multi_label_task()
    (home / "tasks" / "findings.toml").write_text(task_toml(task), "utf-8")
    said = LabelledAnswer(("effusion",), (0.1, 0.9, 0.2))
    diagnosis = await stored(store, task=task.name, label_names=task.label_names, final=said)
    async with a_service(home, store=store) as service:
        both = await review(
            service, diagnosis.id, decision="override", labels=["nodule", "effusion"]
        )
        contradiction = await review(
            service, diagnosis.id, decision="override", labels=["no finding", "nodule"]
        )
        nothing = await review(service, diagnosis.id, decision="override", labels=[])

    assert both.json()["labels"] == ["effusion", "nodule"]
    assert "stands alone" in contradiction.json()["detail"]
    assert "'no finding' where none holds" in nothing.json()["detail"]


async def test_a_diagnosis_that_is_not_there_cannot_be_reviewed(
    home: Path, store: SqlStore
) -> None:
    async with a_service(home, store=store) as service:
        for id in (str(uuid4()), "no-id"):
            assert problem_of(await review(service, id, decision="accept")) == "not-found"
            reply = await service.client.get(f"/v1/diagnoses/{id}/review")
            assert problem_of(reply) == "not-found"


async def test_a_foreign_page_cannot_review_by_a_plain_form(home: Path, store: SqlStore) -> None:
    diagnosis = await stored(store)
    async with a_service(home, store=store) as service:
        reply = await service.client.post(
            f"/v1/diagnoses/{diagnosis.id}/review",
            content='{"decision": "accept"}',
            headers={"content-type": "text/plain"},
        )
        (entry,) = await listed(service)

    assert reply.status_code == 422
    assert entry["review"] is None


async def test_the_worklist_is_filtered_by_task_need_and_review(
    home: Path, store: SqlStore
) -> None:
    needing = await stored(store, review_reasons=("low probability",))
    done = await stored(store, review_reasons=("low probability",))
    sure = await stored(store, task="busi")
    async with a_service(home, store=store) as service:
        await review(service, done.id, decision="accept")
        waiting = await listed(service, needs_review=True, reviewed=False)
        reviewed = await listed(service, reviewed=True)
        of_task = await listed(service, task="busi")

    assert [one["id"] for one in waiting] == [needing.id]
    assert waiting[0]["review_reasons"] == ["low probability"]
    assert [one["id"] for one in reviewed] == [done.id]
    assert [one["id"] for one in of_task] == [sure.id]


async def test_pages_follow_each_other_without_gap_or_repetition(
    home: Path, store: SqlStore
) -> None:
    made = [await stored(store, created_at=NOW - timedelta(minutes=n // 2)) for n in range(7)]
    seen, cursor = list[str](), None
    async with a_service(home, store=store) as service:
        while True:
            asked = {"limit": 3, **({"cursor": cursor} if cursor else {})}
            body = (await service.client.get("/v1/diagnoses", params=asked)).json()
            seen += [one["id"] for one in body["diagnoses"]]
            if (cursor := body["next_cursor"]) is None:
                break
            await stored(store, created_at=NOW + timedelta(minutes=len(seen)))  # meanwhile

    assert seen == [
        one.id for one in sorted(made, key=lambda one: (one.created_at, one.id), reverse=True)
    ]


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": 101}, {"task": "x\0y"}, {"reviewed": "maybe"}, {"page": 2}]
)
async def test_a_list_that_cannot_be_is_refused(
    home: Path, store: SqlStore, asked: dict[str, Any]
) -> None:
    async with a_service(home, store=store) as service:
        reply = await service.client.get("/v1/diagnoses", params=asked)

    assert problem_of(reply) == "invalid-request"


async def test_agreement_is_counted_by_week_and_task(home: Path, store: SqlStore) -> None:
    earlier = NOW - timedelta(days=7)
    this_week = [await stored(store, review_reasons=("why",)) for _ in range(3)]
    await stored(store, created_at=earlier)
    await stored(store, created_at=NOW - timedelta(days=700))
    async with a_service(home, store=store) as service:
        await review(service, this_week[0].id, decision="override", labels=["normal"])
        await review(service, this_week[0].id, decision="accept")
        await review(service, this_week[1].id, decision="override", labels=["normal"])
        weeks = (await service.client.get("/v1/agreement")).json()["weeks"]
        none = (await service.client.get("/v1/agreement", params={"task": "busi"})).json()

    monday = NOW.date() - timedelta(days=NOW.weekday())
    assert [one["week"] for one in weeks] == [str(monday - timedelta(days=7)), str(monday)]
    assert weeks[0]["agreement"] is None
    assert weeks[1] == {
        "task": "cxr-pneumonia",
        "week": str(monday),
        "diagnoses": 3,
        "needing_review": 3,
        "reviewed": 2,
        "accepted": 1,
        "overridden": 1,
        "agreement": 0.5,
        "model": None,
        "weights_sha256": None,
    }
    assert none == {"weeks": []}


async def test_agreement_is_counted_by_generalist_where_that_is_asked(
    home: Path, store: SqlStore
) -> None:
    usual = a_diagnosis().provenance
    other = replace(usual, generalist=replace(usual.generalist, weights_sha256="9" * 64))
    one, another = await stored(store), await stored(store, provenance=other)
    async with a_service(home, store=store) as service:
        await review(service, one.id, decision="accept")
        await review(service, another.id, decision="override", labels=["normal"])
        asked = {"by_model": "true"}
        weeks = (await service.client.get("/v1/agreement", params=asked)).json()["weeks"]

    told = {one["weights_sha256"]: (one["model"], one["agreement"]) for one in weeks}
    assert told == {
        usual.generalist.weights_sha256: (usual.generalist.model, 1.0),
        "9" * 64: (usual.generalist.model, 0.0),
    }


async def test_a_review_survives_that_its_diagnosis_is_saved_again(
    home: Path, store: SqlStore
) -> None:
    diagnosis = await stored(store)
    async with a_service(home, store=store) as service:
        await review(service, diagnosis.id, decision="accept")
        await store.save(replace(diagnosis, notes=("again",)))
        (entry,) = await listed(service)

    assert entry["review"]["decision"] == "accept"
