"""The paper's table over evaluated runs, next to the published numbers.

Per split (its seeds averaged) and mean ± population std over the splits: All, Many, Medium, Few, the std of the groups
and of the classes, for the paper's probes, followed by every other probe that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sdclr.errors import MissingInputError
from sdclr.evaluation.balancedness import GroupConvention
from sdclr.evaluation.probes import PROBES, published_probes
from sdclr.evaluation.published import GROUPS, PROTOCOLS, PUBLISHED
from sdclr.jobs.report.arms import (
    Arm,
    differing_settings,
    flatten,
    probe_headings,
    read_arms,
    setting_text,
)
from sdclr.jobs.report.coverage import coverage_remarks
from sdclr.jobs.report.files import FileFormat, check_formats, claimed, deliver, places
from sdclr.mean_std import MeanStd
from sdclr.presentation import paper_table
from sdclr.presentation.paper import COLUMNS, PaperArm, PaperRow, PaperTable
from sdclr.presentation.tables import GROUP_CONVENTIONS, MARKDOWN_MARK
from sdclr.recipes import SYSTEMS, recipe
from sdclr.run import Run
from sdclr.run.next_step import evaluate_command

SUBSETS = {"long_tail": "D_i", "balanced": "D_b", "all": "all images"}


def build_paper_table(
    runs: Sequence[Path | str], protocol: str | None = None, groups: GroupConvention | None = None
) -> PaperTable:
    """Gather evaluated runs of one data set; raises what :func:`~sdclr.jobs.report.arms.read_arms` raises.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["linear", "knn"])
    >>> sdclr.build_paper_table([run]).title
    'digits, protocol cached'
    """
    arms, protocol = read_arms(runs, protocol, groups)
    first = arms[0].runs[0]
    dataset = first.evaluation.dataset
    labels = _labels(arms)
    headings = probe_headings(arms)
    published = published_probes()
    if not any(probe in headings for probe in published):
        names = ", ".join(PROBES[probe].display_name for probe in published)
        raise MissingInputError(
            f"{first.path} has none of the probes that the paper's table is made of ({names}); "
            f"run `{evaluate_command(Run(first.path), more=['--probes', ','.join(published)])}` first."
        )
    probes = sorted(headings, key=lambda probe: probe not in published)  # the paper's first
    return PaperTable(
        title=f"{dataset}, protocol {protocol}",
        dataset=dataset,
        protocol=protocol,
        probes={probe: headings[probe] for probe in probes},
        arms=[
            PaperArm(probe, label, _rows(arm, probe, dataset))
            for probe in probes
            for arm, label in zip(arms, labels, strict=True)
            if arm.repeats(probe)
        ],
        notes=[*_notes(arms, dataset, protocol), *coverage_remarks(arms, headings, protocol)],
        published_protocol=PROTOCOLS[0],
    )


def write_paper_table(
    runs: Sequence[Path | str],
    formats: set[str],
    out: Path | None = None,
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    console: Console | None = None,
    *,
    overwrite: bool = False,
    ours: bool = False,
) -> PaperTable:
    """Build the table and deliver it: "terminal", "markdown", "csv", "latex"; files as :func:`write_report` does.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["linear", "knn"])
    >>> table = sdclr.write_paper_table([run], {"latex"}, out=Path("paper.tex"), overwrite=True)
    latex report: paper.tex
    """
    files = {
        "markdown": FileFormat(".md", paper_table.to_markdown, MARKDOWN_MARK),
        "csv": FileFormat(".csv", paper_table.to_csv, ",".join(paper_table.CSV_HEADER)),
        "latex": FileFormat(".tex", paper_table.to_latex, paper_table.LATEX_MARK),
    }
    check_formats(formats, files)
    targets = places(formats, files, out, "paper", overwrite=overwrite, ours=ours)
    with claimed(targets):
        # again, now that no other process writes them
        places(formats, files, out, "paper", overwrite=overwrite, ours=ours)
        table = build_paper_table(runs, protocol, groups)
        deliver(table, formats, paper_table.render_terminal, files, targets, console)
    return table


def _key(arm: Arm) -> tuple[str, str]:
    settings = arm.runs[0].settings
    return str(settings["method.name"]), str(settings.get("data.subset"))


def _labels(arms: Sequence[Arm]) -> list[str]:
    """For example "SDCLR on D_i"; the settings that differ are added if two arms would have the same label."""
    short = [
        f"{arm.method} on {SUBSETS.get(_key(arm)[1], _key(arm)[1])}{', their file' if _is_adopted(arm) else ''}"
        for arm in arms
    ]
    shown = [
        (label, *_settings(arm.runs[0].settings)) for label, arm in zip(short, arms, strict=True)
    ]
    return [
        f"{label} [{arm.label}]" if shown.count(mine) > 1 else label
        for label, arm, mine in zip(short, arms, shown, strict=True)
    ]


def _is_adopted(arm: Arm) -> bool:
    """Whether its weights are the authors', not ours."""
    return any("adopted" in run.environment for run in arm.runs)


def _settings(settings: Mapping[str, Any]) -> list[str]:
    """Head depth, norms, temperature and prune ratio; "-" if the method has no such setting."""
    names = ("projector_layers", "norms", "temperature", "prune_ratio")
    return [
        "-" if (value := settings.get(f"method.{name}")) is None else str(value) for name in names
    ]


def _rows(arm: Arm, probe: str, dataset: str) -> list[PaperRow]:
    settings = _settings(arm.runs[0].settings)
    splits = arm.summaries(probe)
    num_runs = {number: len(runs) for number, runs in arm.repeats(probe).items()}
    rows = [
        PaperRow(
            "split",
            f"split {number}" + (f", {num_runs[number]} seeds" if num_runs[number] > 1 else ""),
            settings,
            {key: MeanStd(getattr(one, key), 0.0, 1) for key in COLUMNS},
            num_runs[number],
        )
        for number, one in splits.items()
    ]
    means = {key: MeanStd.over([getattr(one, key) for one in splits.values()]) for key in COLUMNS}
    over = f"mean ± std over {len(splits)} splits" if len(splits) > 1 else "mean over 1 split"
    rows.append(PaperRow("mean", over, settings, means, sum(num_runs.values())))
    published = PUBLISHED.get((dataset, probe), {}).get(_key(arm))
    if published is not None:
        numbers = {key: getattr(published, key) for key in ("all", "many", "medium", "few")}
        values = {
            key: MeanStd(number, math.nan, 1)
            for key, number in numbers.items()
            if number is not None
        }
        theirs = _settings(_published_settings(dataset, _key(arm)))
        rows.append(PaperRow("published", f"published ({published.trust})", theirs, values))
    return rows


def _notes(arms: Sequence[Arm], dataset: str, protocol: str) -> list[str]:
    runs = [run for arm in arms for run in arm.runs]
    notes = [
        "Percent; mean ± population std over the splits (the seeds of a split are averaged first). Std of groups, the "
        "spread of Many, Medium and Few, and Std of classes are better when lower.",
        f"{GROUP_CONVENTIONS[runs[0].evaluation.group_convention]} Always the counts of the long-tailed set D_i.",
    ]
    if differences := _unlike_published(arms, dataset, protocol):
        notes.append(f"NOT comparable with the published rows: {'; '.join(differences)}.")
    if confounds := _confounds(arms):
        notes.append(f"These arms differ in more than the method: {'; '.join(confounds)}.")
    if len({frozenset(run.split_number for run in arm.runs) for arm in arms}) > 1:
        notes.append("The arms cover different splits: their means are not of the same images.")
    sources = {
        run.split_number: f"split {run.split_number}: {run.split['source']}, fingerprint {run.split['fingerprint']}"
        for run in sorted(runs, key=lambda run: run.split_number)
    }
    return [*notes, f"Images: {'; '.join(sources.values())}."]


_COMPETITOR = ("norms", "prune_ratio", "random_share", "prunable", "dropout", "stale")
_THE_METHOD = {f"method.{name}" for name in ("name", *_COMPETITOR)}


def _passes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """method.passes for a method without that setting: each branch of SDCLR is a separate pass."""
    return {"method.passes": "separate" if "method.norms" in settings else "joint"}


def _confounds(arms: Sequence[Arm]) -> list[str]:
    """Settings in which the arms differ, apart from the competitor and the subset trained on."""
    settings = [{**_passes(arm.runs[0].settings), **arm.runs[0].settings} for arm in arms]
    names = [
        name
        for name in differing_settings(settings)
        if name not in _THE_METHOD | {"data.subset", "recipe"}
    ]
    return [
        f"{name} {' and '.join(dict.fromkeys(setting_text(mine.get(name)) for mine in settings))}"
        for name in names
    ]


def _published_settings(dataset: str, arm: tuple[str, str]) -> dict[str, Any]:
    """The settings that determine the numbers of a published arm, by dotted name, from its recipe. For an unpublished
    arm, those that all arms of its data set share."""
    published = {
        known for (name, _), rows in PUBLISHED.items() if name == dataset for known in rows
    }
    method, subset = arm if arm in published else ("simclr", "long_tail")
    system = "simclr_balanced" if subset == "balanced" else method
    settings = flatten(recipe(SYSTEMS[dataset][system]).to_dict())
    compared = ("optimizer.", "backbone.", "views.", *(("method.",) if arm in published else ()))
    unused = {"method.name"} if settings["views.blur"] else {"method.name", "views.blur_sigma"}
    return {
        name: value
        for name, value in settings.items()
        if (name.startswith(compared) or name in ("epochs", "batch_size", "weights"))
        and name not in unused
    }


def _unlike_published(arms: Sequence[Arm], dataset: str, protocol: str) -> list[str]:
    """Differences between these runs and the published ones, in words; empty for a data set without published rows."""
    if dataset not in GROUPS:
        return []
    found = (
        [f"their protocol is {PROTOCOLS[0]}, this one {protocol}"]
        if protocol not in PROTOCOLS
        else []
    )
    if {run.evaluation.group_convention for arm in arms for run in arm.runs} != {GROUPS[dataset]}:
        found.append(f"their groups are {GROUPS[dataset]}")
    if any(run.split["source"] != "authors' lists" for arm in arms for run in arm.runs):
        found.append("their splits are the authors' lists, some of these generated")
    differences: dict[str, list[str]] = {}
    for arm in arms:
        theirs = _published_settings(dataset, _key(arm))
        ours = arm.runs[0].settings
        for name, value in theirs.items():
            if ours.get(name, value) != value:
                differences.setdefault(f"{name} {setting_text(value)} there", []).append(
                    setting_text(ours[name])
                )
    found += [
        f"{theirs}, {' and '.join(dict.fromkeys(ours))} here"
        for theirs, ours in differences.items()
    ]
    return found
