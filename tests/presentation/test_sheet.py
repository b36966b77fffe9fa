from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdclr.presentation.sheet import HEADER, MARGIN, sheet_png


@pytest.mark.parametrize(("number", "side"), [(1, 12), (5, 32), (16, 96)])
def test_every_image_stands_beside_its_own_views(number: int, side: int, tmp_path: Path) -> None:
    values = np.arange(number, dtype=np.uint8)[:, None, None, None] * 5 + np.zeros(
        (1, side, side, 3), np.uint8
    )
    (tmp_path / "sheet.png").write_bytes(sheet_png(values, values + 80, values + 160))
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    tile = side * -(-96 // side)
    group = 3 * (tile + MARGIN) + 2 * MARGIN
    for n in range(number):
        row, column = divmod(n, 2)
        top = HEADER + row * (tile + MARGIN)
        for part, offset in enumerate((0, 80, 160)):
            left = MARGIN + column * group + part * (tile + MARGIN)
            assert (sheet[top : top + tile, left : left + tile] == 5 * n + offset).all()
