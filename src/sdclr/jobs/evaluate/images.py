"""The images, labels and split that a run is evaluated on, without unusable files.

The images are those the run was trained on. An evaluation may have its own labels, test set and handling of bad files.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdclr.config import absolute_place, parse_assignments, user_place
from sdclr.data import Data, DataConfig, Images, build_data
from sdclr.data.choices import LIST_SUFFIXES
from sdclr.data.collections.contents import require_recorded, require_same_names
from sdclr.data.collections.images import allowed_to_skip
from sdclr.data.decoding.decode import printable
from sdclr.data.grouping import group_images
from sdclr.data.splits import Positions, Split, natural_split
from sdclr.data.trained_images import images_again
from sdclr.data.usable import look_at, warn_of_bad_files
from sdclr.errors import ConfigError, DataError, NoLabelsError
from sdclr.jobs.evaluate.later_labels import labelled_data
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE
from sdclr.run.refusals import require_classes
from sdclr.settings import PretrainConfig

MOVED = ("data.path", "data.root", "data.links", "data.num_workers")
"""Training settings that an evaluation may override: where the images are now, and how they are read."""
OWN = (
    *(
        "data.test_path",
        "data.labels",
        "data.on_error",
        "data.max_skipped",
        "data.validation_per_class",
    ),
    *("data.path_column", "data.label_column", "data.group_by"),
    "precision",
)
"""Settings of the evaluation itself, whatever they were in training."""


class Evaluated(NamedTuple):
    """What a run is evaluated on."""

    config: PretrainConfig
    """The run's config, with the data settings of this evaluation."""
    data: Data
    facts: dict[str, Any]
    """What evaluation/<protocol>.json records about labels that are not those of training, and about groups."""


def evaluated_data(run: Run, settings: Mapping[str, Any], labels: Path | None) -> Evaluated:
    """The run's own images, with the labels and the test set that it is evaluated on.

    ``settings``: by dotted name, from MOVED and OWN. ``labels``: a table or list of names and labels, for some or all
    of the images. Raises ConfigError for other settings and for images that the run was not trained on, and
    NoLabelsError if there are no labels.
    """
    require_evaluation_settings(settings)
    config = PretrainConfig.from_yaml(run.config_path, foreign=True)
    trained = _trained_on(run, config, settings)
    requested = config.with_values(_columns_of(labels) | dict(settings))
    if labels is not None:
        data, facts = labelled_data(trained.data, requested.data, labels, exclude=run.folder)
    else:
        if requested.data == trained.config.data:
            data, facts = trained.with_labels or trained.data, {}
        else:
            if requested.data.labels == "none" and trained.with_labels is None:
                _require_labels(trained.data)
            data, facts = build_data(requested.data, exclude=[run.folder]), {}
        now, then = data.train.names, trained.data.train.names
        if trained.data.split is None and requested.data.layout == "flat" and set(then) < set(now):
            # images added after training; a warning was already given
            data, now = _without_later_images(data, then, requested.data), then
        if list(now) != list(then):
            other = next(iter(sorted(set(now) ^ set(then))), now[0])
            raise ConfigError(
                f"with {', '.join(settings)} the images are not those that {run.folder} was trained on (first: "
                f"{printable(other)}). Leave it out, or give labels with --labels FILE."
            )
    _require_labels(data)
    if data.test is None:
        _refuse_validation(settings)
    if data.fingerprint != trained.fingerprint:
        facts = {"trained_on": trained.fingerprint, "labels": _described(requested, data) | facts}
    if data.groups is not None:
        facts = facts | {"kept_together": requested.data.group_by}
    return Evaluated(requested, data, facts)


def facts_of_usable(run: Run, found: Evaluated, used: Data) -> dict[str, Any]:
    """The facts, counting only labels whose images can be decoded, as in ``used`` (:func:`usable`)."""
    labels, before, now = found.facts.get("labels"), found.data.split, used.split
    if labels is None or before is None or now is None or now is before:
        return dict(found.facts)
    lost = np.setdiff1d(_labelled(before), _labelled(now)).tolist()
    unreadable = run.skipped_images() | {found.data.train.names[row] for row in lost}
    counted = {
        "num_labelled": labels["num_labelled"] - len(lost),
        "num_images": labels["num_images"] - len(unreadable),
    }
    return found.facts | {"labels": labels | counted}


def _labelled(split: Split) -> Positions:
    return np.union1d(split.train, split.validation)


def _without_later_images(data: Data, names: Sequence[str], config: DataConfig) -> Data:
    """Only the labelled images with these ``names``, without the classes that occur only in others."""
    row_of = {name: row for row, name in enumerate(data.train.names)}
    train = data.train.at(np.array([row_of[name] for name in names], dtype=np.int64))
    assert train.labels is not None
    tested = [] if data.test is None or data.test.labels is None else data.test.labels.tolist()
    kept = sorted({*train.labels.tolist(), *tested})
    number_of = np.full(len(data.class_names), -1, dtype=np.int64)
    number_of[kept] = np.arange(len(kept))
    train = train.with_labels(number_of[train.labels])
    test = data.test
    if test is not None and test.labels is not None:
        test = test.with_labels(number_of[test.labels])
    assert train.labels is not None
    groups = None if config.group_by is None else group_images(train, config.group_by)
    split = natural_split(
        train.labels,
        validation_per_class=config.validation_per_class,
        groups=None if groups is None else groups.of_image,
        seed=config.split,
    )
    class_names = [data.class_names[c] for c in kept]
    return replace(
        data, train=train, test=test, class_names=class_names, split=split, groups=groups
    )


def _columns_of(labels: Path | None) -> dict[str, Any]:
    """Reset the column settings of the training table, which do not apply to a table with labels."""
    return {} if labels is None else {"data.path_column": None, "data.label_column": None}


def evaluation_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse assignments such as ``["data.test_path=more"]`` for :func:`evaluate`, with paths made absolute.

    Raises ConfigError for a setting that is fixed when a run is trained.
    """
    settings = parse_assignments(assignments)
    require_evaluation_settings(settings)
    for name in ("data.path", "data.root", "data.test_path"):
        if settings.get(name) is not None:
            settings[name] = absolute_place(str(settings[name]))
    return settings


def require_evaluation_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that is fixed when a run is trained."""
    if foreign := [name for name in settings if name not in (*MOVED, *OWN)]:
        meant = difflib.get_close_matches(
            f"data.{foreign[0].removeprefix('data.')}", (*OWN, *MOVED), 1, 0.8
        )
        if meant:
            raise ConfigError(
                f"{foreign[0]} is not a setting of an evaluation; did you mean {meant[0]}?"
            )
        names = ", ".join(
            name.removeprefix("data.") for name in (*OWN, *MOVED) if name != "precision"
        )
        raise ConfigError(
            f"{foreign[0]} is decided when a run is trained. An evaluation takes precision and data.KEY: {names}."
        )


def _require_labels(data: Data) -> None:
    """Raise DataError if labels are missing or too few; the message explains how to supply them."""
    if data.split is None or data.train.labels is None:
        other = (
            " (path: the position, from 0); or add train_labels to the .npz"
            if data.name == "arrays"
            else "; or use data.labels=folders where the sub-folders are the classes"
        )
        raise NoLabelsError(
            f"{data.name} cannot be evaluated without labels. Give those you have, for all images or some: "
            f"--labels FILE, a table with the columns path and label{other}."
        )
    if data.test is not None and data.test.labels is None:
        raise DataError(
            f"the test set of {data.name} has no labels; give them, or leave the test set out."
        )
    if len(np.unique(data.train.labels)) < 2:
        raise DataError(
            f"{data.name} cannot be evaluated: all its labelled training images are of one class, "
            f"{data.class_names[int(data.train.labels[0])]}. A probe tells classes apart."
        )


def _refuse_validation(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a validation share without a test set: nothing would use it."""
    if settings.get("data.validation_per_class"):
        raise ConfigError(
            "data.validation_per_class is for an evaluation with a test set (data.test_path); cross-validation holds "
            "images out by itself. Leave it out."
        )


def _described(config: PretrainConfig, data: Data) -> dict[str, Any]:
    """Describe labels that are not those of training."""
    test, labels = config.data.test_path, config.data.labels
    path = Path(config.data.path or "the images").name
    return {
        "source": path if labels == "none" else f"data.labels={labels}",
        "num_labelled": len(data.train),
        "num_images": len(data.train),
        "test_set": None if test is None else Path(test).name,
    }


class _TrainedOn(NamedTuple):
    config: PretrainConfig
    data: Data
    fingerprint: str
    """The run's; also that of ``data``, unless the run's test set was left out."""
    with_labels: Data | None
    """``data`` with labels that came after the training, and perhaps with images that did."""


def _trained_on(run: Run, config: PretrainConfig, settings: Mapping[str, Any]) -> _TrainedOn:
    """The data that the run was trained on; raises ConfigError if they have changed."""
    moved = {name: value for name, value in settings.items() if name in MOVED}
    where = user_place(str(moved.get("data.path", config.data.path)))
    # data.root then belongs to the labels or the test list
    if where.suffix.lower() not in LIST_SUFFIXES:
        moved.pop("data.root", None)
    fingerprint = run.read_json("split.json", "fingerprint")["fingerprint"]
    record = run.folder / CONTENTS_FILE
    aside = "data.test_path" in settings and config.data.test_path is not None
    # the run's test set may be missing: only its training images matter
    if aside and record.is_file():
        config = config.with_values(moved | {"data.test_path": None})
        data, with_labels = images_again(run, config.data)
        files = data.files(config.data.subset)
        require_same_names(record, files)
        require_recorded(record, files, fingerprint, fingerprint)
        return _TrainedOn(config, data, fingerprint, with_labels)
    config = config.with_values(moved)
    data, with_labels = images_again(run, config.data)
    files = data.files(config.data.subset)
    recorded = require_recorded(record, files, fingerprint, data.fingerprint)
    if files and not recorded:
        warnings.warn(
            f"{run.folder} was started by an earlier version, which kept no record of its images' contents: names and "
            "labels are those of the run; whether the pixels are cannot be known.",
            stacklevel=4,
        )
    require_classes(run, data.class_names)
    return _TrainedOn(config, data, fingerprint, with_labels)


def usable(run: Run, config: PretrainConfig, data: Data, progress: AnyProgress | None) -> Data:
    """The same data without the files that cannot be decoded, decided once for the pool and once for the test set.

    What the run has left out stays out; images it has not checked (validation and test images) are decoded once.
    """
    assert data.split is not None
    if config.data.on_error != "skip" or data.train.labels is None:
        return data
    split, show, pool = data.split, progress or NoProgress(), data.train
    skipped = run.skipped_images()
    bad = [position for position, name in enumerate(pool.names) if name in skipped]
    parts = [("validation", pool.at(split.validation), len(bad))]
    if data.test is not None:
        parts.append(("test", data.test, 0))
    kept: dict[str, Images] = {}
    for part, images, before in parts:
        limit = allowed_to_skip(
            config.data.max_skipped, len(pool) if part == "validation" else len(images)
        )
        kept[part], found = look_at(
            images, "skip", show, max_skipped=max(limit - before, 0), part=part
        )
        warn_of_bad_files(found, len(images), part)
        if part == "validation":
            lost = {one.path for one in found}
            bad += [int(position) for position in split.validation if pool.names[position] in lost]
    unusable = np.array(sorted(set(bad)), dtype=np.int64)
    few_shot = natural_split(
        data.train.labels,
        validation=split.validation,
        seed=config.data.split,
        unusable=unusable,
    ).few_shot
    split = replace(
        split,
        few_shot=few_shot,
        long_tail=np.setdiff1d(split.long_tail, unusable),
        train=np.setdiff1d(split.train, unusable),
        validation=np.setdiff1d(split.validation, unusable),
    )
    return replace(data, split=split, test=kept.get("test"))
