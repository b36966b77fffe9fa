"""Trouble planted into a set: junk, near-duplicates, bursts; and what became of it.

N images, P planted ones behind them. Every planted picture is made from a picture of the set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from rarebench.sets import Collection

Pixels = npt.NDArray[np.uint8]
JUNK_SHARE, COPY_SHARE, BURST_SHARE, BURST = 0.01, 0.01, 0.01, 6
"""Copies: 1 % of the set from the largest and 1 % from the smallest classes; bursts: 1 % of the
images are shot six times."""
JUNK = ("blank", "blurred", "overexposed", "underexposed")


@dataclass(frozen=True)
class Planted:
    """The additional pictures."""

    pixels: Pixels
    """uint8 [P, S, S, 3]"""
    sources: npt.NDArray[np.int64]
    """[P], the picture that each was made from."""
    kinds: npt.NDArray[np.str_]
    """[P], one of JUNK, or copy, or burst."""


def plant(collection: Collection, seed: int = 0) -> Planted:
    """Make the trouble; the same for the same seed."""
    rng = np.random.default_rng(seed)
    n = len(collection.pixels)
    few = np.flatnonzero(collection.of_smallest(1 / 3))
    many = np.flatnonzero(~collection.of_smallest(2 / 3))
    num_copies = max(4, round(COPY_SHARE * n))
    chosen: list[tuple[str, int]] = []
    for i, source in enumerate(rng.integers(0, n, max(4, round(JUNK_SHARE * n)))):
        chosen.append((JUNK[i % len(JUNK)], int(source)))
    for part in (many, few):
        chosen += [
            ("copy", int(source))
            for source in rng.choice(part, min(num_copies, len(part)), replace=False)
        ]
    for source in rng.choice(n, max(2, round(BURST_SHARE * n)), replace=False):
        chosen += [("burst", int(source))] * (BURST - 1)
    made = [_spoiled(collection.pixels[source], kind, rng) for kind, source in chosen]
    sources = np.array([source for _, source in chosen], dtype=np.int64)
    return Planted(np.stack(made), sources, np.array([kind for kind, _ in chosen]))


def _spoiled(pixels: Pixels, kind: str, rng: np.random.Generator) -> Pixels:
    picture = Image.fromarray(pixels)
    side = picture.width
    if kind == "blank":
        level = rng.integers(0, 256, 3)
        return np.clip(level + rng.normal(0, 1, pixels.shape), 0, 255).astype(np.uint8)
    if kind == "blurred":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(side / 10)))
    if kind == "overexposed":
        return np.clip(pixels * 2.0 + 160, 0, 255).astype(np.uint8)
    if kind == "underexposed":
        return (pixels * 0.04).astype(np.uint8)
    shift = 0.03 if kind == "copy" else 0.06  # of the side: saved again, or shot again
    left, top = rng.uniform(0, shift, 2) * side
    box = (left, top, left + side * (1 - shift), top + side * (1 - shift))
    moved = picture.resize((side, side), Image.Resampling.BILINEAR, box=box)
    brighter = ImageEnhance.Brightness(moved).enhance(rng.uniform(0.92, 1.08))
    noise = rng.normal(0, 2, pixels.shape)
    return np.clip(np.asarray(brighter) + noise, 0, 255).astype(np.uint8)
