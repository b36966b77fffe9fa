"""JOB run folders -> one report: a table on the terminal, Markdown, CSV, a self-contained HTML page.

C classes. Reads only what the other jobs have written (config.yaml, split.json, environment.json, metrics.jsonl,
evaluation/<protocol>.json); trains and evaluates nothing. Accuracies are fractions until ``presentation`` prints them.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sdclr.errors import ConfigError, DataError, MissingInputError, StorageError
from sdclr.evaluation.balancedness import (
    Balancedness,
    GroupConvention,
    balancedness,
    class_groups,
    over_splits,
    paired_difference,
)
from sdclr.presentation import html, tables
from sdclr.presentation.tables import (
    ArmBars,
    ArmCurves,
    ClassBars,
    Comparison,
    Estimate,
    Fact,
    Report,
    Row,
    RunRecord,
    SplitCounts,
)
from sdclr.run import Run

METHOD_NAMES = {"simclr": "SimCLR", "sdclr": "SDCLR"}

FORMATS = {"markdown": ".md", "csv": ".csv", "html": ".html"}
"""Formats that can be files, and their suffix. "terminal" is the fourth format."""

COMPARED = ("all", "few", "group_std")
_NOT_THE_ARM = ("seed", "device", "data.split", "data.path", "data.splits_dir")  # may differ among the runs of an arm


@dataclass(frozen=True)
class RunFolder:
    """What one run has left on disk."""

    path: Path
    settings: Mapping[str, Any]
    """config.yaml, flattened: "method.prune_ratio" -> 0.9."""
    split: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    """One entry an epoch, in order."""
    evaluation: Mapping[str, Any]

    @property
    def split_number(self) -> int:
        return int(self.evaluation["split"]["number"])

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])


@dataclass(frozen=True)
class Arm:
    """Runs of one configuration that differ only in split and seed."""

    label: str
    runs: Sequence[RunFolder]

    @property
    def method(self) -> str:
        return _method_name(self.runs[0].settings)

    def summaries(self, probe: str) -> dict[int, Balancedness]:
        """Split number -> balancedness, averaged over the seeds of a split."""
        return {
            number: _mean_balancedness([_balancedness(run, probe) for run in runs])
            for number, runs in self.by_split(probe).items()
        }

    def by_split(self, probe: str) -> dict[int, list[RunFolder]]:
        """Split number -> its runs (seeds) that have this probe."""
        splits: dict[int, list[RunFolder]] = {}
        for run in sorted(self.runs, key=lambda run: (run.split_number, run.seed)):
            if probe in run.evaluation["probes"]:
                splits.setdefault(run.split_number, []).append(run)
        return splits


def build_report(
    runs: Sequence[Path | str], protocol: str | None = None, groups: GroupConvention | None = None
) -> Report:
    """Gather evaluated runs into one report.

    Runs whose configs are equal but for seed, split, device and paths are one arm. Several seeds of one split are
    averaged first, then the splits: every mean and population std is over splits, and n counts splits.
    The first arm is the baseline of the paired comparisons. ``groups``: ``thirds`` or ``thresholds`` instead of the
    data set's own convention.

    Raises MissingInputError for a folder that is missing, is no run or was never evaluated, and ConfigError for runs
    whose numbers do not belong in one table: another data set, another split under the same number, the same split and
    seed twice, or several protocols with none chosen.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise ConfigError("report needs at least one run folder.")
    protocol = _common_protocol(paths, protocol)
    folders = [_read_run(path, protocol, groups) for path in paths]
    _check_comparable(folders)
    arms = _arms(folders)
    probes = [probe for probe in tables.PROBES if any(arm.by_split(probe) for arm in arms)]
    if not probes:
        raise MissingInputError(f"no probe has a result in {paths[0]}; run `sdclr evaluate {paths[0]}` first.")
    return Report(
        title=f"{' against '.join(dict.fromkeys(arm.method for arm in arms))} on {folders[0].evaluation['dataset']}",
        description=_description(arms, protocol),
        group_convention=folders[0].evaluation["group_convention"],
        dataset=str(folders[0].evaluation["dataset"]),
        protocol=protocol,
        chance=float(folders[0].evaluation["chance"]),
        arms=[arm.label for arm in arms],
        rows=[_row(arm, probe) for probe in probes for arm in arms if arm.by_split(probe)],
        comparisons=[c for probe in probes for arm in arms[1:] for c in _comparisons(arms[0], arm, probe)],
        facts=_facts(arms, protocol),
        probe_details={probe: _probe_detail(folders, probe) for probe in probes},
        bars=[_class_bars(arms, probe) for probe in probes],
        losses=_curves(arms, "loss"),
        mask_churns=_curves(arms, "mask_churn"),
        class_names=folders[0].split["class_names"],
        splits=_splits(folders),
        runs=[_record(arm, run) for arm in arms for run in arm.runs],
        versions={key: _joined(folders, key) for key in ("sdclr", "torch", "torchvision", "numpy", "python")},
    )


def write_report(
    runs: Sequence[Path | str],
    formats: set[str],
    out: Path | None = None,
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    console: Console | None = None,
) -> Report:
    """Build the report and deliver it in each of ``formats``: "terminal", "markdown", "csv", "html".

    Markdown and CSV are printed unless ``out`` is given; HTML goes to ``out``, else to RUN/report.html, for several
    runs to report.html in the folder that holds them. ``out`` may be a folder; with several file formats it lends its
    name and each format its suffix. Raises StorageError where a file cannot be written.
    """
    unknown = formats - {"terminal", *FORMATS}
    if unknown:
        raise ConfigError(f"unknown report format {min(unknown)!r}; choose from terminal, {', '.join(FORMATS)}.")
    report = build_report(runs, protocol, groups)
    console = console or Console()
    if "terminal" in formats:
        tables.render_terminal(report, console)
    renderers: dict[str, Callable[[Report], str]] = {
        "markdown": tables.to_markdown,
        "csv": tables.to_csv,
        "html": html.render_html,
    }
    files = [name for name in FORMATS if name in formats]
    for name in files:
        text, target = renderers[name](report), _target(runs, out, name, alone=len(files) == 1)
        if target is None:
            console.file.write(text)
        else:
            _write(target, text)
            console.print(f"{name} report: {target}", markup=False, highlight=False, soft_wrap=True)
    return report


def _target(runs: Sequence[Path | str], out: Path | None, name: str, alone: bool) -> Path | None:
    """The file for one format, None for standard output."""
    if out is not None and out.is_dir():
        return out / f"report{FORMATS[name]}"
    if out is not None:
        return out if alone else out.with_suffix(FORMATS[name])
    if name != "html":
        return None
    folders = [Path(run).resolve() for run in runs]
    return (folders[0] if len(folders) == 1 else Path(os.path.commonpath([f.parent for f in folders]))) / "report.html"


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write the report to {target}: {error}. Choose another place with --out.") from None


# Reading


def _common_protocol(paths: Sequence[Path], wanted: str | None) -> str:
    """The protocol that every run was evaluated with. Protocols never mix in one table."""
    found = {}
    for path in paths:
        if not path.is_dir():
            raise MissingInputError(f"run folder {path} does not exist.")
        Run(path).require()
        found[path] = {file.stem for file in (path / "evaluation").glob("*.json")}
        if not found[path]:
            raise MissingInputError(f"{path} has no evaluation; run `sdclr evaluate {path}` first.")
    if wanted is not None:
        for path, have in found.items():
            if wanted not in have:
                raise MissingInputError(
                    f"{path} has no evaluation under protocol {wanted!r}, only {', '.join(sorted(have))}; "
                    f"run `sdclr evaluate {path} --protocol {wanted}` first."
                )
        return wanted
    shared = set.intersection(*found.values())
    if not shared:
        each = "; ".join(f"{path}: {', '.join(sorted(have))}" for path, have in found.items())
        raise ConfigError(
            f"the runs share no evaluation protocol ({each}). `sdclr evaluate RUN --protocol ...` adds one."
        )
    if len(shared) > 1:
        raise ConfigError(f"the runs have several protocols: {', '.join(sorted(shared))}; choose with --protocol.")
    return shared.pop()


def _read_run(path: Path, protocol: str, groups: GroupConvention | None) -> RunFolder:
    run = Run(path)
    name = str(run.evaluation_path(protocol).relative_to(path))
    evaluation = run.read_json(name, "dataset", "group_convention", "train_counts", "split", "chance", "probes")
    return RunFolder(
        path=path,
        settings=_flatten(run.settings()),
        split=run.read_json("split.json", "class_names", "counts", "fingerprint"),
        environment=run.read_json("environment.json"),
        metrics=run.metrics(),
        evaluation=evaluation | ({"group_convention": groups} if groups else {}),
    )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


# Arms


def _check_comparable(runs: Sequence[RunFolder]) -> None:
    """Raise ConfigError where the numbers of two runs would not be comparable."""
    first = runs[0]
    for run in runs[1:]:
        for key, what in (("dataset", "data sets"), ("group_convention", "group conventions")):
            if run.evaluation[key] != first.evaluation[key]:
                raise ConfigError(
                    f"{first.path} and {run.path} were evaluated on different {what}, {first.evaluation[key]!r} and "
                    f"{run.evaluation[key]!r}: their numbers are not comparable. Report them separately."
                )
    for a, b in combinations(runs, 2):
        prints = [run.evaluation["split"]["fingerprint"] for run in (a, b)]
        if a.split_number == b.split_number and prints[0] != prints[1]:
            raise ConfigError(
                f"{a.path} and {b.path} both name split {a.split_number}, but their images differ (fingerprints "
                f"{prints[0][:12]} and {prints[1][:12]}): their numbers are not comparable. Report them separately."
            )


def _arms(runs: Sequence[RunFolder]) -> list[Arm]:
    """Group the runs, in the order given, and name each group so that no two names are equal."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        same = {key: value for key, value in run.settings.items() if key not in _NOT_THE_ARM and value is not None}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        for a, b in combinations(group, 2):
            if (a.split_number, a.seed) == (b.split_number, b.seed):
                raise ConfigError(
                    f"{a.path} and {b.path} are the same thing twice: same settings, split {a.split_number} and "
                    f"seed {a.seed}. Give one of them."
                )
    settings = [group[0].settings for group in groups.values()]
    return [Arm(_label(mine, settings), group) for mine, group in zip(settings, groups.values(), strict=True)]


def _label(mine: Mapping[str, Any], everyone: Sequence[Mapping[str, Any]]) -> str:
    """The method's name, and where several arms share the method the settings in which they differ."""
    name = _method_name(mine)
    fields = _differing([settings for settings in everyone if _method_name(settings) == name])
    last = [field.rpartition(".")[2] for field in fields]
    words = [
        f"{leaf if leaf != 'name' and last.count(leaf) == 1 else field} {_text(mine.get(field))}"
        for field, leaf in zip(fields, last, strict=True)
    ]
    return f"{name} ({', '.join(words)})" if words else name


def _method_name(settings: Mapping[str, Any]) -> str:
    """As the paper writes it."""
    return METHOD_NAMES.get(settings["method.name"], str(settings["method.name"]))


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted names of the settings in which some arms differ."""
    names = dict.fromkeys(key for mine in settings for key in mine if key not in _NOT_THE_ARM)
    return [key for key in names if any(mine.get(key) != settings[0].get(key) for mine in settings)]


def _text(value: Any) -> str:
    """A setting in a few characters; "-" where the arm has no such setting."""
    return "-" if value is None else str(value)


# Numbers


def _balancedness(run: RunFolder, probe: str) -> Balancedness:
    found = run.evaluation
    try:
        return balancedness(
            found["probes"][probe]["per_class_accuracy"], found["train_counts"], found["group_convention"]
        )
    except DataError as error:
        raise DataError(f"{run.path / 'evaluation'}, probe {probe}: {error}") from None


def _mean_balancedness(seeds: Sequence[Balancedness]) -> Balancedness:
    fields = [asdict(one) for one in seeds]
    return Balancedness(**{key: float(np.mean([one[key] for one in fields])) for key in fields[0]})


def _row(arm: Arm, probe: str) -> Row:
    splits = arm.summaries(probe).values()
    values = {
        column.key: Estimate(**asdict(over_splits([getattr(one, column.key) for one in splits])))
        for column in tables.COLUMNS
    }
    return Row(probe, arm.label, len(splits), values)


def _comparisons(baseline: Arm, arm: Arm, probe: str) -> list[Comparison]:
    """``arm`` against ``baseline`` over the splits that both have, for each compared quantity."""
    results = []
    for key in COMPARED:
        a, b = (_known({s: getattr(one, key) for s, one in x.summaries(probe).items()}) for x in (baseline, arm))
        if not a or not b:
            continue
        found = paired_difference(a, b, confidence=0.95)
        interval = (found.mean, found.low, found.high) if found else None
        results.append(Comparison(probe, key, baseline.label, arm.label, len(a.keys() & b.keys()), interval))
    return results


def _known(values: Mapping[int, float]) -> dict[int, float]:
    """Without the splits in which the group of classes is empty."""
    return {split: value for split, value in values.items() if not math.isnan(value)}


def _class_bars(arms: Sequence[Arm], probe: str) -> ClassBars:
    """Accuracy by rank of the training count: the class behind a rank differs from split to split."""
    bars, counts_by_run, runs = [], [], []
    for arm in arms:
        per_split = []
        for seeds in arm.by_split(probe).values():
            counts = np.asarray(seeds[0].evaluation["train_counts"])
            # the reverse of class_groups' ascending order, so that ranks and groups agree where counts are equal
            order = np.argsort(counts, kind="stable")[::-1]
            accuracy = np.mean([run.evaluation["probes"][probe]["per_class_accuracy"] for run in seeds], axis=0)
            per_split.append(accuracy[order])
            counts_by_run.append(counts[order])
            runs += seeds
        if per_split:
            mean, std = np.mean(per_split, axis=0), np.std(per_split, axis=0)
            bars.append(ArmBars(arm.label, mean.tolist(), std.tolist(), len(per_split)))
    counts = np.rint(np.mean(counts_by_run, axis=0)).astype(int)
    groups = class_groups(counts.tolist()[::-1], runs[0].evaluation["group_convention"])
    group_of = {len(counts) - 1 - index: name for name, members in groups.items() for index in members}
    names = [group_of[rank] for rank in range(len(counts))]
    return ClassBars(probe, counts.tolist(), names, float(runs[0].evaluation["chance"]), bars)


def _curves(arms: Sequence[Arm], key: str) -> list[ArmCurves]:
    """The arms whose runs have logged ``key``."""
    curves = []
    for arm in arms:
        runs = [[(int(m["epoch"]), float(m[key])) for m in run.metrics if key in m] for run in arm.runs]
        if all(runs):
            curves.append(ArmCurves(arm.label, runs))
    return curves


# Words and facts


def _description(arms: Sequence[Arm], protocol: str) -> str:
    """One paragraph: what was trained on which data, how it was read out, on what hardware."""
    settings = [arm.runs[0].settings for arm in arms]
    runs = [run for arm in arms for run in arm.runs]
    words = {
        key: " or ".join(dict.fromkeys(_text(mine.get(key)) for mine in settings))
        for key in ("backbone.name", "backbone.width", "epochs", "data.subset", "data.imbalance_ratio")
    }
    return (
        f"{', '.join(arm.label for arm in arms)}: {words['backbone.name']} (width {words['backbone.width']}) "
        f"pre-trained without labels for {words['epochs']} epochs on {runs[0].evaluation['dataset']} "
        f"(subset {words['data.subset']}, imbalance ratio {words['data.imbalance_ratio']}), "
        f"then read out by protocol '{protocol}'. "
        f"{_counted(len(runs), 'run')} over {_counted(len({run.split_number for run in runs}), 'split')}. "
        f"Hardware: {_joined(runs, 'device')}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    others = [key for key in _differing(settings) if key not in named and key != "method.name"]
    facts = [Fact(name, [_text(mine.get(key)) for mine in settings]) for key, name in named.items()]
    facts += [Fact(key, [_text(mine.get(key)) for mine in settings]) for key in others]
    facts += [
        Fact("protocol", [protocol] * len(arms)),
        Fact("runs (splits)", [f"{len(a.runs)} ({len({r.split_number for r in a.runs})})" for a in arms]),
        Fact("views/s (median over epochs)", [_views_per_second(arm) for arm in arms]),
        Fact("hardware", [_joined(arm.runs, "device") for arm in arms]),
    ]
    return facts


def _views_per_second(arm: Arm) -> str:
    speeds = [m["views_per_second"] for run in arm.runs for m in run.metrics if "views_per_second" in m]
    return f"{statistics.median(speeds):,.0f}" if speeds else "-"


def _joined(runs: Sequence[RunFolder], key: str) -> str:
    """The distinct values of an environment entry."""
    return "; ".join(dict.fromkeys(_text(run.environment.get(key)) for run in runs))


def _probe_detail(runs: Sequence[RunFolder], probe: str) -> str:
    probes = [run.evaluation["probes"].get(probe, {}) for run in runs]
    details = list(dict.fromkeys(p["detail"] for p in probes if p.get("detail")))
    return details[0] if len(details) == 1 else ""  # where runs differ, the evaluation files say how


def _splits(runs: Sequence[RunFolder]) -> list[SplitCounts]:
    first = {run.split_number: run.split for run in sorted(runs, key=lambda run: run.split_number, reverse=True)}
    return [
        SplitCounts(number, s["name"], s["seed"], s["source"], s["fingerprint"], s["counts"])
        for number, s in sorted(first.items())
    ]


def _record(arm: Arm, run: RunFolder) -> RunRecord:
    environment = {key: str(run.environment.get(key) or "") for key in ("command", "commit", "created")}
    return RunRecord(str(run.path), arm.label, run.split_number, run.seed, **environment)
