"""The map of a sample of images: which are shown as pictures, and which as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdclr.presentation.details import EmbeddingMap

WIDTH, HEIGHT = 1000, 640
"""Size of the map, in its own units."""
TILE = 36
"""Side of a picture."""
MARGIN = 8
MOST_TILES = 300


@dataclass(frozen=True)
class Tile:
    """One image of the map."""

    x: float
    """Left edge of the picture, or the middle of the dot."""
    y: float
    title: str
    picture: str
    """A data: URL; empty for a dot."""


def map_tiles(found: EmbeddingMap) -> Sequence[Tile]:
    """Dots first, then pictures, in the order of the sample; a picture is placed only if it touches no other one."""
    if not found.images:
        return []
    xs, ys = [one.x for one in found.images], [one.y for one in found.images]
    taken: list[tuple[float, float]] = []
    dots, pictures = [], []
    for one in found.images:
        x = _scaled(one.x, min(xs), max(xs), WIDTH)
        y = HEIGHT - _scaled(one.y, min(ys), max(ys), HEIGHT)
        title = f"{one.path}, class {one.label}" if one.label else one.path
        is_free = all(abs(x - a) >= TILE or abs(y - b) >= TILE for a, b in taken)
        if one.picture and is_free and len(taken) < MOST_TILES:
            taken.append((x, y))
            corner = (round(x - TILE / 2, 1), round(y - TILE / 2, 1))
            pictures.append(Tile(*corner, title, one.picture))
        else:
            dots.append(Tile(round(x, 1), round(y, 1), title, ""))
    return [*dots, *pictures]


def _scaled(value: float, low: float, high: float, length: float) -> float:
    edge = MARGIN + TILE / 2
    share = 0.5 if high == low else (value - low) / (high - low)
    return edge + share * (length - 2 * edge)
