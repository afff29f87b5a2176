"""Stored pixel values become grey levels: the greyscale pipeline of PS3.4 N.2.

Every step is a function of the stored value alone, so it runs once per value that may occur
rather than once per pixel: a 16-bit radiograph takes one table of at most 65 536 entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.intake.dataset import first, several, whole
from service.intake.viewable import PADDING, Window

Array = NDArray[Any]
Values = NDArray[np.float64]
Grey = NDArray[np.uint8]

_TABLE = 2**16
_SPREAD = (0.005, 0.995)  # the shares of pixels that may turn black and white without a window
_WHITE = 255.0
_MOST_WINDOWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Values before any window: `lowest + step * units`, such as Hounsfield units.

    A unit of PADDING means "no measurement here".
    """

    units: NDArray[np.uint16]  # (rows, columns)
    lowest: float
    step: float
    windows: tuple[Window, ...]


def rendered(stored: Array, view: Any, *, bits: int, big_endian: bool) -> tuple[Grey, str]:
    """One frame as (rows, columns) uint8 with its lowest value black, and a note on the window.

    `view` holds the frame's greyscale attributes, `bits` is BitsStored. Padding (PS3.3 C.7.5.1.1.2)
    counts for nothing and is black.
    """
    levels, places = _levels(stored)
    padded = _padding(levels, view)
    counts = np.where(padded, 0, np.bincount(places.ravel(), minlength=len(levels)))
    values = _modality(np.where(padded, 0, levels), view, big_endian)
    shown, note = _display(values, counts, view, bits, big_endian)
    table = np.rint(np.clip(shown, 0.0, _WHITE)).astype(np.uint8)
    if view.get("PhotometricInterpretation") == "MONOCHROME1":  # PS3.3 C.7.6.3.1.2
        table = 255 - table
    table[padded] = 0
    return table[places], note


def measured(stored: Array, view: Any, *, bits: int, big_endian: bool) -> Measured | None:
    """One frame before any window, and the windows to see it by, the first as `rendered` does.

    None where a lookup table renders the frame: no window does what it does.
    """
    levels, places = _levels(stored)
    padded = _padding(levels, view)
    counts = np.where(padded, 0, np.bincount(places.ravel(), minlength=len(levels)))
    values = _modality(np.where(padded, 0, levels), view, big_endian)
    shown, _ = _by_table(values, view, big_endian)
    if _shows(shown, counts):
        return None
    present = values[counts > 0]
    lowest, span = float(present.min()), float(np.ptp(present))
    step = _step(span, levels, view)
    table = np.rint(np.clip((values - lowest) / step, 0, PADDING - 1)).astype(np.uint16)
    table[padded] = PADDING
    return Measured(table[places], lowest, step, _windows(values, counts, view, bits))


def window(values: Values, centre: float, width: float, function: str) -> Values:
    """Grey levels 0 to 255 of a VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)
        return _WHITE / (1.0 + np.exp(exponent))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    if width == 0.0:  # a LINEAR window of width 1 is a threshold
        return np.where(values > centre, _WHITE, 0.0)
    return np.clip(((values - centre) / width + 0.5) * _WHITE, 0.0, _WHITE)


def lookup(descriptor: Any, data: Any, values: Array, *, big_endian: bool) -> Values:
    """What a lookup table says of stored values (PS3.3 C.11.1.1), scaled to its bits' full range.

    pydicom's own functions clip the index to the table's depth, which breaks 8-bit tables of more
    than 256 entries.
    """
    entries, first_mapped, bits = (int(number) for number in descriptor)
    table = _table(data, (entries & 0xFFFF) or _TABLE, big_endian)
    places = np.clip(np.rint(values) - first_mapped, 0, len(table) - 1).astype(np.int64)
    shares: Values = table[places] / float(2**bits - 1)
    return shares


def _table(data: Any, entries: int, big_endian: bool) -> Values:
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, dtype=np.float64))
    order = ">" if big_endian else "<"
    kind = "u1" if len(data) < 2 * entries else f"{order}u2"
    return np.frombuffer(data, dtype=kind)[:entries].astype(np.float64)


def _levels(stored: Array) -> tuple[Array, Array]:
    """The values that may occur, ascending, and the place of every pixel's value among them."""
    low, high = stored.min(), stored.max()
    if np.issubdtype(stored.dtype, np.integer) and int(high) - int(low) < _TABLE:
        size = 8 * stored.dtype.itemsize
        unsigned = stored.view(f"u{stored.dtype.itemsize}")
        # Modular arithmetic: the difference is right although both sides may have wrapped around.
        places = unsigned - unsigned.dtype.type(int(low) % 2**size)
        return np.arange(int(low), int(high) + 1), places
    levels, places = np.unique(stored, return_inverse=True)
    return levels, places.reshape(stored.shape)


def _padding(levels: Array, view: Any) -> NDArray[np.bool_]:
    """Which values mean "no measurement here"; nothing is padding if everything would be."""
    padded = ~np.isfinite(levels)
    start = first(view.get("PixelPaddingValue"))
    if isinstance(start, int):
        end = whole(view, "PixelPaddingRangeLimit", start)
        padded = padded | ((levels >= min(start, end)) & (levels <= max(start, end)))
    return np.zeros_like(padded) if padded.all() else padded


def _modality(levels: Array, view: Any, big_endian: bool) -> Values:
    """Manufacturer-independent values (PS3.3 C.11.1), such as Hounsfield units."""
    for item in (view.get("ModalityLUTSequence") or [])[:1]:
        table = lookup(item.LUTDescriptor, item.LUTData, levels, big_endian=big_endian)
        return table * float(2 ** int(item.LUTDescriptor[2]) - 1)
    slope, intercept = _number(view, "RescaleSlope"), _number(view, "RescaleIntercept")
    return levels.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)


def _display(
    values: Values, counts: Array, view: Any, bits: int, big_endian: bool
) -> tuple[Values, str]:
    """Grey levels, by the file's own choice where it makes one that shows something."""
    for choice in (_by_table, _by_window):
        shown, note = choice(values, view, big_endian)
        if shown is not None and _shows(shown, counts):
            return shown, note
    if _is_grey_already(values, bits):
        return values * (_WHITE / (2**bits - 1)), ""
    return _by_spread(values, counts)


def _shows(shown: Values | None, counts: Array) -> bool:
    """Whether the pixels differ once they are grey levels."""
    return shown is not None and bool(np.ptp(np.rint(shown[counts > 0])) > 0)


def _is_grey_already(values: Values, bits: int) -> bool:
    return bits <= 8 and values.min() >= 0 and values.max() <= 2**bits - 1


def _windows(values: Values, counts: Array, view: Any, bits: int) -> tuple[Window, ...]:
    shown, _ = _by_window(values, view, False)
    if _shows(shown, counts):
        return _windows_of_file(view)
    low, high = 0.0, float(2**bits - 1)
    if not _is_grey_already(values, bits):
        low, high = _spread(values, counts)
    return (Window((low + high) / 2, (high - low) or 1.0, "LINEAR_EXACT"),)


def _windows_of_file(view: Any) -> tuple[Window, ...]:
    """Those that can be used, up to a few: one for each pair of centre and width."""
    function, least = _function(view)
    pairs = zip(several(view.get("WindowCenter")), several(view.get("WindowWidth")), strict=False)
    numbers = ((float(centre), float(width)) for centre, width in pairs)
    usable = (Window(c, w, function) for c, w in numbers if np.isfinite(c) and least <= w < np.inf)
    return tuple(usable)[:_MOST_WINDOWS]


def _step(span: float, levels: Array, view: Any) -> float:
    """What one unit of 16 bits stands for: one stored step where the values are a line of them."""
    is_line = np.issubdtype(levels.dtype, np.integer) and not view.get("ModalityLUTSequence")
    slope = abs(_number(view, "RescaleSlope") or 1.0)
    if is_line and span / slope < PADDING:
        return slope
    return span / (PADDING - 1) or 1.0


def _by_table(values: Values, view: Any, big_endian: bool) -> tuple[Values | None, str]:
    tables = view.get("VOILUTSequence") or []
    for item in tables[:1]:
        shown = lookup(item.LUTDescriptor, item.LUTData, values, big_endian=big_endian)
        return shown * _WHITE, _among(len(tables), "VOI lookup tables")
    return None, ""


def _by_window(values: Values, view: Any, _big_endian: bool) -> tuple[Values | None, str]:
    centre, width = _number(view, "WindowCenter"), _number(view, "WindowWidth")
    function, least = _function(view)
    if centre is None or width is None or width < least:
        return None, ""
    count = len(several(view.get("WindowCenter")))
    return window(values, centre, width, function), _among(count, "windows")


def _function(view: Any) -> tuple[str, float]:
    """The function of the file's windows, and the least width that it allows."""
    said = str(view.get("VOILUTFunction") or "LINEAR").strip().upper()
    function = said if said in ("LINEAR", "SIGMOID") else "LINEAR_EXACT"
    return function, 1.0 if function == "LINEAR" else float(np.finfo(float).tiny)


def _by_spread(values: Values, counts: Array) -> tuple[Values, str]:
    """Without a usable window: from nearly the lowest to nearly the highest value."""
    low, high = _spread(values, counts)
    scaled = (values - low) * (_WHITE / ((high - low) or 1.0))
    return scaled, f"Without a usable window, values {low:g} to {high:g} were scaled to 0 to 255."


def _spread(values: Values, counts: Array) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    low, high = (float(values[order][np.searchsorted(share, s)]) for s in _SPREAD)
    if low == high:  # nearly all pixels are equal: show the few that differ
        present = values[counts > 0]
        low, high = float(present.min()), float(present.max())
    return low, high


def _among(count: int, things: str) -> str:
    return f"The first of {count} {things} of the file was used." if count > 1 else ""


def _number(view: Any, keyword: str) -> float | None:
    value = first(view.get(keyword))
    number = None if value is None else float(value)
    return number if number is not None and np.isfinite(number) else None
