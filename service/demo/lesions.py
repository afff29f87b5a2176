"""Where on a phantom its findings lie: the truth that heat maps and masks are held against."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.demo.drawing import Phantom, draw, kind_named, refuse
from service.demo.scanner import HOSPITAL_A

VISIBLE = 0.25
"""Of the largest change that the findings make to the image."""

_NOISELESS = replace(HOSPITAL_A, noise=0.0)


def mask(phantom: Phantom) -> NDArray[np.bool_]:
    """(size, size): the pixels that its findings change visibly; none where nothing is found.

    The same patient is drawn with and without them, without noise. For phantoms of hospital A.
    Raises ValueError for dermoscopy, where every image shows a lesion.
    """
    if phantom.kind == "dermoscopy":
        refuse("phantoms of kind 'dermoscopy' have no masks: none of them is without a lesion")
    size = len(phantom.pixels)
    healthy = kind_named(phantom.kind).labels[0]
    found, without = (
        draw(phantom.kind, labels, phantom.seed, size, _NOISELESS).rgb.astype(np.float32)
        for labels in (phantom.labels, (healthy,))
    )
    change = np.abs(found - without).max(axis=-1)
    return np.asarray(change > VISIBLE * max(float(change.max()), 1.0))
