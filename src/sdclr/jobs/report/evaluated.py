"""Evaluated runs -> one report: rows, comparisons, bars, curves, facts.

Reads only what the other jobs have written (config.yaml, split.json, environment.json, metrics.jsonl,
evaluation/<protocol>.json); trains and evaluates nothing. Accuracies are fractions until ``presentation`` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdclr.errors import MissingInputError
from sdclr.evaluation.balancedness import GroupConvention
from sdclr.jobs.report.arms import probe_headings, read_arms
from sdclr.jobs.report.coverage import coverage_remarks, difference_remarks
from sdclr.jobs.report.evaluated_numbers import (
    chance,
    class_bars,
    class_rows,
    compare,
    curves_of,
    first_competitors,
    mean_row,
    split_counts,
)
from sdclr.jobs.report.evaluated_text import (
    description,
    environment_values,
    facts,
    glance,
    probe_detail,
    run_record,
    source_of,
)
from sdclr.presentation.report import Report
from sdclr.run import Run
from sdclr.run.next_step import evaluate_command


def build_report(
    runs: Sequence[Path | str], protocol: str | None = None, groups: GroupConvention | None = None
) -> Report:
    """Gather evaluated runs into one report.

    Runs whose configs are equal except for seed, split, device and paths form one arm. Several seeds of one split are
    averaged first, then the splits: every mean and population std is over splits, and n counts splits. If all runs
    are of one split, as with the user's own images, they are over seeds, and n counts seeds.
    The first arm is the baseline of the paired comparisons. ``groups``: ``thirds`` or ``thresholds`` instead of the
    data set's own convention.

    Raises what :func:`~sdclr.jobs.report.arms.read_arms` raises.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["linear", "knn"])
    >>> report = sdclr.build_report([run])
    >>> report.title, [row.probe for row in report.rows]
    ('SDCLR on digits', ['linear', 'knn'])
    """
    arms, protocol = read_arms(runs, protocol, groups, over="seeds")
    folders = [run for arm in arms for run in arm.runs]
    headings = probe_headings(arms)
    probes = list(headings)
    if not probes:
        raise MissingInputError(
            f"no probe has a result in {folders[0].path}; run `{evaluate_command(Run(folders[0].path))}` first."
        )
    comparisons = [c for probe in probes for arm in arms[1:] for c in compare(arms[0], arm, probe)]
    *methods, last = dict.fromkeys(arm.method for arm in arms)
    names = f"{', '.join(methods)} and {last}" if methods else last
    return Report(
        title=f"{names} on {source_of(folders)}",
        description=" ".join(
            [
                description(arms, protocol),
                *coverage_remarks(arms, headings, protocol),
                *difference_remarks(arms, probes),
            ]
        ),
        group_convention=folders[0].evaluation.group_convention,
        dataset=folders[0].evaluation.dataset,
        protocol=protocol,
        chance=chance(folders),
        arms=[arm.label for arm in arms],
        probes=headings,
        rows=[mean_row(arm, probe) for probe in probes for arm in arms if arm.repeats(probe)],
        comparisons=comparisons,
        facts=facts(arms, protocol),
        probe_details={probe: probe_detail(folders, probe) for probe in probes},
        bars=[class_bars(arms, probe) for probe in probes],
        curves=curves_of(arms),
        class_names=folders[0].split["class_names"],
        splits=split_counts(folders),
        over=arms[0].over,
        runs=[run_record(arm, run) for arm in arms for run in arm.runs],
        versions={
            key: environment_values(folders, key)
            for key in ("sdclr", "torch", "torchvision", "numpy", "python")
        },
        classes=class_rows(folders[0], probes) if len(folders) == 1 else [],
        glance=glance(arms, comparisons),
        competitors=first_competitors(arms) if len(folders) > 1 else {},  # otherwise in the details
    )
