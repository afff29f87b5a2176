"""Next tokens from a checkpoint, computing only what earlier prompts on the image did not.

Everything here blocks and belongs to one thread.
"""

import codecs
import json
from bisect import bisect_left
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.convert_slow_tokenizer import bytes_to_unicode

from service.domain import Image
from service.errors import InvalidCheckpoint, PromptTooLong
from service.generalist import chat
from service.generalist.architecture import preprocess
from service.generalist.checkpoint import Checkpoint
from service.generalist.choice import END, Answers, Distribution
from service.generalist.prefixes import Prefix, PrefixCache

CACHE_BYTES = 256 << 20


def spell(text: str) -> str:
    """The text with one character per byte of its UTF-8: tokens may end within a character."""
    return text.encode().decode("latin-1")


class Decoder:
    """Next-token distributions over permitted answers, and greedy text.

    `cache_bytes` bounds the memory for earlier prompts; 0 computes every prompt afresh.
    Raises InvalidCheckpoint for a tokenizer that is not byte-level BPE.
    """

    def __init__(self, checkpoint: Checkpoint, cache_bytes: int = CACHE_BYTES) -> None:
        self._model = checkpoint.model
        self._tokenizer = checkpoint.tokenizer
        self._config = checkpoint.config
        self._longest = checkpoint.config.text_config.max_position_embeddings
        self._token_ids = _ids_by_spelling(checkpoint)
        self._spellings = sorted(self._token_ids)
        self._octets = {number: s.encode("latin-1") for s, number in self._token_ids.items()}
        self._stop_ids = self._tokenizer.convert_tokens_to_ids(list(chat.STOP_TOKENS))
        self._cache = PrefixCache(cache_bytes)

    def distribution(self, image: Image, text: str, answers: Answers, emitted: str) -> Distribution:
        """The probabilities of the tokens that continue `emitted` towards a permitted answer.

        Choices, `emitted` and the tokens are spelled by `spell`. END stands for all stop tokens.
        Raises PromptTooLong.
        """
        scores, _ = self._read(image, self._prompt_ids(text, emitted), keep=not emitted)
        allowed = {s: scores[self._token_ids[s]] for s in self._continuing(answers, emitted)}
        if answers.whole(emitted) is not None:
            allowed[END] = scores[self._stop_ids].logsumexp(0)
        masked = torch.softmax(torch.stack(list(allowed.values())), dim=0)
        return dict(zip(allowed, masked.tolist(), strict=True))

    def pieces(self, image: Image, text: str, max_tokens: int) -> Iterator[str]:
        """What each token of the likeliest text adds to it, until a stop token or `max_tokens`.

        A token that ends within a character adds nothing yet. Raises PromptTooLong.
        """
        ids = self._prompt_ids(text)
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        scores, past = self._read(image, ids, keep=True)
        for _ in range(min(max_tokens, self._longest - len(ids))):
            token = int(scores.argmax())
            if token in self._stop_ids:
                break
            yield characters.decode(self._octets.get(token, b""))
            scores = self._continue(self._words([token]), past)
        yield characters.decode(b"", final=True)

    def text(self, image: Image, text: str, max_tokens: int) -> str:
        """The likeliest text, whole."""
        return "".join(self.pieces(image, text, max_tokens)).strip()

    def _continuing(self, answers: Answers, emitted: str, begun: str = "") -> Iterator[str]:
        """The tokens that begin with `begun` and continue an answer, beyond a choice's end too."""
        for rest in filter(None, answers.following(emitted + begun)):
            for length in range(1, len(rest) + 1):
                spelling = begun + rest[:length]
                if not self._begins_a_token(spelling):
                    break
                if spelling in self._token_ids:
                    yield spelling
            else:
                yield from self._continuing(answers, emitted, begun + rest)

    def _begins_a_token(self, spelling: str) -> bool:
        place = bisect_left(self._spellings, spelling)
        return any(s.startswith(spelling) for s in self._spellings[place : place + 1])

    def _prompt_ids(self, text: str, emitted: str = "") -> list[int]:
        octets = emitted.encode("latin-1")
        whole = octets.decode(errors="ignore")
        begun = octets[len(whole.encode()) :]
        ids = chat.chat_ids(self._tokenizer, text, self._config.image_tokens, whole)
        ids += [self._token_ids[chr(octet)] for octet in begun]
        if len(ids) >= self._longest:
            raise PromptTooLong(
                f"the prompt has {len(ids)} tokens, the generalist takes {self._longest - 1}"
            )
        return ids

    @torch.inference_mode()
    def _read(self, image: Image, ids: list[int], *, keep: bool) -> tuple[Tensor, DynamicCache]:
        """The scores (vocabulary,) of the token after `ids`, and the state to continue from.

        `keep` what was computed where later prompts may begin alike; the beginnings of an answer
        are many, and short to compute again.
        """
        known, states = self._cache.longest(image.pixels_sha256, ids[:-1])
        past = DynamicCache(states or None)
        new = self._words(ids[known:]) if known else self._words_and_image(ids, image)
        scores = self._continue(new, past)
        if keep:
            kept = tuple((layer.keys, layer.values) for layer in past.layers)
            self._cache.keep(image.pixels_sha256, Prefix(tuple(ids), kept))
        return scores, past

    @torch.inference_mode()
    def _continue(self, embeddings: Tensor, past: DynamicCache) -> Tensor:
        """Scores in float64, so that the softmax over a few of them keeps small differences."""
        output = self._model.language_model(
            inputs_embeds=embeddings, past_key_values=past, use_cache=True, logits_to_keep=1
        )
        scores: Tensor = output.logits[0, -1].double()
        return scores

    def _words(self, ids: list[int]) -> Tensor:
        words: Tensor = self._model.language_model.get_input_embeddings()(torch.tensor([ids]))
        return words

    def _words_and_image(self, ids: list[int], image: Image) -> Tensor:
        pixels = preprocess(image.pixels, self._config.vision_config.image_size)
        features = self._model.image_features(pixels.unsqueeze(0))
        return self._model.embed(torch.tensor([ids]), features)


def _ids_by_spelling(checkpoint: Checkpoint) -> dict[str, int]:
    """The ids of all ordinary tokens by their bytes, as `spell` writes them."""
    backend = checkpoint.tokenizer.backend_tokenizer
    decoder = json.loads(backend.to_str())["decoder"] or {}
    if decoder.get("type") != "ByteLevel":
        raise InvalidCheckpoint(
            "the embedded engine needs a byte-level tokenizer; serve this model with vLLM"
        )
    octets = {letter: chr(octet) for octet, letter in bytes_to_unicode().items()}
    special = set(checkpoint.tokenizer.all_special_tokens)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return {
        "".join(octets[letter] for letter in token): number
        for token, number in vocabulary.items()
        if token not in special
    }
