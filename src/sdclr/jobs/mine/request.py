"""The request of a mining call, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import SCORES, load_score
from sdclr.evaluation.rarity.maps import checked_map
from sdclr.jobs.mine.marks import read_marks
from sdclr.jobs.mine.ranking import Order, check_order
from sdclr.outside import is_outside
from sdclr.safe_text import as_text


@dataclass(frozen=True)
class MineRequest:
    """The request for a ranking."""

    score: str
    scores: Sequence[str]
    like: Sequence[str]
    feedback: Path | None
    against: Path | None
    top: int
    order: Order
    map: str
    exact_up_to: int

    def as_facts(self) -> dict[str, Any]:
        """For mine.json."""
        facts = {"score": self.score, "scores": list(self.scores), "like": list(self.like)}
        paths = {"feedback": self.feedback, "against": self.against}
        path_texts = {
            name: None if path is None else as_text(str(path)) for name, path in paths.items()
        }
        chosen = {"top": self.top, "order": self.order, "map": self.map}
        return {**facts, **path_texts, **chosen, "exact_up_to": self.exact_up_to}


def known_score(name: str) -> str:
    """The name of a row of SCORES; module:Name is imported. Raises ConfigError for an unknown one."""
    return load_score(name).name if is_outside(name) else SCORES.require(name).name


def require_possible(
    data: DataConfig, request: MineRequest, out: Path, *, has_records: bool
) -> None:
    """Raise ConfigError or DataError for what cannot be done with these images."""
    check_order(request.order)
    if request.against is not None and os.path.realpath(request.against) == os.path.realpath(out):
        raise ConfigError(
            f"--against {request.against} is the folder of --out, whose record of what was new would be lost; choose "
            "another --out."
        )
    checked_map(request.map)
    if data.store is not None:
        raise ConfigError(
            "data.store saves decoding when images are seen again; mine sees each once. Leave it out."
        )
    if request.like and request.feedback is not None:
        raise ConfigError("--like and --feedback are two rankings; give one of them.")
    if request.feedback is not None:
        read_marks(request.feedback)  # an invalid mark is reported before images are processed
    for name in (request.score, *request.scores):
        known = {"features", *(("losses", "masses") if has_records else ())}
        if lacking := [need for need in SCORES[name].needs if need not in known]:
            raise DataError(
                f"the score {name} needs {' and '.join(lacking)}, which are not given: mining knows features, and "
                "losses and masses of the own images of a run that was trained with record_images=true."
            )
    if request.top < 1:
        raise ConfigError(f"--top must be 1 or more, got {request.top}.")
    if request.exact_up_to < 0:
        raise ConfigError(f"--exact-up-to must be 0 or more, got {request.exact_up_to}.")
