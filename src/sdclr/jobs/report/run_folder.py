"""An evaluated run folder as a report reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdclr.evaluation.results import Evaluation
from sdclr.methods.table import method_title


@dataclass(frozen=True)
class RunFolder:
    """What one run has written to disk."""

    path: Path
    settings: Mapping[str, Any]
    """config.yaml, flattened: "method.prune_ratio" -> 0.9."""
    split: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    """One entry per epoch, in order, with the image records by group."""
    share_of_few: float | None
    """Share of the training images in few classes, if known."""
    evaluation: Evaluation

    @property
    def method(self) -> str:
        """The method's name as the paper writes it."""
        return method_title(self.settings, self.environment.get("method"))

    @property
    def split_number(self) -> int:
        return int(self.evaluation.split.number or 0)

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])
