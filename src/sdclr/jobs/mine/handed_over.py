"""Broadcast the ranking made by the first of several processes to all others, through a temporary file.

N images, G groups.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.jobs.mine.folder import RANKING
from sdclr.presentation.mined import MinedImages, RankingQuality
from sdclr.processes.world import World
from sdclr.storage.durable_files import storage_errors, temporary_name

_RANKED, _READ = "the ranking is in", "has read the ranking/{}"
_FACTS = "facts"


def hand_over(mined: MinedImages, folder: Path, world: World) -> None:
    """In the first process: let every other one read ``mined``; returns when all have done so."""
    if not world.several:
        return
    path = temporary_name(folder / RANKING)
    try:
        with storage_errors(path), path.open("xb") as file:
            np.savez(file, **_arrays_of(mined))
        world.messages.publish(_RANKED, {"name": path.name})
        for other in range(1, world.size):
            world.messages.wait_for(_READ.format(other))
    finally:
        path.unlink(missing_ok=True)


def handed_over(folder: Path, world: World) -> MinedImages:
    """In every other process: receive the ranking of the first one."""
    path = folder / world.messages.wait_for(_RANKED)["name"]
    with storage_errors(path), np.load(path) as file:
        mined = _mined_of(dict(file.items()))
    world.messages.publish(_READ.format(world.rank), {})
    return mined


def _arrays_of(mined: MinedImages) -> dict[str, Any]:
    """Everything as arrays; other values are JSON in one of them. Names of scores may contain any character."""
    arrays: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for name, value in vars(mined).items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif name in ("components", "junk"):
            facts[name] = list(value)
            arrays |= {f"{name}.{place}": one for place, one in enumerate(value.values())}
        elif isinstance(value, RankingQuality):
            facts[name] = dataclasses.asdict(value)
        elif name == "columns":
            facts[name] = {column: list(cells) for column, cells in value.items()}
        else:
            facts[name] = list(value) if name in ("names", "remarks") else value
    arrays[_FACTS] = np.frombuffer(json.dumps(facts).encode("ascii"), dtype=np.uint8)
    return arrays


def _mined_of(arrays: dict[str, Any]) -> MinedImages:
    facts: dict[str, Any] = json.loads(arrays.pop(_FACTS).tobytes())
    for name in ("components", "junk"):
        keys = facts[name]
        facts[name] = {key: arrays.pop(f"{name}.{place}") for place, key in enumerate(keys)}
    facts["quality"] = RankingQuality(**facts["quality"])
    return MinedImages(**(facts | arrays))
