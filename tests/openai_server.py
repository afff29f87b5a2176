"""Servers in this process that speak vLLM's dialect of the OpenAI protocol, without vLLM.

`OpenAiServer` knows what the client uses: one image, whole or by its name, and one text,
`structured_outputs.choice`, log-probabilities (after masking, where constrained),
`continue_final_message`, `stream`. The contract tests hold it to the real one (marker `vllm`).
`serving` sends scripted bytes over a real
socket: everything that a server can do wrong.
"""

import asyncio
import base64
import io
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service.domain import Image
from service.errors import PromptTooLong
from service.generalist.asked import spell
from service.generalist.checkpoint import load
from service.generalist.choice import END, Answers, Distribution
from service.generalist.decoder import Decoder

FORBIDDEN = -9999.0  # vLLM's log-probability of a token that the grammar rules out
# What vLLM 0.32 says (renderers/params.py).
TOO_LONG = (
    "This model's maximum context length is 512 tokens. However, your prompt contains at least "
    "513 input tokens, which exceeds this limit even without any output tokens. Please reduce "
    "the length of the input prompt."
)


class OpenAiServer:
    """`app` is the ASGI application; `requests` remembers the bodies it was sent.

    `kept` are the images it knows by name; without `keeps` it is another server than vLLM.
    """

    def __init__(self, folder: Path, model: str, *, keeps: bool = True) -> None:
        self._decoder = Decoder(load(folder))
        self._model = model
        self._owner = "vllm" if keeps else "somebody"
        self.requests: list[dict[str, Any]] = []
        self.kept: dict[str, Image] = {}
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _models(self, _: Request) -> JSONResponse:
        entry = {"id": self._model, "object": "model", "owned_by": self._owner}
        return JSONResponse({"object": "list", "data": [entry]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if body["model"] != self._model:
            return _error(404, f"The model `{body['model']}` does not exist.")
        try:
            if body.get("stream"):
                events = list(self._events(body))
                return StreamingResponse(iter(events), media_type="text/event-stream")
            return JSONResponse({"model": self._model, "choices": [self._answer(body)]})
        except PromptTooLong:
            return _error(400, TOO_LONG)
        except LookupError:
            return _error(400, "Cache miss for image at index 0 but data is not provided.")

    def _asked(self, body: dict[str, Any]) -> tuple[Image, str, str]:
        """The image, the text, and the beginning of the answer; LookupError for a lost image."""
        user, *begun = body["messages"]
        assert not begun or body["continue_final_message"] is not body["add_generation_prompt"]
        picture, text = user["content"]
        shown = picture["image_url"]
        image = _image(shown["url"]) if shown else self.kept[picture["uuid"]]
        if "uuid" in picture:
            self.kept[picture["uuid"]] = image
        return image, text["text"], "".join(m["content"] for m in begun)

    def _events(self, body: dict[str, Any]) -> Iterator[str]:
        """A delta for the role, one for each piece of text, and one with the reason to end."""
        image, text, _ = self._asked(body)
        pieces = filter(None, self._decoder.pieces(image, text, body["max_tokens"]))
        yield an_event(self._model, role="assistant", content="")
        for piece in pieces:
            yield an_event(self._model, content=piece)
        yield an_event(self._model, finish_reason="stop")
        yield "data: [DONE]\n\n"

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        image, text, emitted = self._asked(body)
        if "structured_outputs" in body:
            rests = body["structured_outputs"]["choice"]
            answers = Answers(tuple(spell(emitted + rest) for rest in rests))
            return self._constrained(image, text, answers, spell(emitted), body)
        if body.get("logprobs"):
            listed = self._unconstrained(image, text, spell(emitted), body["top_logprobs"])
            return {"message": {"content": ""}, "logprobs": {"content": [listed]}}
        answer = self._decoder.text(image, text, body["max_tokens"])
        return {"message": {"role": "assistant", "content": answer}, "logprobs": None}

    def _unconstrained(self, image: Image, text: str, emitted: str, count: int) -> dict[str, Any]:
        decoder = self._decoder
        reading = decoder._read(image, decoder._prompt_ids(text, emitted))
        top = torch.log_softmax(reading.scores, 0).topk(count)
        listed = [
            {"token": decoder._tokenizer.decode([number]).strip("\ufffd"), "logprob": logprob}
            for number, logprob in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        return {**listed[0], "top_logprobs": listed}

    def _constrained(
        self, image: Image, text: str, answers: Answers, emitted: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Token by token as the grammar allows; the text is what came after `emitted`."""
        content, answer = [], emitted
        while len(content) < body["max_tokens"]:
            allowed = self._decoder.distribution(image, text, answers, answer)
            content.append(_listed(allowed, body["top_logprobs"]))
            token = max(allowed, key=allowed.__getitem__)
            if token == END:
                break
            answer += token
        written = answer.removeprefix(emitted).encode("latin-1").decode(errors="ignore")
        message = {"role": "assistant", "content": written}
        return {"message": message, "logprobs": {"content": content}}


@dataclass
class Script:
    """Where a scripted server listens, and how often it was asked."""

    base_url: str = ""
    requests: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)


@asynccontextmanager
async def serving(*replies: bytes, stall_seconds: float = 0.0) -> AsyncIterator[Script]:
    """Each request takes the next reply, byte by byte as given, and then the connection ends.

    The last reply stays. `stall_seconds` pass between the reply and the end of the connection.
    """
    script, left, handlers = Script(), list(replies), set[asyncio.Task[None]]()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.ensure_future(reply(reader, writer)))

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((line for line in head.lower().split("\r\n") if "content-length" in line), "")
        body = await reader.readexactly(int(length.split(":")[1])) if length else b"{}"
        script.requests += 1
        script.bodies.append(json.loads(body))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        try:
            await asyncio.sleep(stall_seconds)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    script.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def a_reply(
    body: bytes | str | dict[str, Any], status: int = 200, *, cut: int = 0, **headers: object
) -> bytes:
    """An HTTP reply; `cut` bytes of its body never come."""
    octets = json.dumps(body).encode() if isinstance(body, dict) else body
    octets = octets.encode() if isinstance(octets, str) else octets
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(octets)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + octets[: len(octets) - cut]


def a_listing(*tokens: tuple[str, float], model: str | None = None) -> dict[str, Any]:
    """A completion whose likeliest next tokens are these, with their log-probabilities."""
    listed = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    first = {"message": {"content": tokens[0][0]}}
    choice = {**first, "logprobs": {"content": [{"top_logprobs": listed}]}}
    return {"choices": [choice]} | ({} if model is None else {"model": model})


def an_event(model: str, finish_reason: str | None = None, **delta: str) -> str:
    """A piece of a streamed answer."""
    first = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return "data: " + json.dumps({"model": model, "choices": [first]}) + "\n\n"


def _listed(allowed: Distribution, count: int) -> dict[str, Any]:
    listed = [_entry(token, math.log(share)) for token, share in allowed.items() if share > 0]
    listed.append(_entry("Sorry", FORBIDDEN))
    listed.sort(key=lambda entry: -entry["logprob"])
    return {**listed[0], "top_logprobs": listed[:count]}


def _entry(token: str, logprob: float) -> dict[str, Any]:
    text = "<|im_end|>" if token == END else token.encode("latin-1").decode(errors="ignore")
    return {"token": text, "logprob": logprob}


def _image(url: str) -> Image:
    octets = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Pictures.open(io.BytesIO(octets)).convert("RGB"))
    return Image(pixels, sha256=str(hash(octets)), media_type="image/png")


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": status}}, status_code=status)
