"""The images that a finished run was trained on, as they are found now: where they are, and without later ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sdclr.config import user_path
from sdclr.data import Data, DataConfig, build_data
from sdclr.data.collections.contents import ABSENT, Content, differences, read_contents, read_record
from sdclr.data.decoding.decode import printable
from sdclr.errors import DataError, MissingInputError
from sdclr.run import CONTENTS_FILE, Run
from sdclr.safe_text import command, shown


def trained_images(run: Run, config: DataConfig) -> Data:
    """What ``config`` finds; unlabelled images that came after the training are left aside, with a warning.

    Whether the others are the same is for the caller to check. Raises MissingInputError where nothing is there.
    """
    data = images_of(run, config)
    recorded = _recorded(run)
    if data.split is not None or data.train.files is None or not recorded:
        return data
    known = {one.path for one in recorded} | run.skipped_images()
    old = [row for row, path in enumerate(data.train.names) if path in known]
    new = [path for path in data.train.names if path not in known]
    gone = {one.path for one in recorded if one.digest != ABSENT}.difference(data.train.names)
    if gone or not new:  # what is gone is an error
        return data
    warnings.warn(
        f"{len(new)} images came after {shown(run.folder)} was trained and are left aside (first: "
        f"{printable(new[0])}). To learn from them, too, start a new run with {command('--weights', run.folder)}.",
        stacklevel=3,
    )
    return replace(data, train=data.train.at(np.array(old, dtype=np.int64)))


def images_of(run: Run, config: DataConfig, option: str = "--data ") -> Data:
    """What ``config`` finds. MissingInputError that says how to go on where it finds nothing any more.

    ``option``: what the command takes a new place as.
    """
    try:
        return build_data(config, exclude=[run.folder])
    except MissingInputError:
        if config.path is None or user_path(config.path).exists():
            raise
        raise MissingInputError(
            f"the images of {shown(run.folder)} are not where they were: {shown(config.path)} does not exist. "
            f"If they have moved, add {option}PATH to the command."
        ) from None


def warn_of_changes(run: Run, data: Data) -> None:
    """A warning where the images are not those that the run was trained on."""
    try:
        recorded, left_out = _recorded(run), run.skipped_images()
    except DataError as error:
        warnings.warn(
            f"whether the images are those that were trained on, nobody can say: {error}",
            stacklevel=3,
        )
        return
    files = data.train.files
    if not recorded or files is None:
        return
    now = [one for one in read_contents(files, recorded) if one.path not in left_out]
    if changed := differences(recorded, now):
        warnings.warn(
            f"the images are not those that {shown(run.folder)} was trained on: {'; '.join(changed)}. The features are "
            "of the images that are there now.",
            stacklevel=3,
        )


def _recorded(run: Run) -> Sequence[Content]:
    """What the training images were; empty for a run of an earlier version."""
    return (read_record(run.folder / CONTENTS_FILE) or {}).get("train", [])
