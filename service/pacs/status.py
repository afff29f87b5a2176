"""What became of an instance, in the codes of DICOM: C-STORE's, which STOW-RS has as well.

PS3.4 table B.2-1 and PS3.7 annex C; PS3.18 table I.2-2. The only place that knows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import (
    GeneralistUnavailable,
    GscoError,
    ImageTooLarge,
    Overloaded,
    OwnResult,
    PromptTooLong,
    UnreadableImage,
    UnsupportedImage,
)
from service.persistence.database import UNAVAILABLE
from specialists.errors import PoolOverloaded, SpecialistsError

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
_DISCARDED = 0xB006  # a warning: nothing is wrong with the object, and nothing came of it
_DOES_NOT_MATCH = 0xA900
_CANNOT_UNDERSTAND = 0xC000
_COMMENT_MAX = 64  # characters of ErrorComment, VR LO

_CODES: Mapping[type[Exception], int] = {
    OwnResult: _DISCARDED,
    UnsupportedImage: _DOES_NOT_MATCH,
    ImageTooLarge: _CANNOT_UNDERSTAND + 1,
    UnreadableImage: _CANNOT_UNDERSTAND,
    Overloaded: OUT_OF_RESOURCES,
    PoolOverloaded: OUT_OF_RESOURCES,
    PromptTooLong: PROCESSING_FAILURE,
    GeneralistUnavailable: OUT_OF_RESOURCES,
    **dict.fromkeys(UNAVAILABLE, OUT_OF_RESOURCES),
}


@dataclass(frozen=True, slots=True)
class Status:
    """A code, and in a few words why; the words are ours and quote nothing of the object."""

    code: int
    comment: str = ""

    @property
    def is_failure(self) -> bool:
        return self.code not in (SUCCESS, _DISCARDED)

    @property
    def is_temporary(self) -> bool:
        """Whether the same object may be taken later."""
        return self.code == OUT_OF_RESOURCES


def status_of(error: BaseException) -> Status:
    """The status of what ended with this error; foreign errors keep their text to themselves."""
    nearest = next((kind for kind in type(error).__mro__ if kind in _CODES), None)
    code = _CODES[nearest] if nearest is not None else PROCESSING_FAILURE
    if isinstance(error, GscoError | SpecialistsError):
        return Status(code, str(error)[:_COMMENT_MAX])
    is_database = isinstance(error, UNAVAILABLE)
    return Status(code, "the database does not answer" if is_database else "processing failed")
