"""Suspected junk: blank, blurred, over- and underexposed images, each judged within its collection.

An image is uint8 [H, W], [3, H, W] or [H, W, 3]. Limits are relative to the collection where typical
values differ: most plankton is almost white, and most tiles are smooth. Flags mean "suspected"; they
set images aside and never remove one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sdclr.errors import DataError

Flags = npt.NDArray[np.bool_]
KINDS = ("blank", "blurred", "overexposed", "underexposed")
BLANK_SPREAD = 0.01
"""Two and a half of 255 grey levels: sensor noise on a uniform surface."""
WHITE, BLACK = 245, 12
"""Grey levels of 255 at the ends of the scale."""
UNUSUAL = 5.0
"""Robust standard deviations below the collection's median sharpness at which an image is blurred."""
UNUSUAL_LIGHT = 3.0
"""The same for brightness, if most pixels are also at the end of the scale."""


class JunkMeasures(NamedTuple):
    """The measures of one image; grey levels in [0, 1]."""

    spread: float
    """Standard deviation of the grey levels."""
    sharpness: float
    """log10 of the variance of the Laplacian over the variance of the grey levels."""
    brightness: float
    """Mean grey level."""
    white: float
    """Share of pixels at WHITE of 255 and above."""
    black: float
    """Share of pixels at BLACK of 255 and below."""


def measure_junk(image: npt.NDArray[np.uint8] | Tensor) -> JunkMeasures:
    """The measures from which the flags are derived.

    >>> measure_junk(np.full((8, 8), 255, np.uint8)).white
    1.0
    """
    grey = _grey(image)
    levels = grey / 255
    variance = float(levels.var())
    laplacian = 0.0
    if min(levels.shape) >= 3:
        inner = levels[1:-1, 1:-1]
        around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
        laplacian = float((around - 4 * inner).var())
    sharpness = float(np.log10((laplacian + 1e-9) / (variance + 1e-9)))
    white, black = float((grey >= WHITE).mean()), float((grey <= BLACK).mean())
    return JunkMeasures(variance**0.5, sharpness, float(levels.mean()), white, black)


def junk_flags(measures: Sequence[JunkMeasures]) -> dict[str, Flags]:
    """Kind -> which images are suspected, bool [N] each; an image may be of several kinds.

    - blank: its grey levels hardly vary (in absolute terms, whatever the others are);
    - blurred: its sharpness is unusually low in this collection;
    - overexposed, underexposed: unusually bright or dark in this collection, and more than half of
      its pixels at the end of the scale.

    >>> good = [JunkMeasures(0.2, -1.0 + i / 100, 0.5, 0.0, 0.0) for i in range(9)]
    >>> flags = junk_flags([*good, JunkMeasures(0.001, -1.0, 0.5, 0.0, 0.0)])
    >>> flags["blank"].nonzero()[0].tolist(), flags["blurred"].any().tolist()
    ([9], False)
    """
    if not measures:
        raise DataError("there are no images to look for junk in.")
    spread, sharpness, brightness, white, black = np.array(measures, dtype=np.float64).T
    blank = spread < BLANK_SPREAD
    sharp_z = _robust_z(sharpness, ~blank, smallest_scale=0.1)
    bright_z = _robust_z(brightness, ~blank, smallest_scale=0.02)
    return {
        "blank": blank,
        "blurred": ~blank & (sharp_z < -UNUSUAL),
        "overexposed": (bright_z > UNUSUAL_LIGHT) & (white > 0.5),
        "underexposed": (bright_z < -UNUSUAL_LIGHT) & (black > 0.5),
    }


def _robust_z(
    values: npt.NDArray[np.float64], among: Flags, smallest_scale: float
) -> npt.NDArray[np.float64]:
    """Distance from the median in robust standard deviations of the images ``among``."""
    usual = values[among] if among.any() else values
    median = np.median(usual)
    scale = 1.4826 * np.median(np.abs(usual - median))
    return (values - median) / max(scale, smallest_scale)


def _grey(image: npt.NDArray[np.uint8] | Tensor) -> npt.NDArray[np.float64]:
    pixels = image.numpy() if isinstance(image, Tensor) else image
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        raise DataError(
            f"an image must be uint8 [H, W], [3, H, W] or [H, W, 3], got {pixels.dtype} {pixels.shape}."
        )
    if pixels.ndim == 2:
        return pixels.astype(np.float64)
    if pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    weights = np.array([0.299, 0.587, 0.114])
    return pixels.astype(np.float64) @ weights
