"""Records -> the report of a grid. Reads only records and failures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sdclr.errors import ConfigError
from sdclr.evaluation.balancedness import Balancedness
from sdclr.evaluation.probes import PROBES
from sdclr.evaluation.verdict import Effect, mean_interval, paired_effect
from sdclr.mean_std import MeanStd
from sdclr.presentation.grid import (
    MEASURES,
    ArmRow,
    ComparedArm,
    GridReport,
    Interval,
    MiningCurve,
    Question,
    Sweep,
    SweepPoint,
)
from sdclr.safe_text import first_of, shown
from sdclr.workflows.grid.cells import GridCells, shared_keys
from sdclr.workflows.grid.file import Metric, setting_of
from sdclr.workflows.grid.records import CellRecord, Key

BESIDE: Sequence[str] = ("few", "many", "group_std")
"""Measures shown beside the decisive one."""
_NAMES: Mapping[str, str] = {**MEASURES, "worst_class": "Worst class"}
_ByArm = Mapping[str, Sequence[CellRecord]]


def build_grid_report(cells: GridCells) -> GridReport:
    """The report of the finished cells. Raises ConfigError for records whose numbers do not belong in one table."""
    grid, found = cells.grid, cells.read_records()
    by_arm: dict[str, list[CellRecord]] = {arm.name: [] for arm in grid.arms}
    for cell in cells.cells:
        if cell.run.folder in found:
            # with the names in the current file
            names = {"arm": cell.arm, "split_origin": cell.split.origin}
            by_arm[cell.arm].append(found[cell.run.folder].model_copy(update=names))
    records = [record for arm in by_arm.values() for record in arm]
    _require_same_data(records)
    datasets = {record.measured().dataset for record in records}
    rows = [
        _row(cells, arm.name, by_arm[arm.name], probe) for probe in grid.probes for arm in grid.arms
    ]
    failed = [cell for cell in cells.cells if cells.state(cell) == "failed"]
    several = len({record.split_source for record in records}) > 1
    return GridReport(
        grid=grid.name,
        title=grid.file.title or grid.name,
        protocol=grid.protocol,
        dataset=", ".join(sorted(datasets)) or grid.arms[0].base.data.name,
        probes={name: PROBES[name].display_name for name in grid.probes},
        rows=rows,
        cells=[
            _csv_cell(grid.titles[arm], record, probe, several=several)
            for arm, arm_records in by_arm.items()
            for record in arm_records
            for probe in grid.probes
        ],
        num_done=len(records),
        num_failed=len(failed),
        num_planned=len(cells.cells),
        failures=_failures({cell.title: cells.failures.reason(cell) for cell in failed}),
        asked=_question(cells, by_arm),
        sweep=_sweep(cells, by_arm),
        mining=_mining(cells, by_arm),
        hardware=_kinds(records, ("device", "precision")),
        versions=_kinds(records, ("sdclr", "torch", "python")),
        seconds=sum(sum(record.seconds.values()) for record in records),
        command=cells.command,
        notes=_notes(cells, by_arm),
    )


def _require_same_data(records: Sequence[CellRecord]) -> None:
    """Raise ConfigError if two cells name the same split of different images, or group classes differently."""
    seen: dict[tuple[str, int], CellRecord] = {}
    grouped: dict[str, tuple[CellRecord, str]] = {}
    for record in records:
        measured = record.measured()
        convention = measured.group_convention
        other, before = grouped.setdefault(measured.dataset, (record, convention))
        if before != convention:
            raise ConfigError(
                f"the record of {_cell_title(other)} groups the classes of {shown(measured.dataset)} by {before}, that "
                f"of {_cell_title(record)} by {convention}: Many, Medium and Few are not the same. Remove the one that "
                "was changed, and its cell is run again."
            )
        first = seen.setdefault(record.key[:2], record)
        if first.data != record.data:
            raise ConfigError(
                f"the records of {_cell_title(first)} and {_cell_title(record)} name one split, but their images "
                f"differ (fingerprints {first.data} and {record.data}): their numbers are not comparable. "
                "Remove the records of one, or give both the same --data and --splits-dir."
            )


def _cell_title(record: CellRecord) -> str:
    """A record's cell in a message; the fingerprint is in the name of the record's file."""
    return f"{shown(record.arm)} (split {record.split}, seed {record.seed}, {record.fingerprint})"


def split_label(record: CellRecord) -> str:
    """For example "generated 101", or only the number for a given split."""
    return f"{'generated ' * (record.split_source == 'generated')}{record.split}"


def _balancedness(record: CellRecord, probe: str) -> Balancedness:
    return record.measured().balancedness(probe)


def _row(cells: GridCells, arm: str, records: Sequence[CellRecord], probe: str) -> ArmRow:
    measured = [_balancedness(record, probe) for record in records]
    means = {
        key: MeanStd.over([getattr(one, key) for one in measured])
        if measured
        else MeanStd(math.nan, math.nan, 0)
        for key in MEASURES
    }
    return ArmRow(cells.grid.titles[arm], probe, means, len(measured), _planned(cells, arm))


def _planned(cells: GridCells, arm: str) -> int:
    return sum(cell.arm == arm for cell in cells.cells)


def _csv_cell(title: str, record: CellRecord, probe: str, *, several: bool) -> dict[str, Any]:
    """``several``: whether splits come from several sources, so that a number alone is ambiguous."""
    return {
        "arm": title,
        "split": split_label(record) if several else str(record.split),
        "seed": record.seed,
        "probe": probe,
        **asdict(_balancedness(record, probe)),
        "seconds": record.seconds.get("training", 0.0),
        "fingerprint": record.fingerprint,
    }


def _question(cells: GridCells, by_arm: _ByArm) -> Question | None:
    question = cells.grid.file.question
    if question is None:
        return None
    titles, compared = cells.grid.titles, cells.grid.compared
    return Question(
        text=question.text,
        baseline=titles[question.baseline],
        probe=PROBES[question.probe].display_name.lower(),
        metric=_NAMES[question.metric],
        d=question.d,
        num_comparisons=len(compared),
        arms=[_compared(cells, by_arm, arm) for arm in compared],
    )


def _values(records: Sequence[CellRecord], probe: str, measure: str) -> dict[Key, float]:
    """Cell -> percent."""
    found = {r.key: 100 * getattr(_balancedness(r, probe), measure) for r in records}
    return {key: value for key, value in found.items() if not math.isnan(value)}


def _compared(cells: GridCells, by_arm: _ByArm, arm: str) -> ComparedArm:
    question = cells.grid.file.question
    assert question is not None
    num = len(cells.grid.compared)

    def effect(measure: str) -> Any:
        ours, theirs = (
            _values(by_arm[name], question.probe, measure) for name in (arm, question.baseline)
        )
        return paired_effect(theirs, ours, num)

    decisive = effect(question.metric)
    beside = {key: effect(key) for key in BESIDE if key != question.metric}
    shared = shared_keys(cells, arm, question.baseline)
    return ComparedArm(
        arm=cells.grid.titles[arm],
        effect=_interval(decisive),
        n=decisive.n,
        planned=len(shared),
        std=decisive.std,
        verdict=decisive.verdict(question.d),
        beside={key: _interval(one) for key, one in beside.items()},
        needed=decisive.cells_needed(question.d),
        needed_for_half=decisive.cells_needed(question.d / 2),
    )


def _interval(effect: Effect) -> Interval:
    return Interval(effect.mean, effect.low, effect.high)


def _sweep(cells: GridCells, by_arm: _ByArm) -> Sweep | None:
    sweep, question = cells.grid.file.sweep, cells.grid.file.question
    if sweep is None:
        return None
    probe = question.probe if question else cells.grid.probes[0]
    metric: Metric = question.metric if question else "all"
    found = []
    for arm in cells.grid.arms:
        value = setting_of(arm.base, sweep.setting)
        if value is None or (sweep.arms and arm.name not in sweep.arms):
            continue
        measured = list(_values(by_arm[arm.name], probe, metric).values())
        title = cells.grid.titles[arm.name]
        found.append(SweepPoint(title, value, _mean_interval(measured), len(measured)))
    found.sort(key=lambda point: point.value)
    measure = f"{_NAMES[metric]} ({PROBES[probe].display_name.lower()})"
    return Sweep(sweep.setting, measure, found)


def _mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its own 95 % t-interval, if there is one."""
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    mean, interval = mean_interval(values)
    return Interval(mean, *(interval or (math.nan, math.nan)))


def _mining(cells: GridCells, by_arm: _ByArm) -> list[MiningCurve]:
    found = []
    for arm, records in by_arm.items():
        columns = dict.fromkeys(
            column for record in records for epoch in record.mining for column in epoch.auroc
        )
        for column in columns:
            runs = [
                [
                    (epoch.epoch, epoch.auroc[column])
                    for epoch in record.mining
                    if column in epoch.auroc
                ]
                for record in records
            ]
            curves = [run for run in runs if run]
            found.append(MiningCurve(cells.grid.titles[arm], column, curves))
    return found


def _kinds(records: Sequence[CellRecord], names: Sequence[str]) -> list[str]:
    """The distinct values of these facts in the records, with the number of cells for each."""
    counts: dict[str, int] = {}
    for record in records:
        words = ", ".join(
            f"{name} {value}" if name not in ("device", "precision") else str(value)
            for name in names
            if (value := record.environment.get(name))
        )
        counts[words] = counts.get(words, 0) + 1
    if len(counts) == 1:
        return list(counts)
    return [f"{words} ({count})" for words, count in counts.items()]


def _notes(cells: GridCells, by_arm: _ByArm) -> list[str]:
    titles = cells.grid.titles
    records = [record for arm in by_arm.values() for record in arm]
    notes = []
    drawn = sorted({record.split for record in records if record.split_origin == "generated"})
    if drawn:
        notes.append(f"Generated splits (drawn from their number): {', '.join(map(str, drawn))}.")
    keys = {arm: {record.key for record in done} for arm, done in by_arm.items() if done}
    if len(set(map(frozenset, keys.values()))) > 1:
        counts = "; ".join(f"{titles[arm]}: {len(found)}" for arm, found in keys.items())
        notes.append(
            f"The arms' means are over different cells ({counts}), so part of their differences may come from "
            "that; the effects are paired."
        )
    notes += [
        f"{titles[one]} and {titles[other]} have the same accuracies in each of their {number} common cells: what they "
        "differ in had no effect."
        for one, other, number in _twins(by_arm, cells.grid.probes)
    ]
    return notes


def _twins(by_arm: _ByArm, probes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Pairs of arms whose accuracies are equal, class by class, in all common cells; and the number of these."""
    found = []
    numbers = {
        arm: {
            record.key: [record.evaluation["probes"][p]["per_class_accuracy"] for p in probes]
            for record in records
        }
        for arm, records in by_arm.items()
    }
    for one, other in itertools.combinations(numbers, 2):
        shared = numbers[one].keys() & numbers[other].keys()
        if shared and all(numbers[one][key] == numbers[other][key] for key in shared):
            found.append((one, other, len(shared)))
    return found


def _failures(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """(cells, reason), with cells grouped by the reason of their failure."""
    by_reason: dict[str, list[str]] = {}
    for cell, reason in reasons.items():
        by_reason.setdefault(reason, []).append(cell)
    return [(first_of(cells, 1), reason) for reason, cells in by_reason.items()]
