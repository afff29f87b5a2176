"""What the language model has computed of earlier prompts, kept to be continued."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]  # per layer, each (1, heads, tokens, head width)


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The tokens of a prompt and the keys and values that the model computed of them."""

    ids: tuple[int, ...]
    states: KeysAndValues

    @property
    def size_bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.states)

    def cut(self, length: int) -> KeysAndValues:
        """The keys and values of the first `length` tokens, as views."""
        return tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.states)


class PrefixCache:
    """The prompts used last, by image and token ids, within a bound on memory.

    An image's features live on in the keys and values of its tokens, so a prompt on a known image
    runs no vision model, and of the words only those behind the longest common beginning.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._prefixes: OrderedDict[tuple[str, tuple[int, ...]], Prefix] = OrderedDict()

    def longest(self, image_sha256: str, ids: Sequence[int]) -> tuple[int, KeysAndValues]:
        """How many of the first tokens are known, and their keys and values."""
        of_image = (key for key in self._prefixes if key[0] == image_sha256)
        shared = {key: _common_length(key[1], ids) for key in of_image}
        if not shared:
            return 0, ()
        key = max(shared, key=shared.__getitem__)
        self._prefixes.move_to_end(key)
        return shared[key], self._prefixes[key].cut(shared[key])

    def keep(self, image_sha256: str, ids: Sequence[int], states: KeysAndValues) -> None:
        """Remember a prompt; the ones not used for longest make room for it."""
        prefix = Prefix(tuple(ids), tuple((_own(keys), _own(values)) for keys, values in states))
        key = (image_sha256, prefix.ids)
        if replaced := self._prefixes.pop(key, None):
            self._size_bytes -= replaced.size_bytes
        self._prefixes[key] = prefix
        self._size_bytes += prefix.size_bytes
        while self._size_bytes > self._limit_bytes:
            _, oldest = self._prefixes.popitem(last=False)
            self._size_bytes -= oldest.size_bytes


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _own(view: Tensor) -> Tensor:
    """Without what else is in the memory that it is a view of."""
    return view if view.untyped_storage().nbytes() == view.nbytes else view.clone()
