"""What is sent: phantoms of every demo task in turn, no two images alike."""

import io
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from service.demo import phantoms
from service.demo.tasks import DemoTask, demo_tasks

SEED = 9
PHANTOMS = 4


def mixed() -> Iterator[tuple[str, bytes]]:
    """Task and image file of one case after another, for ever: chest as DICOM, the others as PNG.

    Every image differs from all before, so that nothing computed earlier can be used again.
    """
    numbers = count(1)
    kinds = [_of(demo, numbers) for demo in demo_tasks()]
    for kind in cycle(kinds):
        yield next(kind)


def _of(demo: DemoTask, numbers: Iterator[int]) -> Iterator[tuple[str, bytes]]:
    drawn = list(demo.series(PHANTOMS, seed=SEED))
    template = [_dicom(phantom) for phantom in drawn] if demo.is_chest else []
    for place in cycle(range(PHANTOMS)):
        number = next(numbers)
        file = _stamped(template[place], number) if template else _png(drawn[place], number)
        yield demo.task.name, file


def _stamped(file: bytes, number: int) -> bytes:
    """A DICOM file ends with its pixels; a middle bit of some of them says which case it is."""
    pixels = np.frombuffer(file[-64:], np.uint16)
    stamped = np.where(_bits(number, 32), pixels | 64, pixels & ~np.uint16(64))
    return file[:-64] + stamped.astype(np.uint16).tobytes()


def _png(phantom: phantoms.Phantom, number: int) -> bytes:
    pixels = phantom.rgb.copy()
    pixels[0, :32, 0] = pixels[0, :32, 0] & 0xFE | _bits(number, 32)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _bits(number: int, width: int) -> np.ndarray:
    return np.array([number >> place & 1 for place in range(width)], np.uint8)


def _dicom(phantom: phantoms.Phantom) -> bytes:
    with TemporaryDirectory(prefix="gsco-load-") as folder:
        path = Path(folder) / "case.dcm"
        phantoms.write_dicom(phantom, path)
        return path.read_bytes()
