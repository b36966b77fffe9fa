"""Write index.html: thumbnails are made here, the page in presentation/mining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sdclr.data import Images
from sdclr.jobs.mine.looking import thumbnails
from sdclr.presentation.mined import MinedImages, Rows
from sdclr.presentation.mining.page import pictured_rows, render_mined_html
from sdclr.presentation.progress import AnyProgress
from sdclr.storage.durable_files import write_atomically


def write_page(
    mined: MinedImages,
    images: Images,
    listed_row: Rows,
    path: Path,
    show: AnyProgress,
    *,
    top: int,
) -> None:
    """Write the page of ``mined`` to ``path``.

    ``listed_row`` [N]: the row of each image among ``images``, -1 if its picture is not available.
    """
    rows = np.asarray(pictured_rows(mined, top=top), dtype=np.int64)
    rows = rows[listed_row[rows] >= 0]
    pictured = images.at(listed_row[rows])
    if pictured.files is not None:
        pictured = pictured.to(torch.device("cpu"))
    made = thumbnails(pictured, show) if len(rows) else []
    small = dict(zip(rows.tolist(), made, strict=True))
    write_atomically(path, render_mined_html(mined, small, top=top))
