"""A sheet of images beside their augmented views: what a person should look at before a long run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

SMALLEST_TILE = 96
MARGIN, HEADER = 6, 22
GROUPS_PER_ROW = 2


def write_sheet(path: Path, stills: Pixels, views_a: Pixels, views_b: Pixels) -> None:
    """Write a PNG: each image, its view a (target branch) and its view b (competitor branch); all [n, S, S, 3]."""
    scale = -(-SMALLEST_TILE // stills.shape[1])
    tile = stills.shape[1] * scale
    rows = -(-len(stills) // GROUPS_PER_ROW)
    group = 3 * (tile + MARGIN) + 2 * MARGIN
    sheet = Image.new("RGB", (GROUPS_PER_ROW * group, HEADER + rows * (tile + MARGIN) + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for column in range(GROUPS_PER_ROW):
        for part, title in enumerate(("image", "view a: target", "view b: competitor")):
            draw.text((MARGIN + column * group + part * (tile + MARGIN), 5), title, fill="black")
    for number, parts in enumerate(zip(stills, views_a, views_b, strict=True)):
        row, column = divmod(number, GROUPS_PER_ROW)
        for part, pixels in enumerate(parts):
            picture = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(picture, (MARGIN + column * group + part * (tile + MARGIN), HEADER + row * (tile + MARGIN)))
    sheet.save(path)
