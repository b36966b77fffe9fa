"""Grids on digits that take moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.grid.run import open_grid

TINY = {
    "backbone.width": 2,
    "views.size": 8,
    "epochs": 1,
    "batch_size": 200,
    "health_every_epochs": 0,
}


def small_content(**changes: Any) -> dict[str, Any]:
    """The content of a grid's file: two arms on two splits, measured by nearest neighbours."""
    content: dict[str, Any] = {
        "base": "digits_sdclr",
        "overrides": dict(TINY),
        "arms": {"simclr": {"recipe": "digits_simclr"}, "sdclr": {}},
        "splits": ["1-2"],
        "probes": ["knn"],
        "question": {"baseline": "simclr", "probe": "knn", "d": 1.0},
    }
    return {key: value for key, value in (content | changes).items() if value is not None}


def small_file(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small_content(**changes), sort_keys=False), encoding="utf-8")
    return path


def small_grid(folder: Path, **changes: Any) -> GridCells:
    """The cells of that grid, whose runs and records lie in ``folder``/out."""
    return open_grid(small_file(folder, **changes), folder / "out")[0]
