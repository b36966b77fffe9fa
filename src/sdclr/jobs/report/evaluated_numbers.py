"""What a report of evaluated runs computes: means over splits or seeds, comparisons, bars, curves, counts.

C classes. Accuracies are fractions; no text is written here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from sdclr.evaluation.balancedness import class_groups
from sdclr.evaluation.verdict import paired_effect
from sdclr.jobs.report.arms import Arm
from sdclr.jobs.report.curves import gathered
from sdclr.jobs.report.details import read_competitor
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.mean_std import MeanStd
from sdclr.presentation.competitor import Competitor
from sdclr.presentation.report import (
    COLUMNS,
    CURVES,
    ArmBars,
    ClassBars,
    ClassRow,
    Comparison,
    Curves,
    Row,
    SplitCounts,
)
from sdclr.run import Run

COMPARED = ("all", "few", "group_std")


def mean_row(arm: Arm, probe: str) -> Row:
    repeats = arm.summaries(probe).values()
    values = {
        column.key: MeanStd.over([getattr(one, column.key) for one in repeats])
        for column in COLUMNS
    }
    return Row(probe, arm.label, len(repeats), values)


def compare(baseline: Arm, arm: Arm, probe: str) -> list[Comparison]:
    """``arm`` against ``baseline`` over the splits, or seeds, that both have, for each compared quantity."""
    results = []
    for key in COMPARED:
        a, b = (
            _known({s: getattr(one, key) for s, one in x.summaries(probe, beside=y).items()})
            for x, y in ((baseline, arm), (arm, baseline))
        )
        if not a or not b:
            continue
        found, shared, over = paired_effect(a, b), a.keys() & b.keys(), arm.over
        has_interval = not math.isnan(found.low)  # one difference has none, nor have equal ones
        interval = (found.mean, found.low, found.high) if has_interval else None
        single = found.mean if shared and not has_interval else None
        if over == "seeds" and not shared:  # still of one split
            single, over = statistics.fmean(b.values()) - statistics.fmean(a.values()), "splits"
        results.append(
            Comparison(probe, key, baseline.label, arm.label, len(shared), interval, single, over)
        )
    return results


def _known(values: Mapping[int, float]) -> dict[int, float]:
    """The values without the splits in which the group of classes is empty."""
    return {split: value for split, value in values.items() if not math.isnan(value)}


def chance(runs: Sequence[RunFolder]) -> float:
    """Accuracy of a random guess; its mean if the classes that were left out differ between the runs."""
    chances = [run.evaluation.chance for run in runs]
    return chances[0] if len(set(chances)) == 1 else statistics.fmean(chances)


def class_bars(arms: Sequence[Arm], probe: str) -> ClassBars:
    """Accuracy by rank of the training count: the class behind a rank differs from split to split."""
    bars, counts_by_run, runs = [], [], []
    for arm in arms:
        per_repeat = []
        for seeds in arm.repeats(probe).values():
            counts = np.asarray(seeds[0].evaluation.train_counts)
            # the reverse of class_groups' ascending order, so that ranks and groups agree for equal counts
            order = np.argsort(counts, kind="stable")[::-1]
            measured = [run.evaluation.probes[probe].per_class_accuracy for run in seeds]
            accuracy = np.mean(np.array(measured, dtype=np.float64), axis=0)  # nan: not tested
            per_repeat.append(accuracy[order])
            counts_by_run.append(counts[order])
            runs += seeds
        if per_repeat:
            ranks = [MeanStd.over(values) for values in np.transpose(per_repeat)]
            bars.append(ArmBars(arm.label, ranks))
    counts = np.rint(np.mean(counts_by_run, axis=0)).astype(int)
    groups = class_groups(counts.tolist()[::-1], runs[0].evaluation.group_convention)
    group_of = {
        len(counts) - 1 - index: name for name, members in groups.items() for index in members
    }
    names = [group_of[rank] for rank in range(len(counts))]
    classes: list[str] = []
    # with several splits, each has another class at a rank
    if len({(run.split_number, tuple(run.evaluation.train_counts)) for run in runs}) == 1:
        evaluation = runs[0].evaluation
        order = np.argsort(np.asarray(evaluation.train_counts), kind="stable")[::-1]
        classes = [evaluation.class_names[index] for index in order.tolist()]
    return ClassBars(probe, counts.tolist(), names, chance(runs), bars, classes)


def class_rows(run: RunFolder, probes: Sequence[str]) -> list[ClassRow]:
    """The classes of a single run, most training images first."""
    evaluation = run.evaluation
    counts = np.asarray(evaluation.train_counts)
    groups = class_groups(evaluation.train_counts, evaluation.group_convention)
    group_of = {index: name for name, members in groups.items() for index in members}
    rows = []
    for index in np.argsort(counts, kind="stable")[::-1].tolist():
        accuracy = {}
        tested: int | None = None
        for probe in probes:
            result = evaluation.probes[probe]
            measured = result.per_class_accuracy[index]
            accuracy[probe] = math.nan if measured is None else measured
            tested = result.num_test[index] if tested is None and result.num_test else tested
        name, group = evaluation.class_names[index], group_of[index]
        rows.append(ClassRow(name, group, int(counts[index]), tested, accuracy))
    return rows


def curves_of(arms: Sequence[Arm]) -> list[Curves]:
    """Each curve of the table, with the arms whose runs have all logged it."""
    runs = [run for arm in arms for run in arm.runs]
    known = [run.share_of_few for run in runs if run.share_of_few is not None]
    few = statistics.mean(known) if len(known) == len(runs) else None
    logged = {arm.label: [run.metrics for run in arm.runs] for arm in arms}
    return gathered(CURVES.values(), logged, few, with_marks=len(runs) == 1)


def split_counts(runs: Sequence[RunFolder]) -> list[SplitCounts]:
    first = {
        run.split_number: run.split
        for run in sorted(runs, key=lambda run: run.split_number, reverse=True)
    }
    return [
        SplitCounts(number, s["name"], s["seed"], s["source"], s["fingerprint"], s["counts"])
        for number, s in sorted(first.items())
    ]


def first_competitors(arms: Sequence[Arm]) -> dict[str, Competitor]:
    """Arm -> the competitor of its first run that has one to show."""
    found: dict[str, Competitor] = {}
    for arm in arms:
        for run in arm.runs:
            one = read_competitor(Run(run.path))
            if one.layers or one.disagreement is not None:
                found[arm.label] = one
                break
    return found
