"""Stories of figures and log lines: what operators can see, and that labels stay few and clean."""

import io
import json
from dataclasses import replace
from pathlib import Path

from builders import a_case, a_diagnosis, a_prompt, a_task, png_bytes, sha256_of
from fakes import FakeGeneralist, FakeSpecialists, completion
from prometheus_client.parser import text_string_to_metric_families
from receiver import a_receiver
from serving import a_service
from tiny_generalist import a_checkpoint
from waiting import until_told

from service import calibration, spans
from service.calibration import Calibration
from service.domain import Evidence, LabelledAnswer, Missing
from service.generalist import parser
from service.generalist.embedded import EmbeddedGeneralist
from service.intake import dicom
from service.metrics import Metrics
from service.spans import Watch

HOSTILE = "ZZMARKERZZ"
SECRET = "whsec_dGhpcnR5LXR3byBieXRlcyB0aGF0IGFyZSBzZWNyZXQ="


def read(figures: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(figures)
        for sample in family.samples
    }


def value(figures: str, name: str, /, **labels: str) -> float:
    return read(figures)[name, frozenset(labels.items())]


async def test_every_stage_of_a_case_is_timed(home: Path) -> None:
    async with a_service(home) as service:
        await service.diagnose()
        figures = await service.figures()

    for stage in ("intake", "prompt", "initial", "parse", "specialists", "retrieval", "store"):
        labels = {"task": "cxr-pneumonia", "stage": stage}
        assert value(figures, "gsco_diagnosis_stage_duration_seconds_count", **labels) >= 1, stage
    assert value(figures, "process_resident_memory_bytes") > 0


async def test_degraded_answers_and_their_reasons_for_review_are_counted(home: Path) -> None:
    unsure = completion(("normal", "pneumonia"), "normal", 0.55)
    generalist = FakeGeneralist(script=[unsure, unsure])
    specialists = FakeSpecialists(missing={"vgg16": "no weights"})
    async with a_service(home, generalist=generalist, specialists=specialists) as service:
        await service.diagnose()
        figures = await service.figures()

    task = {"task": "cxr-pneumonia"}
    assert value(figures, "gsco_degraded_answers_total", **task) == 1
    for reason in ("low-probability", "against-panel", "missing-evidence"):
        assert value(figures, "gsco_review_reasons_total", reason=reason, **task) == 1


def test_every_sentence_that_asks_for_review_is_of_a_known_kind() -> None:
    task = replace(a_task(), modality="CT")
    case = replace(a_case(task), modality="MR")
    image = replace(case.image, cautions=(dicom._BURNED_IN, dicom._SEEMS_BURNED_IN))
    case, lacking = replace(case, image=image), Evidence(missing=(Missing("retrieval", "away"),))
    unsure = LabelledAnswer(("normal",), (0.5, 0.5))
    both = Calibration(task.name, task.label_names, (0.1, 0.1), 0.9, 200, "", {})
    diagnosis = replace(a_diagnosis(), final=unsure)
    several = calibration.applied(both, diagnosis, parser.is_close_call)
    evidence = replace(a_diagnosis().evidence, missing=lacking.missing)

    reasons = {
        *parser.review_reasons(case, unsure, evidence),
        *parser.report_review_reasons(case, "All is well.", evidence),
        *several.review_reasons,
    }

    assert len({parser.kind_of(reason) for reason in reasons}) == len(
        set(parser.KINDS_OF_REASONS.values())
    )
    assert parser.OTHER_KIND not in map(parser.kind_of, reasons)


async def test_the_first_token_and_the_wait_for_it_are_timed(tmp_path: Path) -> None:
    a_checkpoint(tmp_path)
    generalist, metrics = EmbeddedGeneralist(tmp_path), Metrics()
    await generalist.start()
    with spans.watched(Watch(metrics.note_span), "request"):
        await generalist.answer(replace(a_prompt("Which?"), choices=()))
        await generalist.answer(a_prompt("Which?"))
    await generalist.close()

    figures = metrics.render().decode()
    assert value(figures, "gsco_generalist_first_token_seconds_count") == 2
    assert value(figures, "gsco_generalist_queue_seconds_count") == 2


async def test_jobs_are_shown_by_their_age_and_deliveries_by_how_they_ended(home: Path) -> None:
    with a_receiver(500) as receiver:
        hooks = {"webhook_urls": receiver.url, "webhook_secret": SECRET}
        async with a_service(home, in_sql=True, **hooks) as service:
            service.generalist.delay_seconds = 0.5
            accepted = await service.ask_for_job(webhook=receiver.url)
            waiting = await service.figures()
            await service.ended(accepted.json()["id"])
            figures = await until_told(service.figures, lambda told: 'outcome="failed"' in told)

    ages = [v for (name, _), v in read(waiting).items() if name == "gsco_oldest_job_age_seconds"]
    labels = {"name": "webhook", "outcome": "failed"}
    assert len(ages) == 1
    assert 0 <= ages[0] < 10
    assert value(figures, "gsco_delivery_attempt_duration_seconds_count", **labels) == 1


async def test_nothing_that_a_caller_sends_becomes_a_label(home: Path) -> None:
    async with a_service(home) as service:
        await service.diagnose(task=HOSTILE, group=HOSTILE, file_name=HOSTILE)
        await service.client.get(f"/v1/tasks/{HOSTILE}")
        await service.client.get(f"/{HOSTILE}", headers={"X-Request-ID": HOSTILE})
        await service.client.request(HOSTILE, "/v1/tasks")
        for number in range(20):
            await service.client.get(f"/v1/diagnoses/{sha256_of(str(number))}")
        figures = await service.figures()

    assert HOSTILE not in figures
    assert len({key for key in read(figures) if key[0] == "gsco_http_problems_total"}) < 10


async def test_log_lines_of_a_case_say_what_took_how_long(home: Path, log: io.StringIO) -> None:
    async with a_service(home, in_sql=True) as service:
        reply = await service.diagnose(png_bytes())
        accepted = await service.ask_for_job()
        await service.ended(accepted.json()["id"])

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    now, later = (line for line in lines if line["event"] == "answered")
    stages = [line for line in lines if line["event"] == "stage"]
    assert (now["task"], now["request_id"]) == ("cxr-pneumonia", reply.headers["x-request-id"])
    assert {"intake", "initial", "arbitration", "total"} <= set(now["seconds"])
    assert later["job"] == accepted.json()["id"]
    assert all({"stage", "task", "seconds"} <= set(line) for line in stages)
