"""The cells of the benchmark: set x encoder x group of scores, one small JSON file each.

A cell that has its file is finished; nothing is computed twice.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rarebench import measures, sets
from rarebench.encoders import ENCODERS, features_of
from rarebench.planted import JUNK, plant
from rarebench.sets import Collection
from rarebench.training_records import records_of
from sdclr.evaluation.rarity import (
    SCORES,
    Evidence,
    fold,
    judging,
    junk_flags,
    measure_junk,
    near_duplicates,
    perceptual_hashes,
    rarest_first,
)

RESULTS = sets.ROOT / "benchmarks" / "results" / "rarebench"
GROUPS = ("features", "ungrouped", "training", "planted")
CANDIDATES = (
    "density",
    "cleanlab",
    "knn_20",
    "knn_50",
    "knn_200",
    "white_knn_200",
    "fiftyone",
    "cluster_size",
    "centre_distance",
)
"""Scores that every other is compared with in pairs; the default is one of them."""
TOP = 200
Positions = npt.NDArray[np.int64]


class Cell(NamedTuple):
    """One file."""

    set: str
    encoder: str
    group: str

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.set}-{self.encoder}-{self.group}.json"


def cells(names: list[str], encoders: list[str]) -> Iterator[Cell]:
    """Those that there are, in the order in which they are made."""
    for name in names:
        for encoder in encoders:
            yield Cell(name, encoder, "features")
            if name == "tiles":
                yield Cell(name, encoder, "ungrouped")
            if encoder in ("simclr", "sdclr"):
                yield Cell(name, encoder, "training")
            if encoder == "lite0" and not name.endswith(("_2", "_3", "_4", "_5")):
                yield Cell(name, encoder, "planted")


def make(cell: Cell) -> dict[str, Any]:
    """Compute a cell and write its file."""
    collection = sets.load(cell.set)
    start = time.perf_counter()
    content: dict[str, Any] = {
        "set": cell.set,
        "encoder": cell.encoder,
        "group": cell.group,
        "num_images": len(collection.labels),
        "num_classes": len(collection.counts),
        "num_few": int(collection.of_smallest(1 / 3).sum()),
        "num_rarest": int(collection.of_smallest(1 / 10).sum()),
        "num_groups": None if collection.groups is None else len(np.unique(collection.groups)),
        "machine": f"{_processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
    }
    if cell.group == "planted":
        content["planted"] = _planted(collection, cell.encoder)
    else:
        content["chance"] = _chance(collection)
        content["scores"] = _scores(collection, cell)
    content["seconds"] = round(time.perf_counter() - start, 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    cell.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def budgets(collection: Collection) -> dict[str, int]:
    """How many images of an order are looked at."""
    c = len(collection.counts)
    all_of_them = {"C": c, "2C": 2 * c, "300": 300, "1000": 1000}
    return {name: count for name, count in all_of_them.items() if count < len(collection.labels)}


def _chance(collection: Collection) -> dict[str, float]:
    return {
        name: round(judging.classes_seen_by_chance(collection.counts, count), 2)
        for name, count in budgets(collection).items()
    }


def _evidence(collection: Collection, cell: Cell) -> Evidence:
    if cell.group == "training":
        return records_of(cell.encoder, collection)
    groups = None
    if collection.groups is not None and cell.group != "ungrouped":
        groups = torch.from_numpy(collection.groups)
    return Evidence(features_of(cell.encoder, collection), groups)


def _scores(collection: Collection, cell: Cell) -> dict[str, Any]:
    evidence = _evidence(collection, cell)
    found, seconds = {}, {}
    for name, row in SCORES.items():
        wanted_here = row.needs != ("features",) if cell.group == "training" else True
        if row.applies_to(evidence) and wanted_here and not row.origin:
            before = time.perf_counter()
            found[name] = row.score(evidence).numpy()
            seconds[name] = round(time.perf_counter() - before, 2)
    few, rarest = collection.of_smallest(1 / 3), collection.of_smallest(1 / 10)
    resampled = judging.bootstrap(found, few, collection.groups)
    shuffled = np.random.default_rng(0).permutation(len(few))  # ties must not follow the labels
    content = {}
    for name, score in found.items():
        content[name] = {
            "auroc_few": _rounded(judging.auroc(score, few)),
            "auroc_few_interval": [_rounded(end) for end in judging.interval(resampled[name])],
            "auroc_rarest": _rounded(judging.auroc(score, rarest)),
            "ap_few": _rounded(measures.average_precision(score, few)),
            "ap_rarest": _rounded(measures.average_precision(score, rarest)),
            "lift_few_1": _rounded(measures.lift(score[shuffled], few[shuffled], 0.01)),
            "lift_few_10": _rounded(measures.lift(score[shuffled], few[shuffled], 0.1)),
            "classes_seen": _classes_seen(collection, score, shuffled),
            "less_than": _compared(name, resampled),
            "seconds": seconds[name],
        }
    return content


def _classes_seen(
    collection: Collection, score: judging.Floats, shuffled: Positions
) -> dict[str, int]:
    order = shuffled[np.argsort(-score[shuffled], kind="stable")]
    return {
        name: judging.classes_seen(order, collection.labels, count)
        for name, count in budgets(collection).items()
    }


def _compared(name: str, resampled: dict[str, judging.Floats]) -> dict[str, list[float]]:
    """95 % interval of the AUROC of each candidate less this score's, in the same resamples."""
    differences = {
        candidate: judging.interval(resampled[candidate] - resampled[name])
        for candidate in CANDIDATES
        if candidate in resampled and candidate != name
    }
    return {
        candidate: [_rounded(low), _rounded(high)] for candidate, (low, high) in differences.items()
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _planted(collection: Collection, encoder: str) -> dict[str, Any]:
    planted = plant(collection)
    n = len(collection.labels)
    extra = Collection(
        f"{collection.name}-planted", planted.pixels, collection.labels[planted.sources]
    )
    own = features_of(encoder, collection)
    features = torch.cat([own, features_of(encoder, extra)])
    groups = None
    if collection.groups is not None:
        groups = torch.from_numpy(collection.groups)
    clean = Evidence(own, groups)
    pixels = [*collection.pixels, *planted.pixels]
    flags = junk_flags([measure_junk(one) for one in pixels])
    suspected = np.any(list(flags.values()), axis=0)
    is_junk = np.concatenate([np.zeros(n, bool), np.isin(planted.kinds, JUNK)])
    mixed = Evidence(features)
    folded = near_duplicates(mixed.neighbours(20), perceptual_hashes(pixels)).numpy()
    few = collection.of_smallest(1 / 3)
    of_few = np.concatenate([few, few[planted.sources]])
    # a user gives no groups here: what was folded is the group, and no neighbour of itself
    grouped = Evidence(features, torch.from_numpy(folded))
    content: dict[str, Any] = {
        "num_planted": {
            kind: int((planted.kinds == kind).sum()) for kind in sorted(set(planted.kinds))
        },
        "junk_found": _rounded(suspected[is_junk].mean()),
        "junk_found_by_kind": {
            kind: _rounded(suspected[n:][planted.kinds == kind].mean()) for kind in JUNK
        },
        "set_aside": _rounded(suspected[:n].mean()),
        "few_set_aside": _rounded(suspected[:n][few].mean()),
        "copies_folded": _folded_share(folded, planted.sources, planted.kinds == "copy", n),
        "bursts_folded": _folded_share(folded, planted.sources, planted.kinds == "burst", n),
        "originals_folded": _rounded((folded[:n] != np.arange(n)).mean()),
        "scores": {},
    }
    for name in ("random", "knn_1", *CANDIDATES):
        row = SCORES[name]
        before = row.score(clean).numpy()
        plain, with_groups = row.score(mixed).numpy(), row.score(grouped).numpy()
        order = rarest_first(torch.from_numpy(with_groups))
        sheet = fold(order[~torch.from_numpy(suspected)[order]], torch.from_numpy(folded)).numpy()
        unflagged = np.flatnonzero(~suspected & ~is_junk)
        content["scores"][name] = {
            "auroc_few_clean": _rounded(judging.auroc(before, few)),
            "auroc_few_plain": _rounded(judging.auroc(plain[~is_junk], of_few[~is_junk])),
            "auroc_few_folded": _rounded(judging.auroc(with_groups[unflagged], of_few[unflagged])),
            "junk_in_top_plain": int(is_junk[np.argsort(-plain, kind="stable")[:TOP]].sum()),
            "junk_in_top": int(is_junk[sheet[:TOP]].sum()),
        }
    return content


def _folded_share(folded: Positions, sources: Positions, chosen: judging.Flags, n: int) -> float:
    planted = n + np.flatnonzero(chosen)
    return _rounded((folded[planted] == folded[sources[chosen]]).mean())


def read() -> list[dict[str, Any]]:
    """All cells that are finished."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


__all__ = ["ENCODERS", "RESULTS", "Cell", "cells", "make", "read"]
