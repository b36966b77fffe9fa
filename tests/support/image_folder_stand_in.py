"""A small long-tailed collection of one's own images: class folders, and lists that name them. No tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imagenet_stand_in import write_photograph

COUNTS = {"cat": 6, "dog": 4, "yak": 2}


def make_folder(root: Path, counts: Mapping[str, int] = COUNTS, seed: int = 0) -> list[str]:
    """Write ROOT/<class>/<number>.jpg, small photographs of different sizes; returns their paths in byte order."""
    rng = np.random.default_rng(seed)
    paths = sorted(
        f"{name}/{number}.jpg" for name, count in counts.items() for number in range(count)
    )
    for path in paths:
        write_photograph(root / path, rng)
    return paths


def write_txt(file: Path, paths: list[str], classes: list[str] | None = None) -> Path:
    """A list of ``path label`` lines, the label being the position of the class folder, or of plain paths."""
    labels = ["" if classes is None else f" {classes.index(path.split('/')[0])}" for path in paths]
    file.write_text("".join(f"{path}{label}\n" for path, label in zip(paths, labels, strict=True)))
    return file
