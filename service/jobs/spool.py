"""Cases that wait: each in one file until its job ends, and nowhere else.

A file holds what intake let through, the pixels and the words of the request, never the bytes that
were received. It is named by the job's id and readable by nobody else. It is a safetensors file:
tensors and text, nothing that runs.

    spool/.place            the name of this folder, so that only those who see it claim its jobs
    spool/<job id>.case
"""

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin
from uuid import uuid4

import numpy as np
from cattrs import Converter
from cattrs.errors import BaseValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from service.domain import Case
from service.errors import NotFound, Overloaded
from service.persistence.database import require_room
from specialists.prediction import Pixels

_PLACE, _CASE, _PART = ".place", ".case", ".part"
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_OLD_SECONDS = 3600.0
_NO_PIXELS = np.zeros((1, 1, 3), np.uint8)


class Spool:
    """A folder of waiting cases. All of it blocks: call it off the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> str:
        """Makes the folder where there is none; its name, the same for all who share it.

        Raises OSError where it cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = _written(self._folder, uuid4().hex.encode())
        with suppress(FileExistsError):
            os.link(fresh, self._folder / _PLACE)
        fresh.unlink()
        return (self._folder / _PLACE).read_text("ascii")

    def check(self) -> None:
        """Raises Overloaded where no case can be kept."""
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise Overloaded("the spool folder cannot be written: no jobs are taken in")
        require_room(self._folder)

    def put(self, case: Case) -> int:
        """Durable when this returns, which is the number of bytes; raises Overloaded."""
        content = _encoded(case)
        try:
            write(self._path(case.id), content)
        except OSError as error:
            raise Overloaded(f"the spool cannot keep the image: {error.strerror}") from error
        return len(content)

    def get(self, id: str) -> Case:
        """The case as it was put; raises NotFound, or Overloaded where the folder is away."""
        try:
            return _decoded(self._path(id))
        except (FileNotFoundError, SafetensorError, LookupError, ValueError, BaseValidationError):
            raise NotFound("the image of the job is not in the spool any more") from None
        except OSError as error:
            raise Overloaded(f"the spool cannot be read: {error.strerror}") from error

    def remove(self, id: str) -> None:
        """Nothing is left of the case; it may have been removed before."""
        self._path(id).unlink(missing_ok=True)

    def ids(self, *, old: bool = False) -> set[str]:
        """Ids of the cases that lie here; of those an hour old only, where asked."""
        files = self._folder.glob(f"*{_CASE}")
        return {path.stem for path in files if not old or is_old(path)}

    def clear(self) -> None:
        """Removes what a crash left half-written."""
        clear(self._folder)

    def _path(self, id: str) -> Path:
        if not _NAME.fullmatch(id):
            raise ValueError("a case waits under an id of letters, digits and '-'")
        return self._folder / f"{id}{_CASE}"


def write(path: Path, content: bytes) -> None:
    """Content under this name, on the disk and readable by nobody else; raises OSError."""
    _written(path.parent, content).replace(path)
    _sync(path.parent)


def clear(folder: Path) -> None:
    """Removes what a crash left half-written in a folder."""
    for path in folder.glob(f"*{_PART}"):
        if is_old(path):
            path.unlink(missing_ok=True)


def _written(folder: Path, content: bytes) -> Path:
    """A new file with this content, on the disk; nothing is left of one that does not fit."""
    path = folder / f"{uuid4().hex}{_PART}"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def _encoded(case: Case) -> bytes:
    words = json.dumps(_CONVERTER.unstructure(case))
    return save({"pixels": thin(case.image.pixels)}, {"case": words})


def _decoded(path: Path) -> Case:
    with safe_open(path, framework="np") as file:
        words, pixels = (file.metadata() or {})["case"], file.get_tensor("pixels")
    case = _CONVERTER.structure(json.loads(words), Case)
    return replace(case, image=replace(case.image, pixels=full(pixels)))


def thin(pixels: Pixels) -> Pixels:
    """One channel where all three are equal, as in most of radiology."""
    is_grey = (pixels == pixels[..., :1]).all()
    return np.ascontiguousarray(pixels[..., :1] if is_grey else pixels)


def full(pixels: Pixels) -> Pixels:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _sync(folder: Path) -> None:
    """A name in a folder outlives a power cut once the folder is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_old(path: Path) -> bool:
    """Whether a file has lain for longer than it takes to put its job into the queue."""
    with suppress(FileNotFoundError):  # removed since it was listed
        return time.time() - path.stat().st_mtime > _OLD_SECONDS
    return False


def _converter() -> Converter:
    """Everything of a case but its pixels."""
    converter = Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook_func(_is_array, lambda _: None)
    converter.register_structure_hook_func(_is_array, lambda *_: _NO_PIXELS)
    return converter


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is np.ndarray


_CONVERTER = _converter()
