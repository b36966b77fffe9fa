"""A run on the digits that takes a second."""

from __future__ import annotations

from pathlib import Path

from sdclr import Run, pretrain, recipe

TINY = (
    "backbone.width=4",
    "views.size=8",
    "batch_size=100",
    "epochs=1",
    "health_every_epochs=0",
)


def train_digits(folder: Path) -> Run:
    """A backbone that gives 32 features of any pictures."""
    return pretrain(recipe("digits_sdclr").with_overrides(TINY), folder)
