"""What is to be sent back to a PACS, on the disk until it has arrived.

A letter names the patient: it is the only thing here that does, and it lies nowhere else. Each is
one file of the spool, named by the id of its delivery and readable by nobody else; a safetensors
file, as cases are. First it holds what the objects are made of; once they are made it holds them,
so that every attempt sends the same bytes.

    spool/outbox/<delivery id>.letter
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from service.errors import NotFound, Overloaded
from service.intake.header import Header
from service.jobs import spool
from specialists.prediction import Heat, Pixels

_LETTER = ".letter"
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_PIXELS, _MAP, _OBJECT = "pixels", "map-", "object-"


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """What one target is to be told of one result: the image's header and pixels, or the objects.

    `maps` are those of the result's segmentations, in their order, where they are still known.
    """

    result: str
    frame_number: int = 1
    header: Header = field(default_factory=dict, repr=False)
    pixels: Pixels | None = field(default=None, repr=False)
    maps: tuple[Heat, ...] = field(default=(), repr=False)
    objects: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """A structured report that has arrived, and the DICOMweb service that has it, if any."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    url: str = ""


class Outbox:
    """The letters in a spool. All of it blocks: call it off the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "outbox"

    def open(self) -> None:
        """Makes the folder where there is none; raises OSError where it cannot be written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, id: str, letter: Letter) -> int:
        """Durable when this returns, which is the number of bytes; raises Overloaded."""
        content = _encoded(letter)
        try:
            spool.write(self._path(id), content)
        except OSError as error:
            raise Overloaded(f"the outbox cannot keep a letter: {error.strerror}") from error
        return len(content)

    def replace(self, id: str, letter: Letter) -> None:
        """The letter instead of the one that is there, where there still is one."""
        if self.has(id):
            self.put(id, letter)

    def has(self, id: str) -> bool:
        return self._path(id).exists()

    def get(self, id: str) -> Letter:
        """The letter as it was put last; raises NotFound, or Overloaded."""
        try:
            return _decoded(self._path(id))
        except (FileNotFoundError, SafetensorError, LookupError, ValueError, TypeError):
            raise NotFound("the letter is not in the outbox any more") from None
        except OSError as error:
            raise Overloaded(f"the outbox cannot be read: {error.strerror}") from error

    def result_of(self, id: str) -> str | None:
        """The result that a letter is about; None where it cannot be read."""
        try:
            with safe_open(self._path(id), framework="np") as file:
                return str(json.loads(file.metadata()["letter"])["result"])
        except (OSError, SafetensorError, LookupError, ValueError, TypeError):
            return None

    def remove(self, id: str) -> None:
        """Nothing is left of the letter; it may have been removed before."""
        self._path(id).unlink(missing_ok=True)

    def ids(self, *, old: bool = False) -> set[str]:
        """Ids of the letters that lie here; of those an hour old only, where asked."""
        files = self._folder.glob(f"*{_LETTER}")
        return {path.stem for path in files if not old or spool.is_old(path)}

    def clear(self) -> None:
        """Removes what a crash left half-written."""
        spool.clear(self._folder)

    def _path(self, id: str) -> Path:
        if not _NAME.fullmatch(id):
            raise ValueError("a letter waits under an id of letters, digits and '-'")
        return self._folder / f"{id}{_LETTER}"


def _encoded(letter: Letter) -> bytes:
    words = {"result": letter.result, "frame": letter.frame_number, "header": letter.header}
    tensors: dict[str, NDArray[Any]] = {
        f"{_MAP}{n}": np.ascontiguousarray(one) for n, one in enumerate(letter.maps)
    }
    for number, one in enumerate(letter.objects):
        tensors[f"{_OBJECT}{number}"] = np.frombuffer(one, np.uint8)
    if letter.pixels is not None:
        tensors[_PIXELS] = spool.thin(letter.pixels)
    return save(tensors, {"letter": json.dumps(words)})


def _decoded(path: Path) -> Letter:
    with safe_open(path, framework="np") as file:
        words, names = json.loads((file.metadata() or {})["letter"]), set(file.keys())
        pixels = spool.full(file.get_tensor(_PIXELS)) if _PIXELS in names else None
        maps = tuple(file.get_tensor(name) for name in _numbered(names, _MAP))
        objects = tuple(file.get_tensor(name).tobytes() for name in _numbered(names, _OBJECT))
    return Letter(words["result"], words["frame"], words["header"], pixels, maps, objects)


def _numbered(names: set[str], prefix: str) -> list[str]:
    found = [name for name in names if name.startswith(prefix)]
    return sorted(found, key=lambda name: int(name.removeprefix(prefix)))
