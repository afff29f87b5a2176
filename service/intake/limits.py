"""How much of the machine one image from outside may take."""

from dataclasses import dataclass

from service.errors import ImageTooLarge, UnreadableImage, UnsupportedImage


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of intake; every one is checked before the work that it bounds.

    `max_inflated_bytes` and `max_header_bytes` are those of a deflated file: as far as it is
    inflated for one frame, and before its pixels. `max_items` are those of all DICOM sequences,
    each of which takes a kilobyte and 30 microseconds to read. `memory_bytes` is the address space
    of one decoding process, everything it has loaded included.
    """

    max_bytes: int = 128 * 2**20
    max_inflated_bytes: int = 256 * 2**20
    max_header_bytes: int = 16 * 2**20
    max_items: int = 100_000
    max_pixels: int = 50_000_000
    min_side: int = 16
    max_frames: int = 20_000
    memory_bytes: int = 3 * 2**30
    timeout_seconds: float = 20.0
    queue: int = 16
    decodes_per_worker: int = 1000

    def check_bytes(self, count: int) -> None:
        """Refuse an upload of more bytes than allowed."""
        if count > self.max_bytes:
            raise ImageTooLarge(
                f"the file is {count} bytes long: at most {self.max_bytes} are read"
            )

    def check_frame_bytes(self, count: int) -> None:
        """Refuse a frame of more bytes than the largest image in colour has."""
        most = 3 * self.max_pixels
        if count > most:
            raise ImageTooLarge(f"a frame of the file is {count} bytes: at most {most} are read")

    def check_items(self, count: int) -> None:
        """Refuse a DICOM file of more sequence items than any modality writes."""
        if count > self.max_items:
            raise ImageTooLarge(
                f"the DICOM file has more than {self.max_items} items in its sequences"
            )

    def check_size(self, width: int, height: int) -> None:
        """Refuse a declared size that is too large to decode or too small to show anything."""
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"the image is {width} × {height} pixels: at most {self.max_pixels} are decoded"
            )
        if min(width, height) < self.min_side:
            raise UnsupportedImage(
                f"the image is {width} × {height} pixels: each side needs at least {self.min_side}"
            )

    def check_frames(self, count: int) -> None:
        """Refuse a declared number of frames that nobody acquires."""
        if count < 1:
            raise UnreadableImage(f"the file declares {count} frames")
        if count > self.max_frames:
            raise ImageTooLarge(
                f"the file declares {count} frames: 1 to {self.max_frames} are read"
            )


def chosen_frame(frame: int | None, count: int, default: int) -> int:
    """The frame to decode, counted from 1 as DICOM does; one that does not exist is refused."""
    number = default if frame is None else frame
    if not 1 <= number <= count:
        raise UnsupportedImage(f"frame {number} was asked for: the file has frames 1 to {count}")
    return number
