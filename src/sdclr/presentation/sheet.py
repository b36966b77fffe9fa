"""A sheet of images beside their augmented views, to inspect before a long run."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

Pixels = npt.NDArray[np.uint8]

SMALLEST_TILE = 96
MARGIN, HEADER = 6, 22
GROUPS_PER_ROW = 2
MARK = "sdclr views"
"""A text in the PNG, by which our sheets are recognised."""


def sheet_png(stills: Pixels, views_a: Pixels, views_b: Pixels) -> bytes:
    """A PNG: each image, its view a (target branch) and its view b (competitor branch); all [n, S, S, 3]."""
    scale = -(-SMALLEST_TILE // stills.shape[1])
    tile = stills.shape[1] * scale
    rows = -(-len(stills) // GROUPS_PER_ROW)
    group = 3 * (tile + MARGIN) + 2 * MARGIN
    sheet = Image.new(
        "RGB", (GROUPS_PER_ROW * group, HEADER + rows * (tile + MARGIN) + MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for column in range(GROUPS_PER_ROW):
        for part, title in enumerate(("image", "view a: target", "view b: competitor")):
            draw.text((MARGIN + column * group + part * (tile + MARGIN), 5), title, fill="black")
    for number, parts in enumerate(zip(stills, views_a, views_b, strict=True)):
        row, column = divmod(number, GROUPS_PER_ROW)
        for part, pixels in enumerate(parts):
            picture = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(
                picture,
                (MARGIN + column * group + part * (tile + MARGIN), HEADER + row * (tile + MARGIN)),
            )
    mark = PngInfo()
    mark.add_text("Software", MARK)
    content = io.BytesIO()
    sheet.save(content, "PNG", pnginfo=mark)
    return content.getvalue()


def is_sheet(head: bytes) -> bool:
    """Whether a file with these first bytes is one of our sheets."""
    return head.startswith(b"\x89PNG\r\n\x1a\n") and f"tEXtSoftware\0{MARK}".encode() in head[:256]
