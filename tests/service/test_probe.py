"""What `gsco generalist check` finds out about servers that lack one thing or another."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

from service.cli.main import app
from service.errors import Misconfigured
from service.generalist import probe
from service.generalist.probe import Fitness, State

REFUSED = JSONResponse({"error": {"message": "no"}}, status_code=400)
URL = "http://generalist.test"


@dataclass
class Server:
    """Answers as vLLM does, unless told to lack something; `reused` counts prompt tokens."""

    models: tuple[str, ...] = ("meddr",)
    answers_as: str | None = None
    sees: bool = True
    refuses_images: bool = False
    lists: bool = True
    constrains: bool = True
    continues: bool = True
    opens_turns: bool = True
    counts: bool = True
    caches: bool = True
    tells_in_replies: bool = True
    tells_in_metrics: bool = True
    owner: str = "vllm"
    keeps: bool = True
    refuses_unknown: bool = True
    kept: set[str] = field(default_factory=set)
    stalls_seconds: float = 0.0
    reused: int = 0
    seen: set[str] = field(default_factory=set)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def transport(self) -> httpx.ASGITransport:
        routes = [
            Route("/v1/models", self._models),
            Route("/metrics", self._metrics),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        return httpx.ASGITransport(Starlette(routes=routes))

    async def _models(self, _: Request) -> Response:
        served = [
            {"id": name, "max_model_len": 4096, "owned_by": self.owner} for name in self.models
        ]
        return JSONResponse({"data": served})

    async def _metrics(self, _: Request) -> Response:
        if not self.tells_in_metrics:
            return Response(status_code=404)
        line = f'vllm:prefix_cache_hits_total{{engine="0",model_name="meddr"}} {self.reused:.1f}'
        return PlainTextResponse(f"# TYPE vllm:prefix_cache_hits counter\n{line}\n")

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        await asyncio.sleep(self.stalls_seconds)
        content = body["messages"][0]["content"]
        if isinstance(content, list) and self.refuses_images:
            return REFUSED
        if self._lacks_image(content):
            return REFUSED
        if body.get("add_generation_prompt") and not self.opens_turns:
            return REFUSED
        first: dict[str, Any] = {"message": {"content": self._text(body)}}
        if body.get("logprobs") and self.lists:
            tokens = (" and", ".") if self._goes_on(body) else ("umb", "gir")
            listed = [{"token": token, "logprob": -0.7} for token in tokens]
            first["logprobs"] = {"content": [{"top_logprobs": listed}]}
        reply = {"model": self.answers_as or body["model"], "choices": [first]}
        return JSONResponse(reply | (self._usage(body, content) if self.counts else {}))

    def _lacks_image(self, content: Any) -> bool:
        """Of an image that is not there: whether it says so."""
        shown = content[0] if isinstance(content, list) else {}
        if self.keeps and shown.get("image_url") and "uuid" in shown:
            self.kept.add(shown["uuid"])
        is_there = shown.get("image_url", "") or shown.get("uuid") in self.kept or not shown
        return self.refuses_unknown and not is_there

    def _goes_on(self, body: dict[str, Any]) -> bool:
        return self.continues and body.get("continue_final_message", False)

    def _text(self, body: dict[str, Any]) -> str:
        is_constrained = "structured_outputs" in body and self.constrains
        return body["structured_outputs"]["choice"][0] if is_constrained else "A pattern"

    def _usage(self, body: dict[str, Any], content: Any) -> dict[str, Any]:
        prompt = 100 + (256 if isinstance(content, list) and self.sees else 0)
        prompt += 0 if len(body["messages"]) == 1 else 1 if self._goes_on(body) else 5
        image = str(content[0]["image_url"]) if isinstance(content, list) else ""
        cached = 320 if self.caches and image in self.seen else 0
        self.seen.add(image)
        self.reused += cached
        details = {"cached_tokens": cached} if self.tells_in_replies else None
        return {"usage": {"prompt_tokens": prompt, "prompt_tokens_details": details}}


async def tried(server: Server, model: str | None = None, timeout_seconds: float = 5) -> Fitness:
    return await probe.probe(
        URL, model, transport=server.transport, timeout_seconds=timeout_seconds
    )


def states(fitness: Fitness) -> dict[str, State]:
    return {finding.what: finding.state for finding in fitness.findings}


async def test_a_server_with_everything_is_fit() -> None:
    fitness = await tried(Server())

    assert fitness.is_fit
    assert set(states(fitness).values()) == {State.GOOD}
    assert fitness.model == "meddr"
    assert fitness.timing is not None
    assert all(finding.meaning == "" for finding in fitness.findings)


async def test_the_findings_say_what_was_seen() -> None:
    seen = {one.what: one.seen for one in (await tried(Server())).findings}

    assert seen["server"] == "serves 'meddr', context 4096"
    assert seen["images"] == "one image takes 256 tokens"
    assert seen["prefix cache"] == "320 of 356 tokens reused"


@pytest.mark.parametrize(
    ("lacking", "what"),
    [
        ({"refuses_images": True}, "images"),
        ({"sees": False}, "images"),
        ({"lists": False}, "log-probabilities"),
        ({"constrains": False}, "structured outputs"),
        ({"continues": False}, "continued answers"),
        ({"answers_as": "another"}, "images"),
    ],
)
async def test_a_server_that_lacks_what_is_needed_is_not_fit(
    lacking: dict[str, Any], what: str
) -> None:
    fitness = await tried(Server(**lacking))

    assert not fitness.is_fit
    missing = [one for one in fitness.findings if one.state is State.MISSING]
    assert [one.what for one in missing] == [what]
    assert missing[0].meaning


async def test_without_a_prefix_cache_a_server_is_slower_but_fit() -> None:
    fitness = await tried(Server(caches=False))

    assert fitness.is_fit
    assert states(fitness)["prefix cache"] is State.MISSING


async def test_a_server_that_keeps_no_images_is_slower_but_fit() -> None:
    other, forgetful = await tried(Server(owner="somebody")), await tried(Server(keeps=False))

    assert other.is_fit
    assert forgetful.is_fit
    assert states(other)["images by name"] is State.MISSING
    assert states(forgetful)["images by name"] is State.MISSING


async def test_a_server_that_answers_about_an_image_it_never_saw_is_not_fit() -> None:
    fitness = await tried(Server(refuses_unknown=False))

    assert not fitness.is_fit
    assert states(fitness)["forgotten images"] is State.MISSING


async def test_the_prefix_cache_is_seen_in_the_metrics_where_replies_do_not_tell() -> None:
    told = await tried(Server(tells_in_replies=False))
    untold = await tried(Server(tells_in_replies=False, tells_in_metrics=False))

    assert states(told)["prefix cache"] is State.GOOD
    assert states(untold)["prefix cache"] is State.UNKNOWN
    assert untold.is_fit


@pytest.mark.parametrize(("continues", "state"), [(True, State.GOOD), (False, State.MISSING)])
async def test_a_server_that_counts_no_tokens_is_judged_by_its_log_probabilities(
    continues: bool, state: State
) -> None:
    fitness = await tried(Server(counts=False, tells_in_metrics=False, continues=continues))

    assert states(fitness)["continued answers"] is state
    assert states(fitness)["images"] is State.UNKNOWN
    assert states(fitness)["prefix cache"] is State.UNKNOWN


async def test_a_server_may_refuse_a_turn_after_an_unfinished_answer() -> None:
    fitness = await tried(Server(opens_turns=False))

    assert fitness.is_fit


async def test_a_model_can_be_named_and_one_that_is_not_served_is_told() -> None:
    server = Server(models=("small", "meddr"))

    assert (await tried(server, "meddr")).model == "meddr"
    absent = await tried(server, "medgemma")

    assert not absent.is_fit
    assert absent.findings[0].seen == "no model 'medgemma', only small, meddr"
    assert len(absent.findings) == 1


async def test_a_server_that_is_away_is_one_clear_finding() -> None:
    fitness = await probe.probe("http://127.0.0.1:9/v1/", timeout_seconds=2)

    assert not fitness.is_fit
    assert fitness.url == "http://127.0.0.1:9"
    assert fitness.findings[0].seen.startswith("no connection to http://127.0.0.1:9")
    assert fitness.findings[0].meaning == "nothing else could be tried"


async def test_what_is_no_address_is_wrong_use() -> None:
    with pytest.raises(Misconfigured, match="is no address"):
        await probe.probe("http://gsco.test:eighty")


async def test_no_request_takes_longer_than_allowed() -> None:
    fitness = await tried(Server(stalls_seconds=30), timeout_seconds=0.1)

    assert not fitness.is_fit
    assert states(fitness)["images"] is State.MISSING
    assert fitness.findings[-1].seen == "no answer within 0.1 s"


async def test_no_question_gives_its_choices_away() -> None:
    server = Server()
    await tried(server)

    asked = [json.dumps(body["messages"][0]) for body in server.requests]
    assert not any(choice in text for choice in probe.CHOICES for text in asked)


@pytest.mark.parametrize(("server", "code"), [(Server(), 0), (Server(constrains=False), 1)])
def test_the_command_prints_json_and_its_exit_code_says_whether_it_is_fit(
    server: Server, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(monkeypatch, server)

    outcome = CliRunner().invoke(app, ["generalist", "check", URL, "--json"])

    assert outcome.exit_code == code
    document = json.loads(outcome.stdout)
    assert document["is_fit"] is (code == 0)
    assert document["timing"]["cold_seconds"] > 0


def test_the_table_says_what_is_missing_and_what_that_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected(monkeypatch, Server(continues=False))

    outcome = CliRunner().invoke(app, ["generalist", "check", URL])

    assert outcome.exit_code == 1
    assert "continued answers" in outcome.stdout
    assert "labels that begin alike" in outcome.stdout


def connected(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """The command makes its own client: here it leads to the server of the test."""
    direct = probe.probe

    async def through(url: str, model: str | None, **options: Any) -> Fitness:
        return await direct(url, model, transport=server.transport, **options)

    monkeypatch.setattr(probe, "probe", through)
