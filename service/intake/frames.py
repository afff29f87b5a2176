"""Of several frames: which one is looked at, and what the file says of just this one."""

from typing import Any

from pydicom.dataset import Dataset

from service.intake.dataset import several, whole

_OF_A_FRAME = (
    "PhotometricInterpretation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
)
_FUNCTIONAL_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)


def default_frame(dataset: Any, count: int) -> int:
    """The frame to look at when nobody asked for one, counted from 1.

    The one the file itself names as representative; else the middle one, in the order that an
    enhanced object gives its frames (DimensionIndexValues), which need not be that of the file.
    """
    named = whole(dataset, "RepresentativeFrameNumber")
    if 1 <= named <= count:
        return named
    order = sorted(range(count), key=_places(dataset, count).__getitem__)
    return order[(count - 1) // 2] + 1


def frame_view(dataset: Any, index: int, *, floating: bool = False) -> Any:
    """What one frame's stored values mean and how large its pixels are, wherever the file says so.

    Enhanced objects keep it in functional groups, shared or per frame (PS3.3 C.7.6.16); the
    frame's own wins. `floating` says that its pixels are floating point numbers.
    """
    view = Dataset()
    _copy(dataset, view)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for groups in (*shared, *own):
        for name in _FUNCTIONAL_GROUPS:
            for item in (groups.get(name) or [])[:1]:
                _copy(item, view)
    if floating and view.get("VOILUTFunction", "LINEAR") == "LINEAR":
        view.VOILUTFunction = "LINEAR_EXACT"  # LINEAR counts in whole steps: a threshold here
    return view


def _places(dataset: Any, count: int) -> list[tuple[int, ...]]:
    """The place of every frame in its dimensions; none for all, where one frame has none."""
    groups = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[:count]
    places = [_place(group) for group in groups]
    usable = len(places) == count and all(places) and len({len(place) for place in places}) == 1
    return places if usable else [()] * count


def _place(group: Any) -> tuple[int, ...]:
    content = (group.get("FrameContentSequence") or [Dataset()])[0]
    return tuple(int(value) for value in several(content.get("DimensionIndexValues")))


def _copy(source: Any, view: Any) -> None:
    for keyword in _OF_A_FRAME:
        if keyword in source:
            view.add(source[keyword])
