"""The text of a report of evaluated runs: its description, its first glance, the facts beside its numbers.

Measures and compares nothing: comparisons are passed in.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sdclr.backbones.config import settings_without_effect
from sdclr.evaluation.probes import PROBES
from sdclr.jobs.report.arms import Arm, differing_settings, setting_text, source_name
from sdclr.jobs.report.details import counts_trained_on, duration
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.jobs.report.unlabelled import has_own_images
from sdclr.presentation import tables
from sdclr.presentation.report import Comparison, Fact, Glance, RunRecord
from sdclr.run import Run
from sdclr.safe_text import counted, first_of


def description(arms: Sequence[Arm], protocol: str) -> str:
    """One paragraph: what was trained on which data, how it was read out, on what hardware."""
    settings = [arm.runs[0].settings for arm in arms]
    runs = [run for arm in arms for run in arm.runs]
    words = {
        key: " or ".join(dict.fromkeys(setting_text(mine.get(key)) for mine in settings))
        for key in ("epochs", "data.subset")
    }
    ratios = dict.fromkeys(_imbalance_ratio(run.evaluation.train_counts) for run in runs)
    ratio = f"imbalance ratio {' or '.join(ratios)}"
    by_tail = ""
    if any(_trained_on_others(run) for run in runs):
        by_tail = f" Classes are grouped by their images in the long tail ({ratio}), whatever was trained on."
    drawn = f" (subset {words['data.subset']})"
    if not by_tail:
        drawn = f" (subset {words['data.subset']}, {ratio})"
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
        f"pre-trained without labels for {counted(words['epochs'], 'epoch')} on {source_of(runs)}{drawn}, "
        f"then read out by protocol '{protocol}'. "
        f"{counted(len(runs), 'run')}{seeds or splits}. "
        f"Hardware: {environment_values(runs, 'device')}."
        f"{_how_tested(runs)}{_untested(runs)}{by_tail}"
    )


def _trained_on_others(run: RunFolder) -> bool:
    """Whether the run trained on other images than the long tail, by which classes are counted."""
    in_tail = (run.split.get("counts") or {}).get("long_tail")
    trained_on = counts_trained_on(run.split, run.settings)
    return bool(in_tail and trained_on) and trained_on != in_tail


def _networks(settings: Sequence[Mapping[str, Any]]) -> str:
    """For example "resnet18 (width 64)"; the width is given if a network has one."""
    names: dict[str, None] = {}
    for mine in settings:
        width = _width(mine)
        names[str(mine.get("backbone.name")) + ("" if width is None else f" (width {width})")] = (
            None
        )
    return " or ".join(names)


def _how_tested(runs: Sequence[RunFolder]) -> str:
    """Sentences on labels that were supplied later, and on accuracies without a test set."""
    sentences: dict[str, None] = {}
    for run in runs:
        if (labels := run.evaluation.labels) is not None:
            share = f"{labels.num_labelled:,} of {labels.num_images:,} images"
            sentences[f" Labels: {labels.source}, {share}."] = None
        if test := _test_set(run):
            sentences[f" Test set: {test}."] = None
        if run.evaluation.tested_on == "cross-validation":
            sentences[
                " Cross-validated: every labelled image is predicted once, by probes that were fitted on others; "
                "pre-training has seen all of them, without labels."
            ] = None
        if (by := run.evaluation.kept_together) is not None:
            sentences[f" No group of images ({by}) was both learned from and tested on."] = None
    return "".join([*sentences, _precision(runs)])


def _precision(runs: Sequence[RunFolder]) -> str:
    """A sentence on features in bf16, naming the runs if not all have them; empty if none has."""
    in_bf16 = [run for run in runs if run.evaluation.features_in == "bf16"]
    if not in_bf16:
        return ""
    if len(in_bf16) == len(runs):
        return " Features were computed in bf16."
    names = ", ".join(str(run.path) for run in in_bf16)
    return f" Features were computed in bf16 in {names}, and in fp32 in the others."


def _test_set(run: RunFolder) -> str:
    """What the test images are called, and how many there are; empty unless they are the user's own."""
    if run.settings.get("data.name") != "images" or run.evaluation.tested_on == "cross-validation":
        return ""
    given = run.settings.get("data.test_path")
    if (labels := run.evaluation.labels) is not None:
        name = labels.test_set
    elif given is not None:
        name = Path(str(given)).name
    else:
        name = f"the test folder of {source_of([run])}"
    counts = [sum(probe.num_test) for probe in run.evaluation.probes.values() if probe.num_test]
    number = f", {counted(counts[0], 'image')}" if counts else ""
    return f"{name}{number}" if name else ""


def _untested(runs: Sequence[RunFolder]) -> str:
    """A sentence naming the classes that a probe could not test; empty if there are none."""
    names: dict[str, None] = {}
    for run in runs:
        for probe in run.evaluation.probes.values():
            pairs = zip(run.evaluation.class_names, probe.per_class_accuracy, strict=True)
            names |= dict.fromkeys(name for name, accuracy in pairs if accuracy is None)
    if not names:
        return ""
    return f" Not tested, and in no mean: {first_of(list(names))}."


def glance(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> Glance | None:
    """For several runs: the difference over all classes by the first probe, in a sentence for each arm."""
    runs = [run for arm in arms for run in arm.runs]
    if len(runs) == 1:
        return None
    first = [c for c in comparisons if c.measure == "all" and c.probe == comparisons[0].probe]
    sentences = [f"{c.arm} against {c.baseline}: {tables.comparison_text(c)}." for c in first]
    kinds = {_direction(c) for c in first}
    counts = runs[0].evaluation.train_counts
    seconds = sum(one.get("seconds") or 0.0 for run in runs for one in run.metrics)
    epochs = " or ".join(dict.fromkeys(setting_text(run.settings.get("epochs")) for run in runs))
    rows = [
        ("What was trained", ", ".join(arm.label for arm in arms)),
        (
            "On what",
            f"{source_of(runs)}: {sum(counts):,} images of {len(counts):,} classes, imbalance ratio "
            f"{_imbalance_ratio(counts)}",
        ),
        (
            "How long",
            f"{counted(len(runs), 'run')} of {counted(epochs, 'epoch')}"
            + (f", {duration(seconds)} together" if seconds else "")
            + f", on {environment_values(runs, 'device')}",
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
        f"By the {probe.lower()}, mean over all classes: {' '.join(sentences)}", kind, "", rows
    )


def _direction(comparison: Comparison) -> Literal["good", "bad", "open"]:
    if comparison.interval is None:
        return "open"
    low, high = (round(100 * end, 2) for end in comparison.interval[1:])
    return "good" if low > 0 else "bad" if high < 0 else "open"


def facts(arms: Sequence[Arm], protocol: str) -> list[Fact]:
    """The facts needed to judge the numbers, then every other setting in which the arms differ."""
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
    found = [
        Fact(name, [setting_text(mine.get(key)) for mine in shown]) for key, name in named.items()
    ]
    found += [Fact(key, [setting_text(mine.get(key)) for mine in settings]) for key in others]
    if any(prunable := [_prunable(arm) for arm in arms]):
        found.append(Fact("prunable backbone weights", [text or "-" for text in prunable]))
    features = [" and ".join(dict.fromkeys(_features_in(run) for run in arm.runs)) for arm in arms]
    if set(features) != {"fp32"}:
        found.append(Fact("features in", features))
    found += [
        Fact("protocol", [protocol] * len(arms)),
        _num_runs(arms),
        Fact("views/s (median over epochs)", [_views_per_second(arm) for arm in arms]),
        Fact("hardware", [environment_values(arm.runs, "device") for arm in arms]),
    ]
    return found


def _prunable(arm: Arm) -> str:
    """The share of all backbone weights that the competitor may prune, and the layers that contain them."""
    texts: dict[str, None] = {}
    for run in arm.runs:
        resolved = run.environment.get("resolved") or {}
        share, layers = resolved.get("prunable_share"), resolved.get("prunable")
        if share is not None:
            texts[f"{share:.1%} ({layers})"] = None
    return "; ".join(texts)


def _features_in(run: RunFolder) -> str:
    return run.evaluation.features_in or "fp32"


def _num_runs(arms: Sequence[Arm]) -> Fact:
    """How many runs an arm has, and over how many splits or seeds."""
    repeats = [
        {run.seed if arm.over == "seeds" else run.split_number for run in arm.runs} for arm in arms
    ]
    words = [f"{len(arm.runs)} ({len(one)})" for arm, one in zip(arms, repeats, strict=True)]
    return Fact(f"runs ({arms[0].over})", words)


def _views_per_second(arm: Arm) -> str:
    speeds = [
        m["views_per_second"]
        for run in arm.runs
        for m in run.metrics
        if m.get("views_per_second") is not None
    ]
    return f"{statistics.median(speeds):,.0f}" if speeds else "-"


def run_record(arm: Arm, run: RunFolder) -> RunRecord:
    environment = {
        key: str(run.environment.get(key) or "") for key in ("command", "commit", "created")
    }
    return RunRecord(str(run.path), arm.label, run.split_number, run.seed, **environment)


def probe_detail(runs: Sequence[RunFolder], probe: str) -> str:
    found = [run.evaluation.probes[probe].detail for run in runs if probe in run.evaluation.probes]
    details = list(dict.fromkeys(filter(None, found)))
    # if runs differ, the evaluation files have the details
    return details[0] if len(details) == 1 else ""


def source_of(runs: Sequence[RunFolder]) -> str:
    """What the images of the first run are called; all runs of a report are on one data set."""
    return source_name(runs[0].settings, runs[0].evaluation.dataset)


def environment_values(runs: Sequence[RunFolder], key: str) -> str:
    """The distinct values of an environment entry."""
    return "; ".join(dict.fromkeys(setting_text(run.environment.get(key)) for run in runs))


def _width(settings: Mapping[str, Any]) -> Any:
    """Channels of the first stage; None for a network that has no such setting."""
    return settings.get("backbone.width") if _has_width(settings) else None


def _has_width(settings: Mapping[str, Any]) -> bool:
    return "width" not in settings_without_effect(str(settings.get("backbone.name")))


def _imbalance_ratio(counts: Sequence[int]) -> str:
    """Images of the largest class / images of the smallest one."""
    return f"{max(counts) / min(counts):.4g}" if min(counts) > 0 else "infinite"
