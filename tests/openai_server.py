"""A server in this process that speaks vLLM's dialect of the OpenAI protocol, without vLLM.

It knows what the client uses: one image and one text, `structured_outputs.choice`,
log-probabilities after masking, `continue_final_message`. The contract tests hold it to the
real one (marker `vllm`).
"""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.domain import Image
from service.errors import GeneralistUnavailable
from service.generalist.checkpoint import load
from service.generalist.choice import END, Distribution
from service.generalist.decoder import Decoder, spell

FORBIDDEN = -9999.0  # vLLM's log-probability of a token that the grammar rules out


class OpenAiServer:
    """`app` is the ASGI application; `requests` remembers the bodies it was sent."""

    def __init__(self, folder: Path, model: str) -> None:
        self._decoder = Decoder(load(folder))
        self._model = model
        self.requests: list[dict[str, Any]] = []
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _models(self, _: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": self._model, "object": "model"}]})

    async def _complete(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.requests.append(body)
        if body["model"] != self._model:
            return _error(404, f"The model `{body['model']}` does not exist.")
        try:
            return JSONResponse({"choices": [self._answer(body)]})
        except GeneralistUnavailable as error:
            return _error(400, str(error))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        user, *begun = body["messages"]
        picture, text = user["content"]
        image, emitted = _image(picture["image_url"]["url"]), "".join(m["content"] for m in begun)
        if "structured_outputs" not in body:
            answer = self._decoder.text(image, text["text"], body["max_tokens"], lambda: False)
            return {"message": {"role": "assistant", "content": answer}, "logprobs": None}
        assert not begun or body["continue_final_message"] is not body["add_generation_prompt"]
        labels = [spell(emitted + rest) for rest in body["structured_outputs"]["choice"]]
        return self._constrained(image, text["text"], labels, spell(emitted), body)

    def _constrained(
        self, image: Image, text: str, labels: list[str], emitted: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Token by token as the grammar allows; the text is what came after `emitted`."""
        content, answer = [], emitted
        while len(content) < body["max_tokens"]:
            allowed = self._decoder.distribution(image, text, labels, answer)
            content.append(_listed(allowed, body["top_logprobs"]))
            token = max(allowed, key=allowed.__getitem__)
            if token == END:
                break
            answer += token
        written = answer.removeprefix(emitted).encode("latin-1").decode(errors="ignore")
        message = {"role": "assistant", "content": written}
        return {"message": message, "logprobs": {"content": content}}


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
