"""A sentencepiece model (`tokenizer.model`) as a tokenizer.json: MedDr's tokenizer is one.

The file is a protocol buffer of a handful of fields, so it is read here and needs neither the
sentencepiece library nor protobuf's. Field numbers: sentencepiece_model.proto of sentencepiece.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from service.errors import InvalidCheckpoint

SPACE = "▁"  # how sentencepiece writes a space
BPE = 2  # trainer_spec.model_type
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE = 3
_CHARSMAP, _PREFIX, _SQUEEZES = 2, 3, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class Kind(IntEnum):
    """What a piece of the vocabulary is, by its number in the file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What becomes of a text first: `charsmap` rewrites characters in sentencepiece's own form,
    `squeezes` removes spaces beyond one, `dummy_prefix` puts one before it.
    """

    pieces: tuple[Piece, ...]
    charsmap: bytes
    squeezes: bool
    dummy_prefix: bool

    @classmethod
    def parsed(cls, octets: bytes) -> Self:
        """Raises ValueError, among others, for octets that are no such file."""
        parts = list(_fields(octets))
        pieces = tuple(_piece(_octets(value)) for number, value in parts if number == _PIECES)
        last = {number: _octets(value) for number, value in parts if number != _PIECES}
        trainer = dict(_fields(last.get(_TRAINER, b"")))
        rules = dict(_fields(last.get(_NORMALIZER, b"")))
        if not pieces or trainer.get(_MODEL_TYPE, 1) != BPE:
            raise ValueError("it has no pieces, or is not of the type BPE")
        charsmap = _octets(rules.get(_CHARSMAP, b""))
        return cls(pieces, charsmap, bool(rules.get(_SQUEEZES, 1)), bool(rules.get(_PREFIX, 1)))


def read(path: Path) -> SentencePieceModel:
    """Raises InvalidCheckpoint for a damaged file, or one of another type than BPE."""
    try:
        return SentencePieceModel.parsed(path.read_bytes())
    except (ValueError, LookupError, struct.error) as error:
        raise InvalidCheckpoint(
            f"'{path}' is no sentencepiece model we can read: {error}"
        ) from error


def tokenizer(model: SentencePieceModel) -> Tokenizer:
    """The same tokens for every text, each stretch between two added tokens by itself.

    As the slow tokenizers of transformers do in the `legacy` mode that MedDr was trained with.
    """
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    unknown = next((p.text for p in model.pieces if p.kind is Kind.UNKNOWN), None)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(model),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(piece.kind is Kind.BYTE for piece in model.pieces),
        )
    )
    backend.normalizer = normalizers.Sequence(list(_rules(model)))
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []
    backend.decoder = decoders.Sequence([*steps, *strip])
    backend.add_tokens(list(_whole(model)))
    return backend


def _whole(model: SentencePieceModel) -> Iterator[AddedToken]:
    """The pieces that no merge makes: they are found in a text before everything else."""
    for piece in model.pieces:
        if piece.kind in (Kind.USER_DEFINED, Kind.CONTROL):
            special = piece.kind is Kind.CONTROL
            yield AddedToken(piece.text, normalized=False, special=special)


def _merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the pieces of the best score first."""
    merged = {p.text: (-p.score, n) for n, p in enumerate(model.pieces) if p.kind is Kind.NORMAL}
    ranked = [
        (merged[text], merged[left][1], merged[right][1], left, right)
        for text in merged
        for left, right in ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        if left in merged and right in merged
    ]
    return [(left, right) for *_, left, right in sorted(ranked)]


def _rules(model: SentencePieceModel) -> Iterator[normalizers.Normalizer]:
    if model.charsmap:
        yield normalizers.Precompiled(model.charsmap)
    if model.squeezes:
        yield normalizers.Strip()
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if model.dummy_prefix:
        yield normalizers.Prepend(SPACE)
    yield normalizers.Replace(" ", SPACE)


def _piece(octets: bytes) -> Piece:
    fields = dict(_fields(octets))
    (score,) = struct.unpack("<f", _octets(fields.get(_SCORE, bytes(4))))
    return Piece(_octets(fields[_TEXT]).decode(), score, Kind(int(fields.get(_KIND, Kind.NORMAL))))


def _octets(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is of the wrong type")  # noqa: TRY004  # damage, not a bug
    return value


def _fields(octets: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer message; a later one replaces an earlier."""
    at = 0
    while at < len(octets):
        key, at = _varint(octets, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(octets, at)
            yield number, value
            continue
        size, at = _size(octets, at, wire)
        if at + size > len(octets):
            raise ValueError("it ends too early")
        yield number, octets[at : at + size]
        at += size


def _size(octets: bytes, at: int, wire: int) -> tuple[int, int]:
    if wire == _BYTES:
        return _varint(octets, at)
    if wire in (_FIXED32, _FIXED64):
        return (4 if wire == _FIXED32 else 8), at
    raise ValueError(f"it has a field of type {wire}")


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = octets[at]
        value |= (octet & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not octet & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number in it never ends")
