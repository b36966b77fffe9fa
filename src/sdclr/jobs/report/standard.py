"""JOB run folders -> one report: a table on the terminal, Markdown, CSV, a self-contained HTML page.

C classes. Reads only what the other jobs have written (config.yaml, split.json, environment.json, metrics.jsonl,
evaluation/<protocol>.json); trains and evaluates nothing. Accuracies are fractions until ``presentation`` prints them.
"""

from __future__ import annotations

import math
import os
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from sdclr.backbones.config import settings_without_effect
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation.balancedness import (
    GroupConvention,
    class_groups,
    paired_difference,
)
from sdclr.evaluation.probes import PROBES
from sdclr.jobs.report.arms import (
    Arm,
    differing_settings,
    probe_headings,
    read_arms,
    setting_text,
    source_name,
)
from sdclr.jobs.report.curves import gathered
from sdclr.jobs.report.details import duration, read_competitor
from sdclr.jobs.report.files import FileFormat, build_and_deliver
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.jobs.report.unlabelled import (
    build_unlabelled_report,
    has_own_images,
    read_without_labels,
)
from sdclr.mean_std import MeanStd
from sdclr.presentation import evaluated, html, paper_table, tables
from sdclr.presentation.competitor import Competitor
from sdclr.presentation.evaluated import EvaluatedReport
from sdclr.presentation.report import (
    COLUMNS,
    CURVES,
    ArmBars,
    ClassBars,
    ClassRow,
    Comparison,
    Curves,
    Fact,
    Glance,
    Report,
    Row,
    RunRecord,
    SplitCounts,
)
from sdclr.presentation.report_json import JSON_MARK, to_json
from sdclr.presentation.unlabelled import (
    CSV_HEADER,
    UnlabelledReport,
    UnlabelledRun,
    render_terminal,
    to_csv,
    to_markdown,
)
from sdclr.run import Run
from sdclr.safe_text import command, counted, first_of, shown
from sdclr.storage.durable_files import storage_errors
from sdclr.storage.output_files import begins_with, lexists

COMPARED = ("all", "few", "group_std")


def build_report(
    runs: Sequence[Path | str], protocol: str | None = None, groups: GroupConvention | None = None
) -> Report:
    """Gather evaluated runs into one report.

    Runs whose configs are equal but for seed, split, device and paths are one arm. Several seeds of one split are
    averaged first, then the splits: every mean and population std is over splits, and n counts splits. Where all runs
    are of one split, as those of somebody's own images are, it is over seeds, and n counts these.
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
            f"no probe has a result in {folders[0].path}; run `{command('sdclr', 'evaluate', folders[0].path)}` first."
        )
    comparisons = [
        c for probe in probes for arm in arms[1:] for c in _comparisons(arms[0], arm, probe)
    ]
    return Report(
        title=f"{' against '.join(dict.fromkeys(arm.method for arm in arms))} on {_source(folders)}",
        description=_description(arms, protocol),
        group_convention=folders[0].evaluation.group_convention,
        dataset=folders[0].evaluation.dataset,
        protocol=protocol,
        chance=_chance(folders),
        arms=[arm.label for arm in arms],
        probes=headings,
        rows=[_row(arm, probe) for probe in probes for arm in arms if arm.repeats(probe)],
        comparisons=comparisons,
        facts=_facts(arms, protocol),
        probe_details={probe: _probe_detail(folders, probe) for probe in probes},
        bars=[_class_bars(arms, probe) for probe in probes],
        curves=_curves(arms),
        class_names=folders[0].split["class_names"],
        splits=_splits(folders),
        over=arms[0].over,
        runs=[_record(arm, run) for arm in arms for run in arm.runs],
        versions={
            key: _joined(folders, key)
            for key in ("sdclr", "torch", "torchvision", "numpy", "python")
        },
        classes=_class_rows(folders[0], probes) if len(folders) == 1 else [],
        glance=_glance(arms, comparisons),
        competitors=_competitors(arms) if len(folders) > 1 else {},  # else its details have it
    )


def write_report(
    runs: Sequence[Path | str],
    formats: set[str],
    out: Path | None = None,
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    console: Console | None = None,
    *,
    overwrite: bool = False,
    ours: bool = False,
    only_numbers: bool = False,
    why_missing: Mapping[str, Mapping[str, str]] | None = None,
) -> Report | UnlabelledReport:
    """Build the report and deliver it in each of ``formats``: "terminal", "markdown", "csv", "json", "html".

    Of runs of which none was evaluated it shows what needs no labels; their :func:`~sdclr.jobs.examine.examine` brings
    the measurements and pictures. Of evaluated runs on somebody's own images it shows that below the numbers, unless
    ``only_numbers``. Evaluated runs and others do not go into one report. An evaluation that is damaged is left out
    with a warning where the runs have no other. The page of a single run shows that of any run, and of what it lacks
    says what brings it; ``why_missing`` (run folder -> section -> words) why it could not be made.

    Markdown, CSV and JSON are printed unless ``out`` is given; HTML goes to ``out``, else to RUN/report.html, for
    several runs to report.html in the folder that holds them. ``out`` may be a folder; with several file formats it
    lends its name and each format its suffix, in place of that of another format. A file of the user's that exists is
    a ConfigError, unless ``overwrite``; a page of ours under a default name, in a run folder, or with ``ours`` under
    any name, is replaced. Raises StorageError where a file cannot be written.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["linear", "knn"])
    >>> report = sdclr.write_report([run], {"html"}, out=Path("report.html"), overwrite=True)
    html report: report.html
    """
    if not runs:
        raise ConfigError("report needs at least one run folder.")
    if out is None and "html" in formats and not overwrite:
        _require_same_runs(_usual_page(runs), runs)
    if protocol is None and not _are_evaluated(runs):
        return build_and_deliver(
            lambda: build_unlabelled_report(runs, why_missing),
            formats,
            render_terminal,
            _unlabelled_files(_usual_page(runs)),
            out,
            console,
            overwrite=overwrite,
            ours=ours,
        )

    def build() -> EvaluatedReport:
        numbers = build_report(runs, protocol, groups)
        parts = [] if only_numbers else _own_parts(runs, numbers, why_missing or {})
        return EvaluatedReport(numbers, parts)

    delivered = build_and_deliver(
        build,
        formats,
        evaluated.render_terminal,
        _evaluated_files(_usual_page(runs)),
        out,
        console,
        overwrite=overwrite,
        ours=ours,
    )
    return delivered.numbers


def _usual_page(runs: Sequence[Path | str]) -> Path:
    """Where the page goes unless somebody says so: into the run, or the folder that holds the runs."""
    folders = [Path(os.path.realpath(run)) for run in runs]
    if len(folders) == 1:
        return folders[0] / "report.html"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / "report.html"


HEAD_CHARACTERS = 2000
"""Of a page: what it is of stands among its first."""


def _require_same_runs(page: Path, runs: Sequence[Path | str]) -> None:
    """ConfigError where the page of other runs would be replaced, of `sdclr reproduce` for example."""
    if len(runs) == 1 or not begins_with(page, html.MARK):
        return
    with storage_errors(page), page.open(encoding="utf-8", errors="replace") as file:
        theirs = html.runs_of_page(file.read(HEAD_CHARACTERS))
    if theirs not in (None, html.digest_of_runs(runs)):
        raise ConfigError(
            f"{shown(page)} is the report of other runs. Give --out FILE, or --overwrite to replace it."
        )


def _unlabelled_files(page: Path) -> dict[str, FileFormat[UnlabelledReport]]:
    return {
        "markdown": FileFormat(".md", to_markdown, tables.MARKDOWN_MARK),
        "csv": FileFormat(".csv", to_csv, ",".join(CSV_HEADER)),
        "json": FileFormat(".json", to_json, JSON_MARK),
        "html": FileFormat(".html", html.render_unlabelled_html, html.MARK, default=page),
    }


def _evaluated_files(page: Path) -> dict[str, FileFormat[EvaluatedReport]]:
    return {
        "markdown": FileFormat(".md", evaluated.to_markdown, tables.MARKDOWN_MARK),
        "csv": FileFormat(".csv", evaluated.to_csv, ",".join(tables.CSV_HEADER)),
        "json": FileFormat(".json", to_json, JSON_MARK),
        "html": FileFormat(".html", evaluated.render_html, html.MARK, default=page),
    }


def _own_parts(
    runs: Sequence[Path | str], numbers: Report, why: Mapping[str, Mapping[str, str]]
) -> list[UnlabelledRun]:
    """What is shown of each run besides the numbers: of those on somebody's own images, and of a single one."""
    parts = []
    for place in runs:
        run = Run(place)
        if has_own_images(run) or (len(runs) == 1 and run.backbone_path.is_file()):
            label = numbers.arms[0] if len(runs) == 1 else None
            parts.append(
                read_without_labels(
                    run, protocol=numbers.protocol, why_missing=why.get(str(place)), label=label
                )
            )
    return parts


def _are_evaluated(runs: Sequence[Path | str]) -> bool:
    """Whether there is an evaluation to report; damaged ones count where a sound one is there, too."""
    damage: list[str] = []
    for run in map(Run, runs):
        for protocol in run.evaluated_protocols():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of single probes: whoever shows them says so
                    run.read_evaluation(protocol)
                return True
            except DataError as error:
                damage.append(str(error))
    for line in damage[:3]:
        warnings.warn(f"{line} Until then the report is without it.", stacklevel=3)
    return False


MARKS = {
    ".html": html.MARK,
    ".md": tables.MARKDOWN_MARK,
    ".csv": ",".join(paper_table.CSV_HEADER),
    ".tex": paper_table.LATEX_MARK,
    ".json": JSON_MARK,
}
"""Suffix -> what a file that a workflow writes begins with."""


def require_replaceable(*reports: Path) -> None:
    """ConfigError for a file that exists and is no report of ours: what a workflow checks before hours of work."""
    for path in reports:
        if lexists(path) and not begins_with(path, MARKS[path.suffix]):
            raise ConfigError(
                f"{path} exists and was not written by sdclr; move it away, or choose another --out."
            )


def _competitors(arms: Sequence[Arm]) -> dict[str, Competitor]:
    """Of the first run of each arm that has one to show."""
    found: dict[str, Competitor] = {}
    for arm in arms:
        for run in arm.runs:
            one = read_competitor(Run(run.path))
            if one.layers or one.disagreement is not None:
                found[arm.label] = one
                break
    return found


# Numbers


def _chance(runs: Sequence[RunFolder]) -> float:
    """Accuracy of a guess, its mean where the classes that were left out differ between the runs."""
    chances = [run.evaluation.chance for run in runs]
    return chances[0] if len(set(chances)) == 1 else statistics.fmean(chances)


def _row(arm: Arm, probe: str) -> Row:
    repeats = arm.summaries(probe).values()
    values = {
        column.key: MeanStd.over([getattr(one, column.key) for one in repeats])
        for column in COLUMNS
    }
    return Row(probe, arm.label, len(repeats), values)


def _comparisons(baseline: Arm, arm: Arm, probe: str) -> list[Comparison]:
    """``arm`` against ``baseline`` over the splits, or seeds, that both have, for each compared quantity."""
    results = []
    for key in COMPARED:
        a, b = (
            _known({s: getattr(one, key) for s, one in x.summaries(probe).items()})
            for x in (baseline, arm)
        )
        if not a or not b:
            continue
        found = paired_difference(a, b, confidence=0.95)
        interval = (found.mean, found.low, found.high) if found else None
        shared = a.keys() & b.keys()
        single = b[min(shared)] - a[min(shared)] if len(shared) == 1 else None
        results.append(
            Comparison(
                probe, key, baseline.label, arm.label, len(shared), interval, single, arm.over
            )
        )
    return results


def _known(values: Mapping[int, float]) -> dict[int, float]:
    """Without the splits in which the group of classes is empty."""
    return {split: value for split, value in values.items() if not math.isnan(value)}


def _class_bars(arms: Sequence[Arm], probe: str) -> ClassBars:
    """Accuracy by rank of the training count: the class behind a rank differs from split to split."""
    bars, counts_by_run, runs = [], [], []
    for arm in arms:
        per_repeat = []
        for seeds in arm.repeats(probe).values():
            counts = np.asarray(seeds[0].evaluation.train_counts)
            # the reverse of class_groups' ascending order, so that ranks and groups agree where counts are equal
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
    if len(runs) == 1:  # of several splits each has another class at a rank
        evaluation = runs[0].evaluation
        order = np.argsort(np.asarray(evaluation.train_counts), kind="stable")[::-1]
        classes = [evaluation.class_names[index] for index in order.tolist()]
    return ClassBars(probe, counts.tolist(), names, _chance(runs), bars, classes)


def _curves(arms: Sequence[Arm]) -> list[Curves]:
    """Each curve of the table, with the arms whose runs have all logged it."""
    runs = [run for arm in arms for run in arm.runs]
    known = [run.share_of_few for run in runs if run.share_of_few is not None]
    few = statistics.mean(known) if len(known) == len(runs) else None
    logged = {arm.label: [run.metrics for run in arm.runs] for arm in arms}
    return gathered(CURVES.values(), logged, few, with_marks=len(runs) == 1)


def _class_rows(run: RunFolder, probes: Sequence[str]) -> list[ClassRow]:
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


def _glance(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> Glance | None:
    """Of several runs: the difference of all classes by the first probe, in a sentence for each arm."""
    runs = [run for arm in arms for run in arm.runs]
    if len(runs) == 1:
        return None
    first = [c for c in comparisons if c.measure == "all" and c.probe == comparisons[0].probe]
    said = [f"{c.arm} against {c.baseline}: {tables.comparison_text(c)}." for c in first]
    kinds = {_direction(c) for c in first}
    counts = runs[0].evaluation.train_counts
    seconds = sum(one.get("seconds") or 0.0 for run in runs for one in run.metrics)
    epochs = " or ".join(dict.fromkeys(setting_text(run.settings.get("epochs")) for run in runs))
    rows = [
        ("What was trained", ", ".join(arm.label for arm in arms)),
        (
            "On what",
            f"{_source(runs)}: {sum(counts):,} images of {len(counts):,} classes, imbalance ratio "
            f"{_imbalance_ratio(counts)}",
        ),
        (
            "How long",
            f"{counted(len(runs), 'run')} of {counted(epochs, 'epoch')}"
            + (f", {duration(seconds)} together" if seconds else "")
            + f", on {_joined(runs, 'device')}",
        ),
    ]
    if not first:
        words = "One arm alone: there is nothing to compare it with."
        return Glance(words, "open", "", rows)
    probe = PROBES[first[0].probe].display_name if first[0].probe in PROBES else first[0].probe
    kind: Literal["good", "bad", "open"] = "open"
    if len(kinds) == 1:
        kind = kinds.pop()
    return Glance(
        f"By the {probe.lower()}, mean over all classes: {' '.join(said)}", kind, "", rows
    )


def _direction(comparison: Comparison) -> Literal["good", "bad", "open"]:
    if comparison.interval is None:
        return "open"
    low, high = (round(100 * end, 2) for end in comparison.interval[1:])
    return "good" if low > 0 else "bad" if high < 0 else "open"


# Words and facts


def _description(arms: Sequence[Arm], protocol: str) -> str:
    """One paragraph: what was trained on which data, how it was read out, on what hardware."""
    settings = [arm.runs[0].settings for arm in arms]
    runs = [run for arm in arms for run in arm.runs]
    words = {
        key: " or ".join(dict.fromkeys(setting_text(mine.get(key)) for mine in settings))
        for key in ("epochs", "data.subset")
    }
    ratios = dict.fromkeys(_imbalance_ratio(run.evaluation.train_counts) for run in runs)
    drawn = f" (subset {words['data.subset']}, imbalance ratio {' or '.join(ratios)})"
    splits = f" over {counted(len({run.split_number for run in runs}), 'split')}"
    seeds = (
        f" over {counted(len({run.seed for run in runs}), 'seed')}"
        if arms[0].over == "seeds"
        else ""
    )
    if all(has_own_images(Run(run.path)) for run in runs):
        drawn = splits = ""
    return (
        f"{', '.join(arm.label for arm in arms)}: {_networks(settings)} "
        f"pre-trained without labels for {counted(words['epochs'], 'epoch')} on {_source(runs)}{drawn}, "
        f"then read out by protocol '{protocol}'. "
        f"{counted(len(runs), 'run')}{seeds or splits}. "
        f"Hardware: {_joined(runs, 'device')}."
        f"{_how_tested(runs)}{_untested(runs)}"
    )


def _source(runs: Sequence[RunFolder]) -> str:
    """What the images of the first run are called; a report has runs on one data set alone."""
    return source_name(runs[0].settings, runs[0].evaluation.dataset)


def _networks(settings: Sequence[Mapping[str, Any]]) -> str:
    """resnet18 (width 64), with the width where a network has one."""
    names: dict[str, None] = {}
    for mine in settings:
        width = _width(mine)
        names[str(mine.get("backbone.name")) + ("" if width is None else f" (width {width})")] = (
            None
        )
    return " or ".join(names)


def _width(settings: Mapping[str, Any]) -> Any:
    """Channels of the first stage; None for a network that has no such setting."""
    return settings.get("backbone.width") if _has_width(settings) else None


def _has_width(settings: Mapping[str, Any]) -> bool:
    return "width" not in settings_without_effect(str(settings.get("backbone.name")))


def _how_tested(runs: Sequence[RunFolder]) -> str:
    """Sentences on labels that came later, and on accuracies without a test set."""
    said: dict[str, None] = {}
    for run in runs:
        if (labels := run.evaluation.labels) is not None:
            share = f"{labels.num_labelled:,} of {labels.num_images:,} images"
            said[f" Labels: {labels.source}, {share}."] = None
        if test := _test_set(run):
            said[f" Test set: {test}."] = None
        if run.evaluation.tested_on == "cross-validation":
            said[
                " Cross-validated: every labelled image is predicted once, by probes that were fitted on others; "
                "pre-training has seen all of them, without labels."
            ] = None
        if (by := run.evaluation.kept_together) is not None:
            said[f" No group of images ({by}) was both learned from and tested on."] = None
    return "".join([*said, _precision(runs)])


def _precision(runs: Sequence[RunFolder]) -> str:
    """A sentence on features in bf16, which names the runs where not all have them; nothing where none has."""
    in_bf16 = [run for run in runs if run.evaluation.features_in == "bf16"]
    if not in_bf16:
        return ""
    if len(in_bf16) == len(runs):
        return " Features were computed in bf16."
    names = ", ".join(str(run.path) for run in in_bf16)
    return f" Features were computed in bf16 in {names}, and in fp32 in the others."


def _test_set(run: RunFolder) -> str:
    """What the test images are called, and how many there are; empty where there are none of somebody's own."""
    if run.settings.get("data.name") != "images" or run.evaluation.tested_on == "cross-validation":
        return ""
    given = run.settings.get("data.test_path")
    if (labels := run.evaluation.labels) is not None:
        name = labels.test_set
    elif given is not None:
        name = Path(str(given)).name
    else:
        name = f"the test folder of {_source([run])}"
    counts = [sum(probe.num_test) for probe in run.evaluation.probes.values() if probe.num_test]
    number = f", {counted(counts[0], 'image')}" if counts else ""
    return f"{name}{number}" if name else ""


def _untested(runs: Sequence[RunFolder]) -> str:
    """A sentence that names the classes which no probe could test; nothing where there are none."""
    names: dict[str, None] = {}
    for run in runs:
        for probe in run.evaluation.probes.values():
            pairs = zip(run.evaluation.class_names, probe.per_class_accuracy, strict=True)
            names |= dict.fromkeys(name for name, accuracy in pairs if accuracy is None)
    if not names:
        return ""
    return f" Not tested, and in no mean: {first_of(list(names))}."


def _imbalance_ratio(counts: Sequence[int]) -> str:
    """Images of the largest class / images of the smallest one, as they are."""
    return f"{max(counts) / min(counts):.4g}" if min(counts) > 0 else "infinite"


def _facts(arms: Sequence[Arm], protocol: str) -> list[Fact]:
    """What a reader must know to judge the numbers, then every other setting in which the arms differ."""
    named = {
        "method.projector_layers": "head depth (layers)",
        "method.norms": "norms",
        "method.temperature": "temperature",
        "method.prune_ratio": "prune ratio",
        "backbone.name": "backbone",
        "backbone.width": "width",
        "epochs": "epochs",
        "batch_size": "batch size",
        "recipe": "recipe",
    }
    settings = [arm.runs[0].settings for arm in arms]
    others = [
        key for key in differing_settings(settings) if key not in named and key != "method.name"
    ]
    shown = [{**mine, "backbone.width": _width(mine)} for mine in settings]
    facts = [
        Fact(name, [setting_text(mine.get(key)) for mine in shown]) for key, name in named.items()
    ]
    facts += [Fact(key, [setting_text(mine.get(key)) for mine in settings]) for key in others]
    if any(prunable := [_prunable(arm) for arm in arms]):
        facts.append(Fact("prunable backbone weights", [text or "-" for text in prunable]))
    features = [" and ".join(dict.fromkeys(_features_in(run) for run in arm.runs)) for arm in arms]
    if set(features) != {"fp32"}:
        facts.append(Fact("features in", features))
    facts += [
        Fact("protocol", [protocol] * len(arms)),
        _num_runs(arms),
        Fact("views/s (median over epochs)", [_views_per_second(arm) for arm in arms]),
        Fact("hardware", [_joined(arm.runs, "device") for arm in arms]),
    ]
    return facts


def _prunable(arm: Arm) -> str:
    """The share of all backbone weights that the competitor may be pruned of, and the layers that hold them."""
    texts: dict[str, None] = {}
    for run in arm.runs:
        resolved = run.environment.get("resolved") or {}
        share, layers = resolved.get("prunable_share"), resolved.get("prunable")
        if share is not None:
            texts[f"{share:.1%} ({layers})"] = None
    return "; ".join(texts)


def _features_in(run: RunFolder) -> str:
    return run.evaluation.features_in or "fp32"


def _views_per_second(arm: Arm) -> str:
    speeds = [
        m["views_per_second"]
        for run in arm.runs
        for m in run.metrics
        if m.get("views_per_second") is not None
    ]
    return f"{statistics.median(speeds):,.0f}" if speeds else "-"


def _joined(runs: Sequence[RunFolder], key: str) -> str:
    """The distinct values of an environment entry."""
    return "; ".join(dict.fromkeys(setting_text(run.environment.get(key)) for run in runs))


def _probe_detail(runs: Sequence[RunFolder], probe: str) -> str:
    found = [run.evaluation.probes[probe].detail for run in runs if probe in run.evaluation.probes]
    details = list(dict.fromkeys(filter(None, found)))
    # where runs differ, the evaluation files say how
    return details[0] if len(details) == 1 else ""


def _num_runs(arms: Sequence[Arm]) -> Fact:
    """How many runs an arm has, and over how many splits or seeds."""
    repeats = [
        {run.seed if arm.over == "seeds" else run.split_number for run in arm.runs} for arm in arms
    ]
    words = [f"{len(arm.runs)} ({len(one)})" for arm, one in zip(arms, repeats, strict=True)]
    return Fact(f"runs ({arms[0].over})", words)


def _splits(runs: Sequence[RunFolder]) -> list[SplitCounts]:
    first = {
        run.split_number: run.split
        for run in sorted(runs, key=lambda run: run.split_number, reverse=True)
    }
    return [
        SplitCounts(number, s["name"], s["seed"], s["source"], s["fingerprint"], s["counts"])
        for number, s in sorted(first.items())
    ]


def _record(arm: Arm, run: RunFolder) -> RunRecord:
    environment = {
        key: str(run.environment.get(key) or "") for key in ("command", "commit", "created")
    }
    return RunRecord(str(run.path), arm.label, run.split_number, run.seed, **environment)
