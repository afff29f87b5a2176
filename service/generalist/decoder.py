"""Next tokens from a checkpoint, computing only what earlier prompts on the image did not.

Everything here blocks and belongs to one thread.
"""

import codecs
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from service.domain import Image
from service.errors import InvalidCheckpoint, PromptTooLong
from service.generalist import chat, rows
from service.generalist.architecture import preprocess
from service.generalist.asked import CACHE_BYTES, Asked
from service.generalist.checkpoint import Checkpoint
from service.generalist.choice import END, Answers, Distribution
from service.generalist.linear import by_onednn
from service.generalist.prefixes import PrefixCache
from service.generalist.rows import Row, RowRead


class Decoder:
    """Next-token distributions over permitted answers, and greedy text.

    `cache_bytes` bounds the memory for earlier prompts; 0 computes every prompt afresh.
    Raises InvalidCheckpoint for a tokenizer that is not byte-level BPE.
    """

    def __init__(self, checkpoint: Checkpoint, cache_bytes: int = CACHE_BYTES) -> None:
        self._model = checkpoint.model
        by_onednn(self._model)
        self._tokenizer = checkpoint.tokenizer
        self._config = checkpoint.config
        self._longest = checkpoint.config.text_config.max_position_embeddings
        self._token_ids = _ids_by_spelling(checkpoint)
        self._spellings = sorted(self._token_ids)
        self._octets = {number: s.encode("latin-1") for s, number in self._token_ids.items()}
        self._stop_ids = self._tokenizer.convert_tokens_to_ids(list(chat.STOP_TOKENS))
        self._cache = PrefixCache(cache_bytes)

    @property
    def image_size(self) -> int:
        """The side, in pixels, of what it sees of an image."""
        size: int = self._config.vision_config.image_size
        return size

    def distribution(self, image: Image, text: str, answers: Answers, emitted: str) -> Distribution:
        """As `distributions`, for one; raises PromptTooLong."""
        (found,) = self.distributions([Asked(image, text, answers, emitted)])
        if isinstance(found, PromptTooLong):
            raise found
        return found

    def distributions(self, asked: Sequence[Asked]) -> list[Distribution | PromptTooLong]:
        """The probabilities of the tokens that continue each towards a permitted answer.

        Tokens are spelled by `spell`; END stands for all stop tokens. All are computed together
        that are of about one length; a prompt that is too long is no trouble for the others.
        """
        found: dict[int, Distribution | PromptTooLong] = {}
        ids: dict[int, list[int]] = {}
        for place, one in enumerate(asked):
            try:
                ids[place] = self._prompt_ids(one.text, one.emitted)
            except PromptTooLong as error:
                found[place] = error
        prompts = [(asked[place].image, numbers) for place, numbers in ids.items()]
        keep = [not asked[place].emitted for place in ids]
        for place, reading in zip(ids, self._read_all(prompts, keep), strict=True):
            found[place] = self._permitted(asked[place], reading.scores)
        return [found[place] for place in range(len(asked))]

    def pieces(self, image: Image, text: str, max_tokens: int) -> Iterator[str]:
        """What each token of the likeliest text adds to it, until a stop token or `max_tokens`.

        A token that ends within a character adds nothing yet. Raises PromptTooLong.
        """
        ids = self._prompt_ids(text)
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        reading = self._read(image, ids)
        for _ in range(min(max_tokens, self._longest - len(ids))):
            token = int(reading.scores.argmax())
            if token in self._stop_ids:
                break
            yield characters.decode(self._octets.get(token, b""))
            reading = self._continue(token, reading)
        yield characters.decode(b"", final=True)

    def text(self, image: Image, text: str, max_tokens: int) -> str:
        """The likeliest text, whole."""
        return "".join(self.pieces(image, text, max_tokens)).strip()

    def _permitted(self, asked: Asked, scores: Tensor) -> Distribution:
        """The softmax over the tokens that a permitted answer goes on with."""
        continuing = self._continuing(asked.answers, asked.emitted)
        allowed = {s: scores[self._token_ids[s]] for s in continuing}
        if asked.answers.whole(asked.emitted) is not None:
            allowed[END] = scores[self._stop_ids].logsumexp(0)
        masked = torch.softmax(torch.stack(list(allowed.values())), dim=0)
        return dict(zip(allowed, masked.tolist(), strict=True))

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

    def _read(self, image: Image, ids: list[int]) -> RowRead:
        """What follows one prompt."""
        return self._read_all([(image, ids)], [True])[0]

    @torch.inference_mode()
    def _read_all(
        self, prompts: Sequence[tuple[Image, list[int]]], keep: Sequence[bool]
    ) -> list[RowRead]:
        """What follows each prompt; of those to `keep`, later ones that begin alike continue.

        The beginnings of an answer are many, and short to compute again.
        """
        row_of = self._rows(prompts)
        read: dict[int, RowRead] = {}
        for together in rows.alike([len(row.new) for row in row_of]):
            readings = rows.read(self._model.language_model, [row_of[place] for place in together])
            read.update(zip(together, readings, strict=True))
        for place, (image, ids) in enumerate(prompts):
            if keep[place]:
                self._cache.keep(image.pixels_sha256, ids, read[place].states)
        return [read[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def _continue(self, token: int, before: RowRead) -> RowRead:
        row = Row(self._words([token]), before.states)
        return rows.read(self._model.language_model, [row])[0]

    def _rows(self, prompts: Sequence[tuple[Image, list[int]]]) -> list[Row]:
        """What is new of each prompt, behind what the cache knows."""
        known = [self._cache.longest(image.pixels_sha256, ids[:-1]) for image, ids in prompts]
        unseen = {
            image.pixels_sha256: image
            for (image, _), (count, _) in zip(prompts, known, strict=True)
            if not count
        }
        features = self._features(unseen)
        return [
            Row(self._words(ids[count:]), states)
            if count
            else Row(self._words_and_image(ids, features[image.pixels_sha256]))
            for (image, ids), (count, states) in zip(prompts, known, strict=True)
        ]

    def _features(self, images: Mapping[str, Image]) -> dict[str, Tensor]:
        """(1, image tokens, width) of each, computed together."""
        if not images:
            return {}
        pixels = torch.stack(
            [preprocess(image.pixels, self.image_size) for image in images.values()]
        )
        return dict(zip(images, self._model.image_features(pixels).unsqueeze(1), strict=True))

    def _words(self, ids: list[int]) -> Tensor:
        """(tokens, width)"""
        words: Tensor = self._model.language_model.get_input_embeddings()(torch.tensor(ids))
        return words

    def _words_and_image(self, ids: list[int], features: Tensor) -> Tensor:
        return self._model.embed(torch.tensor([ids]), features)[0]


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
