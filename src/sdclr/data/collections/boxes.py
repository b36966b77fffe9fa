"""Parts of pictures as images: N boxes, and the pixels that each one covers.

A box is (left, top, right, bottom), in pixels from the left and the upper edge or in fractions of width and height, in
the picture as displayed: rotated by EXIF where that is set. The right and the lower edge are exclusive: (0, 0, 2, 2) is
four pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdclr.data.splits import Positions

Unit = Literal["pixels", "fractions"]
Corners = tuple[float, float, float, float]
OVERHANG = 1.0
"""Pixels by which a box may extend beyond its picture, as rounding can cause; they are cut off."""
_ROUNDING = 1e-6
"""In pixels: in floating point, 0.1 + 0.2 of 1,000 pixels is a little more than 300."""


class OutsideError(ValueError):
    """A box that covers no pixel of its picture, or some outside it."""


@dataclass(frozen=True)
class Boxes:
    """Which boxes are cut out of which files."""

    files: tuple[str, ...]
    """[N], below the root of the collection; one file may have several boxes."""
    corners: npt.NDArray[np.float64]
    """[N, 4]: left, top, right, bottom."""
    unit: Unit

    def at(self, positions: Positions) -> Boxes:
        return Boxes(
            tuple(self.files[row] for row in positions.tolist()), self.corners[positions], self.unit
        )

    def key(self, row: int) -> tuple[float, ...]:
        """A key that is equal for equal boxes."""
        return tuple(self.corners[row].tolist())

    def pixels(self, row: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the whole pixels that a box touches. Raises OutsideError."""
        scale = (width, height) * 2 if self.unit == "fractions" else (1, 1, 1, 1)
        corners = (self.corners[row] * scale).tolist()
        left, top, right, bottom = corners
        what = f"its box {written(self.corners[row].tolist())} (x, y, width, height in {self.unit})"
        if right <= left or bottom <= top:
            raise OutsideError(f"{what} is empty")
        if min(left, top) < -OVERHANG or right > width + OVERHANG or bottom > height + OVERHANG:
            raise OutsideError(f"{what} reaches out of the picture of {width} x {height} pixels")
        first = [max(math.floor(value + _ROUNDING), 0) for value in (left, top)]
        last = [
            min(math.ceil(value - _ROUNDING), end)
            for value, end in ((right, width), (bottom, height))
        ]
        if last[0] <= first[0] or last[1] <= first[1]:
            raise OutsideError(f"{what} takes no pixel of the picture of {width} x {height}")
        return first[0], first[1], last[0], last[1]


def written(corners: Sequence[float]) -> str:
    """x, y, width and height of a box, as written in names: 10,20,30,40."""
    left, top, right, bottom = corners
    return ",".join(f"{value:.10g}" for value in (left, top, right - left, bottom - top))
