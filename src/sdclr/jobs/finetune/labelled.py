"""Divide images into training and validation images; an error or a warning for each class that does not allow it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sdclr.any_progress import AnyProgress
from sdclr.data import DataConfig, Images, build_data
from sdclr.data.collections.contents import digest_of, read_contents
from sdclr.data.grouping import group_images
from sdclr.data.splits import Positions, hold_out_share
from sdclr.data.usable import usable_images
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.balancedness import OF_DATA, GroupConvention
from sdclr.jobs.finetune.config import VALIDATION_SHARE, FinetuneConfig
from sdclr.safe_text import command, counted, first_of


@dataclass(frozen=True)
class Labelled:
    """Labelled images in two parts; every class has images to train on."""

    train: Images
    validation: Images
    """May be empty or lack classes."""
    class_names: list[str]
    convention: GroupConvention
    """The rule by which classes are many, medium or few."""
    fingerprint: str
    """Equal for equal images, labels and parts."""

    @property
    def labels(self) -> tuple[Positions, Positions]:
        """Labels of both parts, int64 each."""
        train, validation = self.train.labels, self.validation.labels
        assert train is not None
        assert validation is not None
        return train, validation


def labelled_images(
    data: DataConfig, config: FinetuneConfig, out: Path, show: AnyProgress
) -> Labelled:
    """The labelled images of ``data``; those that its folders or its split hold out are the validation images.

    Otherwise a share of each class is drawn (groups of ``data.group_by`` stay together). Raises DataError if images
    have no labels, if there is only one class, and for a class without a usable image.
    """
    if data.test_path is not None:
        raise ConfigError(
            "data.test_path does nothing here: finetune measures on validation images. Leave it out, and use "
            "sdclr predict on the test images."
        )
    if data.store is not None:
        raise ConfigError(
            "data.store does nothing here: finetune reads the images themselves. Leave it out."
        )
    found = build_data(data, exclude=[out], for_classifier=True, unlabelled="leave_out")
    for remark in found.remarks:
        show.print(remark)
    if found.split is None or found.train.labels is None:
        raise DataError(
            f"{_named(data)} has no labels to learn from. Give a table with the columns path and label (another "
            "name: data.label_column=NAME), or a folder whose sub-folders are the classes with data.labels=folders."
        )
    held_out = found.split.validation
    if len(held_out) and config.validation_share != VALIDATION_SHARE:
        raise ConfigError(
            f"a validation share of {config.validation_share:g} (--validation) does nothing: "
            f"{'data.validation_per_class' if data.validation_per_class else 'the folder of validation images'} says "
            "which images are held out. Leave one of them out."
        )
    if found.test is not None:
        show.print(
            f"{counted(len(found.test), 'test image')} left out: {_test_command(data, out)} measures on them"
        )
    wanted = found.split.subset("train" if data.subset == "all" else data.subset)
    rows = np.union1d(wanted, held_out)
    usable, bad = usable_images(found.train.at(rows), data, show)
    if bad:
        place_of = {name: place for place, name in enumerate(found.train.names)}
        rows = np.array([place_of[name] for name in usable.names], dtype=np.int64)
    labels = usable.labels
    assert labels is not None
    _require_classes(labels, found.class_names, data)
    how: _HeldOut
    if len(held_out):
        how = "as given"
        validation = np.flatnonzero(np.isin(rows, held_out))
    else:
        how = "drawn" if data.group_by is None else "whole groups"
        groups = None if data.group_by is None else group_images(usable, data.group_by).of_image
        validation = hold_out_share(
            labels, config.validation_share, seed=config.seed, groups=groups
        )
    train = np.setdiff1d(np.arange(len(rows)), validation)
    _require_trained_classes(labels[train], found.class_names)
    if config.validation_share or len(held_out):
        _warn_of_classes_without_validation(labels[validation], labels, found.class_names, how)
    else:
        _warn_of_no_validation()
    contents = "" if usable.files is None else digest_of(read_contents(usable.files))
    return Labelled(
        usable.at(train),
        usable.at(validation),
        found.class_names,
        OF_DATA[found.conventions],
        f"{found.fingerprint} {contents} {hashlib.sha256(rows.tobytes()).hexdigest()[:16]} "
        f"{hashlib.sha256(validation.tobytes()).hexdigest()[:16]}",
    )


def _test_command(data: DataConfig, model: Path) -> str:
    """The command that tests the model on the test images of its own data."""
    if data.path is None or data.name not in ("images", "arrays"):
        return "sdclr.predict(MODEL, DATA, OUT, part='test') in Python"
    words: list[object] = ["sdclr", "predict", model, data.path]
    if data.layout == "splits":
        words += ["data.layout=splits", f"data.labels={data.labels}"]
    words += [
        f"data.{name}={json.dumps(value) if isinstance(value, list | tuple) else value}"
        for name in _READ_ALIKE
        if (value := getattr(data, name)) != DataConfig.model_fields[name].default
    ]
    return command(*words, "--part", "test")


_READ_ALIKE = ("exclude", "links", "on_error", "max_skipped")
"""Settings that decide which test images there are, and that a model does not carry."""


def _named(data: DataConfig) -> str:
    return data.name if data.path is None else data.path


def _require_classes(labels: Positions, names: Sequence[str], data: DataConfig) -> None:
    if len(names) < 2:
        raise DataError(
            f"{_named(data)} has one class only, {names[0] if names else 'none'}: there is nothing to tell apart. "
            "Label images of at least two."
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(names)} classes have no usable image ({_list(names, empty)}). Restore their files, "
            "or take the classes out of the labels."
        )


def _require_trained_classes(labels: Positions, names: Sequence[str]) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(names)} classes have validation images and none to train on "
            f"({_list(names, empty)}). Move some over."
        )


def _warn_of_no_validation() -> None:
    warnings.warn(
        "no validation images (validation share 0): all epochs are trained, the last one is kept, and how good "
        "the model is remains unknown; its confidences are not calibrated.",
        stacklevel=4,
    )


_HeldOut = Literal["as given", "drawn", "whole groups"]
"""By the images' folders or the settings; a share of each class; a share of each class in whole groups."""


def _warn_of_classes_without_validation(
    held_out: Positions, labels: Positions, names: Sequence[str], how: _HeldOut
) -> None:
    """Warn of classes that are trained on and never tested."""
    counts = np.bincount(labels, minlength=len(names))
    missing = np.flatnonzero(np.bincount(held_out, minlength=len(names)) == 0)
    if not len(missing):
        return
    most = f"at most {counted(int(counts[missing].max()), 'image')} each"
    why, mend = {
        "as given": ("no image among the validation images", "Add some there."),
        "drawn": (
            "too few labels to hold any out for validation",
            "Label more of them, or raise the validation share."
            if counts[missing].max() > 1
            else "Label more of them.",
        ),
        "whole groups": (
            "no group that can be held out for validation and leaves others to train on",
            "Label more groups of them, or group them finer (data.group_by).",
        ),
    }[how]
    warnings.warn(
        f"{len(missing)} of {len(names)} classes have {why} ({_list(names, missing)}; {most}): all their images are "
        f"trained on, and their accuracy is not known. {mend}",
        stacklevel=4,
    )


def _list(names: Sequence[str], which: Positions) -> str:
    return first_of([names[c] for c in which])
