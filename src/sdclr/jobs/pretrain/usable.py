"""Which images of a collection can be used: decided once, before the first step, and recorded in the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sdclr.any_progress import AnyProgress
from sdclr.config import user_path
from sdclr.data import BadFile, Data, DataConfig, Images
from sdclr.data.collections.contents import read_record, recorded_sizes, require_recorded
from sdclr.data.collections.duplicates import copies_of, duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store, choose_placement
from sdclr.data.decoding.decode import printable
from sdclr.data.usable import look_at, warn_of_bad_files
from sdclr.errors import ConfigError
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE, IMAGES_FILE
from sdclr.safe_text import first_of


def training_images(
    found: Data,
    data: DataConfig,
    device: torch.device,
    run: Run | None,
    show: AnyProgress,
) -> tuple[Images, dict[str, Any] | None]:
    """The images that can be decoded, and the facts for images.json (None for images in memory).

    Every file is decoded once; a run that already has its images.json does not repeat this, and leaves out exactly the
    same files. Raises DataError for bad files; with data.on_error=skip only for too many of them. Warns of test images
    that are copies of training images.
    """
    wanted = found.pretraining_images(data.subset)
    if wanted.files is None:
        return wanted, None
    images = wanted.files
    choose_placement(data.placement, 0, device)  # before anything is decoded
    facts = _remembered(run, found.fingerprint)
    if facts is None:
        usable, facts = _first_look(images, found, data, show)
    else:
        usable = _as_remembered(images, facts, run)
    if facts["skipped"]:
        warn_of_bad_files([BadFile(*one) for one in facts["skipped"]], len(images))
        _warn_of_lost_classes(images, usable, found.class_names)
    if copies := facts.get("test_copies"):  # runs of earlier versions have not checked
        _warn_of_test_copies(copies, len(found.test) if found.test is not None else 0)
    return _stored(usable, data, show), facts


def _first_look(
    images: ImageFiles, found: Data, data: DataConfig, show: AnyProgress
) -> tuple[ImageFiles, dict[str, Any]]:
    """The images that can be decoded, and the facts about all for images.json."""
    kept, bad = look_at(images, data.on_error, show, max_skipped=data.max_skipped)
    assert kept.files is not None
    usable = kept.files
    facts: dict[str, Any] = {
        "fingerprint": found.fingerprint,
        "found": len(images),
        "skipped": [[one.path, one.cause] for one in bad],
        "sizes": usable.sizes_digest(),
    }
    if data.name == "images":
        tested = None if found.test is None else found.test.files
        facts["duplicates"] = _duplicates(usable, show)
        facts["test_copies"] = [] if tested is None else copies_of(usable, tested)
    return usable, facts


def _as_remembered(images: ImageFiles, facts: dict[str, Any], run: Run | None) -> ImageFiles:
    """The images without those that the first look left out; raises ConfigError if the files have changed since."""
    skipped = {path for path, _ in facts["skipped"]}
    kept = [i for i, name in enumerate(images.paths) if name not in skipped]
    usable = images.at(np.array(kept, dtype=np.int64))
    if run is None:
        return usable
    record = run.folder / CONTENTS_FILE
    recorded = read_record(record) or {}
    if (known := recorded_sizes(usable, recorded.get("train", ()))) is not None:
        return usable.with_sizes(known)
    if facts.get("sizes", found := usable.sizes_digest()) != found:
        fingerprint = facts["fingerprint"]
        require_recorded(record, {"train": usable}, fingerprint, fingerprint)  # names the files
        raise ConfigError(
            f"the images below {printable(images.root)} have the names of those that this run started with, but "
            "they are other files. Restore the images, or start a new run in another --out."
        )
    return usable


def _warn_of_lost_classes(
    images: ImageFiles, usable: ImageFiles, class_names: Sequence[str]
) -> None:
    """Warn of classes without a usable image."""
    if images.labels is None or usable.labels is None:
        return
    lost = sorted(set(images.labels.tolist()) - set(usable.labels.tolist()))
    if lost:
        names = first_of([class_names[c] for c in lost])
        warnings.warn(
            f"no image of {names} can be used: an evaluation has to leave these classes out (--untested leave_out, in "
            "the file of a grid untested: leave_out).",
            stacklevel=3,
        )


def _warn_of_test_copies(copies: Sequence[Sequence[str]], num_test: int) -> None:
    copy, original = map(printable, copies[0])
    warnings.warn(
        f"{len(copies)} of {num_test} test images are copies of training images, byte for byte (first: {copy} of "
        f"{original}): what is measured on them is too good. {IMAGES_FILE} lists them; take them out of one of the "
        "two sets (data.exclude).",
        stacklevel=3,
    )


def _duplicates(images: ImageFiles, show: AnyProgress) -> list[list[str]]:
    """Groups of files that are equal, byte for byte. They are kept: a copy is not necessarily a mistake."""
    task = show.add("looking for copies", total=len(images), unit="images")
    groups = duplicates(images, lambda done: show.advance(task, done))
    copies = sum(map(len, groups)) - len(groups)
    show.finish(task, f"{copies} copies")
    if copies:
        first, second = map(printable, groups[0][:2])
        show.print(
            f"{copies} of {len(images)} images are copies of others, byte for byte (first: {second} of {first}); they "
            f"are still trained on. {IMAGES_FILE} lists them."
        )
    return groups


def _stored(images: ImageFiles, data: DataConfig, show: AnyProgress) -> Images:
    """The images from the decoded store that data.store names, built now if it does not exist."""
    if data.store is None:
        return images
    task = show.add(f"decoded store {data.store}", total=len(images), unit="images")
    store = build_store(images, user_path(data.store), lambda done: show.advance(task, done))
    show.finish(task)
    return replace(store, placement=data.placement)


def _remembered(run: Run | None, fingerprint: str) -> dict[str, Any] | None:
    if run is None or not (run.folder / IMAGES_FILE).is_file():
        return None
    facts = run.read_json(IMAGES_FILE, "fingerprint", "skipped")
    return facts if facts["fingerprint"] == fingerprint else None
