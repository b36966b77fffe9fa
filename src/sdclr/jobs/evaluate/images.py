"""The images and the split that a run is evaluated on: those it was trained on, without the files that are unusable."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np

from sdclr.data import Data, Images, build_data
from sdclr.data.contents import require_recorded
from sdclr.data.images import allowed_to_skip, left_out
from sdclr.data.splits import natural_split
from sdclr.errors import DataError
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import CONTENTS_FILE, IMAGES_FILE, Run


def config_and_data(run: Run, data_path: str | None) -> tuple[PretrainConfig, Data]:
    """The run's config and the very images and split that it was trained on."""
    config = PretrainConfig.from_yaml(run.config_path)
    where = config.data if data_path is None else config.data.with_values({"path": data_path})
    data = build_data(where, exclude=[run.folder])
    data.labelled_split()  # raises where there is nothing to evaluate on
    if data.train.labels is not None and len(np.unique(data.train.labels)) < 2:
        raise DataError(
            f"{data.name} cannot be evaluated: all its labelled training images are of one class, "
            f"{data.class_names[int(data.train.labels[0])]}. A probe tells classes apart."
        )
    trained_on = run.read_json("split.json", "fingerprint")["fingerprint"]
    files = data.files(config.data.subset)
    recorded = require_recorded(run.folder / CONTENTS_FILE, files, trained_on, data.fingerprint)
    if files and not recorded:
        warnings.warn(
            f"{run.folder} was begun by an earlier version, which kept no record of its images' contents: names and "
            "labels are those of the run; whether the pixels are, nobody can say.",
            stacklevel=3,
        )
    run.require_classes(data.class_names)
    return config, data


def usable(run: Run, config: PretrainConfig, data: Data, progress: AnyProgress | None) -> Data:
    """The same data without the files that cannot be decoded, decided once for the pool and once for the test set.

    What the run has left out stays out; what it has not looked at (validation and test images) is decoded once.
    """
    split = data.labelled_split()
    if config.data.on_error != "skip" or data.test is None or data.train.labels is None:
        return data
    show, pool = progress or NoProgress(), data.train
    skipped = _skipped_by_the_run(run)
    paths = getattr(pool, "paths", ())
    bad = [position for position, path in enumerate(paths) if path in skipped]
    kept: dict[str, Images] = {}
    for part, images, before in (("validation", pool.at(split.validation), len(bad)), ("test", data.test, 0)):
        limit = allowed_to_skip(config.data.max_skipped, len(pool) if part == "validation" else len(images))
        task = show.add(f"looking at {len(images)} {part} images", total=len(images), unit="images")
        advance = partial(show.advance, task)
        kept[part], found = images.verified("skip", advance, max(limit - before, 0))
        show.finish(task)
        if found:
            warnings.warn(f"{part}: {left_out(found, len(images))}", stacklevel=3)
        if part == "validation":
            lost = {one.path for one in found}
            bad += [int(position) for position in split.validation if paths[position] in lost]
    unusable = np.array(sorted(set(bad)), dtype=np.int64)
    few_shot = natural_split(
        data.train.labels,
        validation_per_class=config.data.validation_per_class,
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
    return replace(data, split=split, test=kept["test"])


def _skipped_by_the_run(run: Run) -> set[str]:
    """The files that pre-training has left out."""
    if not (run.folder / IMAGES_FILE).is_file():
        return set()
    return {path for path, _ in run.read_json(IMAGES_FILE, "skipped")["skipped"]}
