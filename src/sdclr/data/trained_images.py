"""The images that a finished run was trained on, as they are found now: wherever they are, without later additions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sdclr.addresses import Address
from sdclr.batch import Views
from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.config import user_place
from sdclr.data import Data, DataConfig, Images, ViewSpec, build_data
from sdclr.data.choices import Unlabelled
from sdclr.data.collections.contents import (
    ABSENT,
    Content,
    differences,
    read_contents,
    read_record,
    require_recorded,
)
from sdclr.data.decoding.decode import printable
from sdclr.errors import DataError, MissingInputError
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE
from sdclr.safe_text import command, shown

BATCH = 64
"""Number of images whose views are made at a time."""


class FoundAgain(NamedTuple):
    """The images of a run, as they are found now."""

    as_trained: Data
    """Without images and labels that came later."""
    with_labels: Data | None = None
    """For a run that was trained without labels: its images with labels that came later, perhaps with new images."""


def trained_images(run: Run, config: DataConfig) -> Data:
    """The images that ``config`` finds, as the run was trained on them: see :func:`images_again`."""
    return images_again(run, config).as_trained


def images_again(run: Run, config: DataConfig) -> FoundAgain:
    """The images that ``config`` finds, as the run was trained on them.

    Unlabelled images that were added since the training are left out, with a warning; labels that were added to the
    images of a run that had none are apart. The caller must check whether the rest is unchanged. Raises
    MissingInputError where nothing is found.
    """
    data, labelled = images_of(run, config), None
    if data.split is not None:
        if had_labels(run) is not False:
            return FoundAgain(data)
        labelled = data
        data = replace(data, train=data.train.with_labels(None), class_names=[], split=None)
    recorded = _recorded(run)
    if data.train.files is None or not recorded:
        return FoundAgain(data, labelled)
    known = {one.path for one in recorded} | run.skipped_images()
    old = [row for row, path in enumerate(data.train.names) if path in known]
    new = [path for path in data.train.names if path not in known]
    gone = {one.path for one in recorded if one.digest != ABSENT}.difference(data.train.names)
    if gone or not new:  # missing images are an error
        return FoundAgain(data, labelled)
    warnings.warn(
        f"{len(new)} images came after {shown(run.folder)} was trained and are left out (first: "
        f"{printable(new[0])}). To learn from them, too, start a new run with {command('--weights', run.folder)}.",
        stacklevel=4,
    )
    return FoundAgain(replace(data, train=data.train.at(np.array(old, dtype=np.int64))), labelled)


def had_labels(run: Run) -> bool | None:
    """Whether the images had labels when the run began; None where it has not recorded that."""
    source = run.read_side_file("split.json", optional=True).get("source")
    return None if source is None else source != "unlabelled"


def sampled_images(
    run: Run, config: DataConfig, num: int, seed: int, *, data_path: str | None = None
) -> tuple[Images, Sequence[str]]:
    """A reproducible random sample of at most ``num`` of the images that a run was trained on, in their order.

    Also returns the class names, where there are labels. ``data_path``: where the images are now. Raises ConfigError
    where they are not those of the training, and DataError for fewer than 2.
    """
    where = config.with_values(
        {"store": None, "placement": "auto"} | ({"path": data_path} if data_path else {})
    )
    data = trained_images(run, where)
    trained_on = run.read_json("split.json", "fingerprint")["fingerprint"]
    require_recorded(
        run.folder / CONTENTS_FILE, data.files(config.subset), trained_on, data.fingerprint
    )
    images = data.pretraining_images(config.subset)
    if skipped := run.skipped_images():
        paths = getattr(images, "paths", ())
        images = images.at(
            np.array([i for i, path in enumerate(paths) if path not in skipped], dtype=np.int64)
        )
    if len(images) < 2:
        raise DataError(
            f"{run.folder} has {len(images)} images; an examination compares at least 2."
        )
    order = permutation(derive(seed, Stream.EXAMINATION), len(images)).numpy()
    sample = images.at(np.flatnonzero(order < num)).to(torch.device("cpu"))
    return sample, data.class_names


def unseen_views(images: Images, spec: ViewSpec, seed: int, *, epoch: int) -> Views:
    """Two views of each image as in training, of an ``epoch`` that training has not seen; on the CPU."""
    batches = torch.arange(len(images)).split(BATCH)
    parts = list(images.views(iter(batches), spec, seed=seed, epoch=epoch))
    a, b, index = (
        torch.cat([getattr(part, name).cpu() for part in parts]) for name in ("a", "b", "index")
    )
    return Views(a, b, index)


_SHARD_PATTERN = re.compile(r"[{*?]")
"""The characters that mark a place of several shards."""


def images_of(
    run: Run, config: DataConfig, option: str = "--data ", exclude: Iterable[Path] = ()
) -> Data:
    """The data that ``config`` finds; MissingInputError with advice where the images are no longer there.

    ``option``: the command's option for a new place. ``exclude``: folders to leave out besides that of the run.
    """
    try:
        # a label that is missing now was there when the run began
        unlabelled: Unlabelled = "refuse" if had_labels(run) else "keep_all"
        return build_data(config, exclude=[run.folder, *exclude], unlabelled=unlabelled)
    except MissingInputError as error:
        place = None if config.path is None else user_place(config.path)
        if place is None or (isinstance(place, Path) and place.exists()):
            raise
        if isinstance(place, Address) or _SHARD_PATTERN.search(str(place)):  # it names the shard
            raise MissingInputError(
                f"{error} If all of them have moved, add {option}PLACE to the command."
            ) from None
        raise MissingInputError(
            f"the images of {shown(run.folder)} are not where they were: {shown(config.path)} does not exist. "
            f"If they have moved, add {option}PATH to the command."
        ) from None


def warn_of_changes(run: Run, data: Data) -> None:
    """Warn where the images are not those that the run was trained on."""
    try:
        recorded, left_out = _recorded(run), run.skipped_images()
    except DataError as error:
        warnings.warn(
            f"whether the images are those that were trained on cannot be known: {error}",
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
    """The recorded contents of the training images; empty for a run of an earlier version."""
    return (read_record(run.folder / CONTENTS_FILE) or {}).get("train", [])
