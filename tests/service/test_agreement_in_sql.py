"""How often reviewers agree, counted by both databases."""

from dataclasses import replace
from uuid import uuid4

from builders import a_diagnosis
from sqlalchemy import Engine

from service.persistence.store import SqlStore


async def test_diagnoses_of_a_week_are_parted_by_generalist(engine: Engine) -> None:
    store, usual = SqlStore(engine), a_diagnosis()
    tuned = replace(usual.provenance.generalist, weights_sha256="9" * 64)
    other = replace(usual.provenance, generalist=tuned)
    for provenance in (usual.provenance, usual.provenance, other):
        await store.save(replace(usual, id=str(uuid4()), provenance=provenance))
    today = usual.created_at.date()

    together = await store.weeks(1, today)
    parted = await store.weeks(1, today, by_model=True)

    assert [(one.diagnoses, one.model) for one in together] == [(3, None)]
    told = {one.weights_sha256: one.diagnoses for one in parted}
    assert told == {usual.provenance.generalist.weights_sha256: 2, "9" * 64: 1}
