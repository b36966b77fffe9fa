"""Whether the numbers of several runs belong in one table: the same images, labels and classes, else ConfigError."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

from sdclr.errors import ConfigError, DataError
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE
from sdclr.run.next_step import evaluate_command
from sdclr.safe_text import shown

OWN_IMAGES = ("images", "arrays", "given")
"""Data sets whose name does not identify their content."""


def require_comparable(runs: Sequence[RunFolder]) -> None:
    """Raise ConfigError if the numbers of two runs would not be comparable."""
    first = runs[0]
    for run in runs[1:]:
        for key, what in (("dataset", "data sets"), ("group_convention", "group conventions")):
            here, there = getattr(first.evaluation, key), getattr(run.evaluation, key)
            if here != there:
                raise ConfigError(
                    f"{first.path} and {run.path} were evaluated on different {what}, {here!r} and {there!r}: "
                    "their numbers are not comparable. Report them separately."
                )
    for a, b in combinations(runs, 2):
        prints = [run.evaluation.split.fingerprint for run in (a, b)]
        if a.split_number == b.split_number and prints[0] != prints[1]:
            if _has_own_labels(a, b):
                raise _measured_on_others(a, b)
            raise ConfigError(
                f"{a.path} and {b.path} both name split {a.split_number}, but their images differ (fingerprints "
                f"{prints[0][:12]} and {prints[1][:12]}): their numbers are not comparable. Report them separately."
            )
    if first.evaluation.dataset in OWN_IMAGES:
        _require_same_collection(runs)
    for a, b in combinations(runs, 2):
        contents = [run.evaluation.test_contents for run in (a, b)]
        if None not in contents and contents[0] != contents[1]:
            raise _other_images(a, b, "test images of other content")


def _require_same_collection(runs: Sequence[RunFolder]) -> None:
    """Require that all runs use one collection of the user's own: the same classes, labels and image content."""
    for a, b in combinations(runs, 2):
        if a.evaluation.class_names != b.evaluation.class_names:
            raise _other_data(a, b, _class_difference(a, b))
        pools = [run.evaluation.pool or _counts_of_pool(run) for run in (a, b)]
        if None not in pools and type(pools[0]) is type(pools[1]) and pools[0] != pools[1]:
            raise _other_data(a, b, "other names, labels or numbers of images")
    if len(runs) > 1:
        _require_same_contents(runs)


def _counts_of_pool(run: RunFolder) -> list[list[int]] | None:
    """Images of each class in the pool and in the test set, for evaluations that do not name the pool itself."""
    counts = run.split["counts"]
    if run.evaluation.labels is not None or not {"train", "validation"} <= counts.keys():
        return None
    pool = [sum(two) for two in zip(counts["train"], counts["validation"], strict=False)]
    return [pool, counts.get("test", [])]


def _require_same_contents(runs: Sequence[RunFolder]) -> None:
    """Compare the recorded contents of image files, wherever the files and the runs are now."""
    # imports torch, which a report of other runs does not need
    from sdclr.data.collections.contents import ABSENT, read_record

    known: dict[str, tuple[RunFolder, dict[str, str], set[str]]] = {}
    for run in runs:
        folder = Run(run.path)
        try:
            recorded = read_record(folder.folder / CONTENTS_FILE) or {}
            left_out = folder.skipped_images()
        except DataError as error:
            warnings.warn(
                f"{error} Whether {shown(run.path)} was trained on the same images as the others is not known.",
                stacklevel=5,
            )
            continue
        parts = ["train", *(["test"] if run.evaluation.labels is None else [])]
        for part in parts:
            if part not in recorded:  # from an earlier version, or images in memory
                continue
            mine = {one.path: one.digest for one in recorded[part] if one.digest != ABSENT}
            other, theirs, also_left_out = known.setdefault(part, (run, mine, left_out))
            names = mine.keys() ^ theirs.keys()
            names |= {name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}
            # the other run may not have checked files that one run could not decode
            if others := names - left_out - also_left_out:
                what = f"{part} images of other content, {len(others)} of them"
                raise _other_images(other, run, f"{what} (first: {shown(min(others))})")


def _class_difference(a: RunFolder, b: RunFolder) -> str:
    names = sorted({*a.evaluation.class_names} ^ {*b.evaluation.class_names})
    return (
        f"classes of one alone, such as {shown(names[0])}"
        if names
        else "the classes in another order"
    )


def _other_data(a: RunFolder, b: RunFolder, why: str) -> ConfigError:
    return _measured_on_others(a, b) if _has_own_labels(a, b) else _other_images(a, b, why)


def _other_images(a: RunFolder, b: RunFolder, why: str) -> ConfigError:
    return ConfigError(
        f"{a.path} and {b.path} are of different collections of images ({why}): their numbers are not comparable. "
        "Report them separately."
    )


def _has_own_labels(a: RunFolder, b: RunFolder) -> bool:
    return a.evaluation.labels is not None or b.evaluation.labels is not None


def _measured_on_others(a: RunFolder, b: RunFolder) -> ConfigError:
    """The error for two evaluations, at least one with its own labels or test set."""
    same = evaluate_command(Run(a.path), Run(b.path), labels=True)
    return ConfigError(
        f"{a.path} was evaluated with {_measured_on(a)}, and {b.path} with {_measured_on(b)}: other images or "
        f"labels, so their numbers are not comparable. Evaluate both alike ({same}), or report each "
        "alone."
    )


def _measured_on(run: RunFolder) -> str:
    """For example "12 labels of first.csv, tested on photos-test"."""
    if (labels := run.evaluation.labels) is None:
        return "the labels of its training"
    test = f", tested on {labels.test_set}" if labels.test_set else ""
    return f"{labels.num_labelled:,} labels of {labels.source}{test}"
