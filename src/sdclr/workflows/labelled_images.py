"""Labelled images to learn from, in the forms users have them: a table or list, class folders, a .npz."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdclr.addresses import Address, Place
from sdclr.backbones.encoder import LIBRARIES
from sdclr.config import require_once, user_place
from sdclr.data import DataConfig
from sdclr.data.choices import LIST_SUFFIXES, SHARD_SUFFIX, SPREADSHEETS
from sdclr.data.sources.globs import glob_of
from sdclr.data.sources.image_lists import read_listed_images
from sdclr.data.sources.listing import IMAGE_SUFFIXES
from sdclr.data.sources.split_folders import has_splits
from sdclr.errors import ConfigError, DataError, MissingInputError, SdclrError
from sdclr.run import Run
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig
from sdclr.workflows.own_images import (
    own_data,
    own_data_as_trained,
    require_data_settings,
)

ROWS_LOOKED_FOR = 64
"""Rows of a table that are checked to find the folder its paths are relative to."""


def labelled_images(
    source: Path | str,
    labels: Place,
    root: Path | None,
    values: Mapping[str, Any],
    exclude: Iterable[Path] = (),
) -> DataConfig:
    """The labelled images of a table or list, of a folder whose sub-folders are the classes, of shards, or of a .npz.

    ``root``: the folder that a table's paths are relative to; by default its own folder or, if none of them exists
    there, the folder that the run ``source`` was trained on. Images are read as that run or model has read its own.
    ``values``: settings by dotted name, only data.*, which take precedence. ``exclude``: folders without images, such
    as that of the model. Raises MissingInputError if nothing is there, ConfigError for a root without a table,
    DataError for a spreadsheet.
    """
    if not _is_found_by_its_reader(labels) and not labels.exists():
        raise MissingInputError(
            f"there is no file or folder of labels {shown(labels)}. A table has the columns path and label."
        )
    given = dict(values)
    is_list = labels.suffix.lower() in LIST_SUFFIXES and labels.is_file()
    if labels.suffix.lower() in SPREADSHEETS:
        raise DataError(f"{shown(labels)} is a spreadsheet: save it as CSV.")
    if root is not None and not is_list:
        raise ConfigError(
            f"--images is where the paths of a table or list begin, and {shown(labels)} is not one. Leave it out."
        )
    if isinstance(labels, Path) and labels.is_dir():
        # shards contain their labels in their own members
        given = ({} if _holds_shards(labels) else {"data.labels": "folders"}) | given
    elif root is not None:
        require_once(given, {"data.root": "--images"})
        given["data.root"] = str(root.absolute())
    elif isinstance(labels, Path) and is_list and "data.root" not in given:
        place = _place_of_run(source, labels, given)
        given |= {} if place is None else {"data.root": str(place.absolute())}
    path = str(labels.absolute() if isinstance(labels, Path) else labels)
    if isinstance(source, str) and source.startswith(LIBRARIES):
        data = own_data(path, given)
    else:
        data = own_data_as_trained(Path(source), path, given)
    is_folder = isinstance(labels, Path) and labels.is_dir()
    if not is_folder or "data.layout" in given:
        return data
    splits = has_splits(Path(path), exclude, data.links, data.exclude)
    return data.with_values({"layout": "splits"}) if splits else data


def _is_found_by_its_reader(place: Place) -> bool:
    """Whether it may name several things, or one on another machine; reading them reports what is missing."""
    return (
        isinstance(place, Address)
        or glob_of(place) is not None
        or place.suffix.lower() == SHARD_SUFFIX
    )


def _holds_shards(folder: Path) -> bool:
    """Whether a folder contains tar files and no images."""
    found = False
    for _, _, names in os.walk(folder):
        suffixes = {Path(name).suffix.lower() for name in names}
        if suffixes & set(IMAGE_SUFFIXES):
            return False
        found |= SHARD_SUFFIX in suffixes
    return found


def labels_of_run(run: Run, values: Mapping[str, Any]) -> DataConfig:
    """The images that a run was trained on, with their own labels, without their test set.

    ``values``: settings by dotted name, only data.*, which take precedence. Missing labels are detected on reading.
    """
    require_data_settings(values)
    data = PretrainConfig.from_yaml(run.require().config_path, foreign=True).data
    aside = {"test_path": None, "store": None, "placement": "auto"}
    given = {name.removeprefix("data."): value for name, value in values.items()}
    return data.with_values(aside | given)


def _place_of_run(source: Path | str, labels: Path, values: Mapping[str, Any]) -> Path | None:
    """The folder a run was trained on, if a table's paths are relative to it and not to the table; otherwise None."""
    run = Run(Path(source))
    if not run.exists:
        return None
    data = run.settings().get("data") or {}
    place = data.get("root") or data.get("path")
    if data.get("name") != "images" or not isinstance(place, str):
        return None
    folder = user_place(place)
    if isinstance(folder, Address) or not folder.is_dir():
        return None
    for root in (labels.parent, folder):
        with contextlib.suppress(SdclrError):  # errors are reported when the table is read
            listed = read_listed_images(
                labels,
                root,
                path_column=values.get("data.path_column"),
                label_column=values.get("data.label_column"),
                unlabelled="leave_out",
            )
            if any(os.path.lexists(root / path) for path in listed.paths[:ROWS_LOOKED_FOR]):
                return None if root == labels.parent else root
    return None
