"""What a specialist travels in: a folder, a tar file, or weights with a manifest beside them.

Files are read up to a limit and never unpacked by name: nothing of a parcel chooses a path.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from specialists.errors import SpecialistRefused
from specialists.loader import CARD, MANIFEST, WEIGHTS

TAR, SAFETENSORS = ".tar", ".safetensors"
_MEMBERS = (WEIGHTS, MANIFEST, CARD)

Opener = Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Parcel:
    """An opened parcel; the card is written anew, so that of the parcel is never read."""

    manifest: Opener
    weights: Opener


@contextmanager
def opened(source: Path, manifest: Path | None = None) -> Iterator[Parcel]:
    """The parcel in a folder or file; raises SpecialistRefused where it is none."""
    if source.is_dir():
        _only(manifest is None, "a folder brings its own manifest: leave --manifest out")
        yield _folder(source)
    elif not source.is_file():
        _only(False, f"there is nothing at {source}")
    elif source.suffix == SAFETENSORS:
        _only(manifest is not None, f"{source.name} needs its manifest: --manifest FILE")
        yield Parcel(_file(manifest or source), _file(source))
    elif source.suffix == TAR:
        _only(manifest is None, "a tar file brings its own manifest: leave --manifest out")
        with _tar(source) as parcel:
            yield parcel
    else:
        _only(
            False,
            f"{source.name} is not a folder, a {TAR} or a {SAFETENSORS} file; other formats may "
            "run code when they are opened",
        )


def read(file: Opener, limit: int, what: str) -> bytes:
    """The whole file; raises SpecialistRefused where it is larger than the limit."""
    with file() as opened_file:
        content = opened_file.read(limit + 1)
    _only(len(content) <= limit, f"{what}: larger than the {limit} bytes that it can have")
    return content


def _folder(folder: Path) -> Parcel:
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".")
        _only(hidden or path.name in _MEMBERS, f"{folder.name} holds {path.name[:80]!r}, too")
    for name in (MANIFEST, WEIGHTS):
        _only((folder / name).is_file(), f"{folder.name} has no {name}")
    return Parcel(_file(folder / MANIFEST), _file(folder / WEIGHTS))


@contextmanager
def _tar(path: Path) -> Iterator[Parcel]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = _members(tar)
            yield Parcel(*(_member(tar, members, name) for name in (MANIFEST, WEIGHTS)))
    except tarfile.TarError as error:
        raise SpecialistRefused(f"{path.name} is damaged, or not an uncompressed tar") from error


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        known = member.isreg() and member.name in _MEMBERS and member.name not in members
        _only(known, f"the tar file holds {member.name[:80]!r}, which has no place in it")
        members[member.name] = member
    return members


def _member(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> Opener:
    _only(name in members, f"the tar file has no {name}")

    def open_member() -> IO[bytes]:
        file = tar.extractfile(members[name])
        return file or io.BytesIO()  # None is for members that are no files, which none is

    return open_member


def _file(path: Path) -> Opener:
    return lambda: path.open("rb")


def _only(fine: bool, otherwise: str) -> None:
    if not fine:
        _refuse(otherwise)


def _refuse(problem: str) -> NoReturn:
    raise SpecialistRefused(problem)
