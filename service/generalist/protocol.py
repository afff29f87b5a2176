"""What an OpenAI-compatible server is asked and what it replies, as JSON.

Every reading of a reply raises GeneralistUnavailable in one sentence that quotes nothing of it,
except for the name of a model: a server may quote keys or prompts.
"""

import base64
import io
import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from PIL import Image as Pictures

from service.domain import Image, Prompt
from service.errors import GeneralistUnavailable, PromptTooLong
from service.generalist.chat import plain
from service.generalist.choice import Distribution

TOP_LOGPROBS = 20  # the most that vLLM gives by default
MODEL_NAME_CHARACTERS = 80
DONE = "[DONE]"

# Of vLLM (renderers/params.py, v1/engine/input_processor.py), OpenAI, SGLang, llama.cpp.
_TOO_LONG = re.compile(
    r"maximum (context|model) length|context_length_exceeded|exceed_context_size"
    r"|longer than the model's context length",
    re.IGNORECASE,
)

Body = dict[str, Any]


def message(prompt: Prompt, image: Body | None = None) -> Body:
    """The user's turn, the image before the text, as MedDr was trained.

    `image` is its `image_part`, where it is not to be sent whole.
    """
    shown = image or image_part(data_url(prompt.image))
    return {"role": "user", "content": [shown, {"type": "text", "text": plain(prompt.text)}]}


def image_part(url: str | None, name: str | None = None) -> Body:
    """An image; `name` is vLLM's `uuid`, under which it is kept, and found without a URL."""
    part: Body = {"type": "image_url", "image_url": url and {"url": url}}
    return part if name is None else part | {"uuid": name}


def relies_on_name(body: Body) -> bool:
    """Whether a request has an image that only a server that kept it can see."""
    shown = body["messages"][0]["content"][0]
    return shown["image_url"] is None


def data_url(image: Image) -> str:
    """PNG keeps every pixel; the least compression, as it travels a short way."""
    octets = io.BytesIO()
    Pictures.fromarray(image.pixels).save(octets, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(octets.getvalue()).decode()


def next_token(user: Body, emitted: str) -> Body:
    """Asks for the likeliest tokens after the beginning of an answer."""
    body: Body = {"messages": [user], "max_tokens": 1, "logprobs": True}
    body["top_logprobs"] = TOP_LOGPROBS
    if emitted:
        body["messages"] = [user, {"role": "assistant", "content": plain(emitted)}]
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def document(octets: bytes) -> Any:
    try:
        return json.loads(octets)
    except ValueError as error:
        raise GeneralistUnavailable("the generalist's server did not answer in JSON") from error


def models(served: Any) -> list[str]:
    try:
        return [_name(entry["id"]) for entry in served["data"]]
    except (KeyError, TypeError) as error:
        raise _nonsense("no list of models") from error


def keeps_images(served: Any, model: str) -> bool:
    """Whether a list of models is vLLM's own, which keeps images by name, and has this one."""
    return any(x["id"] == model and x.get("owned_by") == "vllm" for x in served["data"])


def first_choice(completion: Any, model: str) -> Mapping[str, Any]:
    """The answer, when the server says it is whole and by the model asked, or does not say."""
    _demand_model(completion, model)
    try:
        first: Mapping[str, Any] = completion["choices"][0]
        reason = first.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _nonsense("no answer") from error
    _demand_finished(reason)
    return first


def text(first: Mapping[str, Any]) -> str:
    try:
        return str(first["message"]["content"] or "")
    except (KeyError, TypeError) as error:
        raise _nonsense("no text") from error


def distribution(first: Mapping[str, Any]) -> Distribution:
    """Probabilities by token; one that ends within a character has no text and is left out."""
    try:
        listed = first["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), math.exp(float(entry["logprob"]))) for entry in listed]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise GeneralistUnavailable(
            "the generalist's server gave no log-probabilities, which a choice needs"
        ) from error
    probabilities: dict[str, float] = {}
    for token, probability in found:
        if token and probability > 0.0 and math.isfinite(probability):
            probabilities[token] = probabilities.get(token, 0.0) + probability
    return probabilities


def event(line: str) -> str | None:
    """What a line of server-sent events carries; None for anything else."""
    return line.removeprefix("data:").strip() if line.startswith("data:") else None


def piece(carried: str, model: str) -> str:
    """The text in one event of a streamed answer."""
    chunk = document(carried.encode())
    if isinstance(chunk, dict) and "error" in chunk:
        raise _broken_off()
    if isinstance(chunk, dict) and chunk.get("choices") == []:
        return ""  # the count of tokens, at the end
    try:
        return str(first_choice(chunk, model)["delta"].get("content") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise _nonsense("no text") from error


def refusal(status: int, octets: bytes, model: str) -> GeneralistUnavailable:
    """What a refusal means to us."""
    said = octets.decode(errors="replace")
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and (
        _TOO_LONG.search(said)
    ):
        return PromptTooLong(f"the prompt is longer than the context of the generalist '{model}'")
    return GeneralistUnavailable(f"the generalist's server refused with {named(status)}")


def named(status: int) -> str:
    """An HTTP status with its name, not the server's words for it."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _demand_model(completion: Any, model: str) -> None:
    """A gateway may fall back to another model: nobody answers in the generalist's name."""
    answering = completion.get("model") if isinstance(completion, dict) else None
    if answering is not None and answering != model:
        raise GeneralistUnavailable(
            f"the generalist '{model}' was asked, but '{_name(answering)}' answered"
        )


def _demand_finished(reason: object) -> None:
    if reason not in (None, "stop", "length"):
        raise _broken_off()


def _name(served: object) -> str:
    shown = "".join(c for c in str(served) if c.isprintable())
    return shown[:MODEL_NAME_CHARACTERS]


def _broken_off() -> GeneralistUnavailable:
    return GeneralistUnavailable("the generalist's server broke off its answer")


def _nonsense(lacking: str) -> GeneralistUnavailable:
    return GeneralistUnavailable(f"the generalist's server answered out of protocol: {lacking}")
