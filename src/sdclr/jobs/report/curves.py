"""metrics.jsonl, and the image records by group -> the curves of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdclr.presentation.report import ArmCurves, Curve, Curves
from sdclr.run import Run
from sdclr.run.files import GROUPS_FILE

Entries = Sequence[Mapping[str, Any]]
"""One per epoch, in order."""


def measured_by_epoch(run: Run) -> list[dict[str, Any]]:
    """The entries of metrics.jsonl, with those of examination/groups.json for the same epochs."""
    groups = run.read_side_file(GROUPS_FILE, optional=True)
    of_epoch = {entry["epoch"]: entry for entry in groups.get("epochs", [])}
    return [{**entry, **of_epoch.get(entry["epoch"], {})} for entry in run.metrics()]


def share_of_few(run: Run) -> float | None:
    """Share of the training images in few classes, from examination/groups.json."""
    counts = run.read_side_file(GROUPS_FILE, optional=True).get("num_images") or {}
    total = sum(counts.values())
    return counts["few"] / total if total and "few" in counts else None


def curve_points(metrics: Entries, key: str) -> list[tuple[int, float]]:
    """(epoch from 1, value) of everything that metrics.jsonl has logged under ``key``.

    The health check's measurement of the untrained network is at epoch 0.
    """
    points = [(int(one["epoch"]), float(one[key])) for one in metrics if one.get(key) is not None]
    if key.startswith("health_") and points:
        before = f"untrained_{key.removeprefix('health_')}"
        at_first = [float(one[before]) for one in metrics if one.get(before) is not None]
        points = [(0, value) for value in at_first[:1]] + points
    return points


def gathered(
    curves: Iterable[Curve],
    arms: Mapping[str, Sequence[Entries]],
    few: float | None,
    *,
    with_marks: bool,
) -> list[Curves]:
    """Each of the curves, with the arms whose runs have all logged it.

    ``arms``: label -> the entries of each of its runs. ``few``: the share of images in few classes.
    ``with_marks``: whether alarms are shown, as for a single run.
    """
    alone = [runs[0] for runs in arms.values()] if with_marks else []
    found = []
    for curve in curves:
        logged = [one for label, runs in arms.items() for one in _of_arm(curve, label, runs)]
        if not logged:
            continue
        marks = _marks(alone[0]) if alone and curve.section == "health" else []
        reference = None
        if curve.key == "mined" and few is not None:
            reference = (few, "share of all images")
        found.append(Curves(curve, logged, marks, reference))
    return found


def _of_arm(curve: Curve, label: str, runs: Sequence[Entries]) -> list[ArmCurves]:
    keys = {part: f"{curve.key}_{part}" for part in curve.parts} or {"": curve.key}
    found = []
    for part, key in keys.items():
        points = [curve_points(entries, key) for entries in runs]
        if all(points):
            found.append(ArmCurves(label, points, part))
    return found


def _marks(entries: Entries) -> list[tuple[int, str]]:
    return [(epoch, cause.replace("_", " ")) for epoch, cause in raised_alarms(entries)]


def raised_alarms(entries: Entries) -> list[tuple[int, str]]:
    """(epoch, cause) of every alarm that a run has recorded."""
    return [
        (int(one["epoch"]), key.removeprefix("alarm_"))
        for one in entries
        for key, value in one.items()
        if key.startswith("alarm_") and value
    ]
