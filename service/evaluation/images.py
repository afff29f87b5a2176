"""Images of an evaluation, decoded as the service decodes what it is sent, each when asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from service.domain import pixels_sha256
from service.errors import GscoError, UnreadableImage
from service.intake.decoder import decode
from service.intake.result import IntakeResult
from specialists.prediction import Pixels

OnImage = Callable[[int, int], None]
"""Called with how many images were looked at, and of how many."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class BrokenImage:
    """An image that cannot be used, and why in one sentence; `image` is as the index names it."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class SoundImage:
    """What is kept of an image that could be read; `group` is the patient's pseudonym."""

    pixels_sha256: str
    group: str | None


class IntakeImages(Sequence[Pixels]):
    """Files of any format that intake reads, DICOM included; raises what intake raises."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return IntakeImages(self._paths[place])
        return _taken_in(self._paths[place], b"").image.pixels


def examined(
    folder: Path, names: Sequence[str], key: bytes = b"", on_image: OnImage | None = None
) -> tuple[dict[str, SoundImage], tuple[BrokenImage, ...]]:
    """Decode every image once: those that can be read by name, and those that cannot.

    `key` makes the patients' pseudonyms of DICOM files, as intake does.
    """
    sound: dict[str, SoundImage] = {}
    broken: list[BrokenImage] = []
    distinct = list(dict.fromkeys(names))
    for done, name in enumerate(distinct, start=1):
        try:
            found = _taken_in(_within(folder, name), key)
        except GscoError as error:
            broken.append(BrokenImage(name, str(error)))
        else:
            sound[name] = SoundImage(pixels_sha256(found.image.pixels), found.group)
        if on_image:
            on_image(done, len(distinct))
    return sound, tuple(broken)


def counted(broken: Sequence[BrokenImage], of: int, source: str) -> str:
    """One sentence on the images that are left out, naming none; empty where there are none."""
    if not broken:
        return ""
    return f"{len(broken)} of {of} images of {source} cannot be read and are left out"


def told(broken: Sequence[BrokenImage], of: int, source: str) -> str:
    """The same with the first few by name, which only its owner should see."""
    if not broken:
        return ""
    some = "; ".join(f"{one.image} ({one.reason})" for one in broken[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    return f"{counted(broken, of, source)}: {some}{more}"


def is_file(folder: Path, name: str) -> bool:
    """Whether the folder has a file of that name, however odd the name."""
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        return False


def _within(folder: Path, name: str) -> Path:
    if not is_file(folder, name):
        raise UnreadableImage("there is no such file")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnreadableImage("it lies outside the folder of the index")
    return path


def _taken_in(path: Path, key: bytes) -> IntakeResult:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage("the file cannot be opened") from error
    return decode(data, key=key)
