"""Photographs for mining: kinds that look alike, copies and junk among them. No tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(kind: int, number: int, side: int = 48) -> Image.Image:
    """One of many different pictures of a kind."""
    coarse = np.random.default_rng(kind).integers(0, 256, (4, 4, 3))
    noise = np.random.default_rng([kind, number]).integers(-70, 71, (8, 8, 3))
    pixels = np.clip(np.kron(coarse, np.ones((2, 2, 1))) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def make_photos(folder: Path, counts: dict[int, int], start: int = 0) -> list[str]:
    """Write KIND_NUMBER.png, ``counts[kind]`` of each kind from ``start`` on; their names in byte order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for kind, count in counts.items():
        for number in range(start, start + count):
            names.append(f"{kind}_{number:03d}.png")
            photo(kind, number).save(folder / names[-1])
    return sorted(names)
