"""One function for any bytes from outside: `decode`.

The service runs it in a sandbox. Called directly it guards against everything but a C decoder
that aborts the process, which GDCM does on some damaged files: leave strangers' files to Sandbox.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from service.errors import GscoError, ImageTooLarge, UnreadableImage
from service.intake.dataset import looks_like_dicom, read
from service.intake.deidentify import DicomReferences, references_of
from service.intake.dicom import decode_dicom
from service.intake.images import decode_image
from service.intake.limits import Limits
from service.intake.result import Decoded, IntakeResult, intake_result
from service.intake.viewable import Frame
from service.intake.viewing import view_dicom, view_image

_DEFAULT = Limits()
Found = TypeVar("Found", Decoded, Frame)
NO_MEMORY = "decoding the image needs more memory than allowed"


def decode(
    data: bytes, limits: Limits = _DEFAULT, *, frame: int | None = None, key: bytes = b""
) -> IntakeResult:
    """The image in `data`, decoded in this process: for the command line and for tests.

    `frame` counts from 1; by default the middle one of a DICOM file, the first of any other. `key`
    makes the patient's pseudonym. Raises UnreadableImage, ImageTooLarge or UnsupportedImage, each
    with one sentence that quotes nothing from the file but sizes and standard names.
    """
    try:
        found = decoded(data, limits, frame)
    except MemoryError:
        raise ImageTooLarge(NO_MEMORY) from None
    return intake_result(data, found, key)


def decoded(data: bytes, limits: Limits, frame: int | None = None) -> Decoded:
    """What of `decode` belongs in the sandbox: everything that touches the file's content."""
    return _carefully(decode_dicom, decode_image, data, limits, frame)


def viewed(data: bytes, limits: Limits, frame: int | None = None) -> Frame:
    """The frame to look at, in the sandbox like `decoded`; raises as it does."""
    return _carefully(view_dicom, view_image, data, limits, frame)


def _carefully(
    of_dicom: Callable[[bytes, Limits, int | None], Found],
    of_image: Callable[[bytes, Limits, int | None], Found],
    data: bytes,
    limits: Limits,
    frame: int | None,
) -> Found:
    limits.check_bytes(len(data))
    is_dicom = looks_like_dicom(data)
    try:
        with _discreet():
            return (of_dicom if is_dicom else of_image)(data, limits, frame)
    except (GscoError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything on hostile files
        problem = UnreadableImage(f"the {'DICOM file' if is_dicom else 'image'} is malformed")
    # Raised out here, so that no traceback carries the decoder's message: it may quote the patient.
    raise problem


def identified(data: bytes, limits: Limits) -> DicomReferences | None:
    """Which instance a DICOM file is, without its pixels; None where that cannot be told."""
    if not looks_like_dicom(data):
        return None
    try:
        limits.check_bytes(len(data))
        with _discreet():
            return references_of(read(data, limits))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything on hostile files
        return None


@contextmanager
def _discreet() -> Iterator[None]:
    """Keep what libraries say of a file out of warnings and logs: it may quote the patient."""
    logger = logging.getLogger("pydicom")
    before = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = before
