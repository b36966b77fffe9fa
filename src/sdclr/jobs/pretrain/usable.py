"""Which images of a collection can be used: decided once, before the first step, and remembered in the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sdclr.any_progress import AnyProgress
from sdclr.config import user_path
from sdclr.data import BadFile, DataConfig, Images
from sdclr.data.collections.contents import require_recorded
from sdclr.data.collections.duplicates import copies_of, duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store, choose_placement
from sdclr.data.decoding.decode import printable
from sdclr.data.usable import look_at, warn_of_bad_files
from sdclr.errors import ConfigError
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE, IMAGES_FILE


def usable_images(
    images: Images,
    data: DataConfig,
    fingerprint: str,
    device: torch.device,
    run: Run | None,
    show: AnyProgress,
    class_names: Sequence[str] = (),
    test: Images | None = None,
) -> tuple[Images, dict[str, Any] | None]:
    """The images that can be decoded, and the facts for images.json (None for images in memory).

    Every file is decoded once; a run that has its images.json already is not made to do so again, and leaves out the
    very same files. Raises DataError for bad files, with data.on_error=skip for too many of them. Images of ``test``
    that are copies of training images are a warning.
    """
    if images.files is None:
        return images, None
    images = images.files
    choose_placement(data.placement, 0, device)  # before anything is decoded
    facts = _remembered(run, fingerprint)
    if facts is None:
        kept, bad = look_at(images, data.on_error, show, max_skipped=data.max_skipped)
        assert kept.files is not None
        usable = kept.files
        facts = {
            "fingerprint": fingerprint,
            "found": len(images),
            "skipped": [[one.path, one.cause] for one in bad],
            "sizes": usable.sizes_digest(),
        }
        if data.name == "images":
            facts["duplicates"] = _duplicates(usable, show)
            facts["test_copies"] = (
                copies_of(usable, test.files) if test is not None and test.files is not None else []
            )
    else:
        skipped = {path for path, _ in facts["skipped"]}
        usable = images.at(
            np.array(
                [i for i, name in enumerate(images.paths) if name not in skipped], dtype=np.int64
            )
        )
        if facts.get("sizes", found := usable.sizes_digest()) != found:
            if run is not None:  # its record names the files
                require_recorded(
                    run.folder / CONTENTS_FILE, {"train": usable}, fingerprint, fingerprint
                )
            raise ConfigError(
                f"the images below {printable(images.root)} have the names of those that this run has begun with, but "
                "they are other files. Restore the images, or start a new run in another --out."
            )
    if facts["skipped"]:
        warn_of_bad_files([BadFile(*one) for one in facts["skipped"]], len(images))
        _warn_of_lost_classes(images, usable, class_names)
    if copies := facts.get("test_copies"):  # runs of earlier versions have not looked
        _warn_of_test_copies(copies, len(test) if test is not None else 0)
    return _stored(usable, data, show), facts


def _warn_of_lost_classes(
    images: ImageFiles, usable: ImageFiles, class_names: Sequence[str]
) -> None:
    """Name the classes of which no image can be used."""
    if images.labels is None or usable.labels is None:
        return
    lost = sorted(set(images.labels.tolist()) - set(usable.labels.tolist()))
    if lost:
        names = ", ".join(class_names[c] for c in lost[:5]) + (
            f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        )
        warnings.warn(
            f"no image of {names} can be used: an evaluation has to leave these classes out (--untested leave_out).",
            stacklevel=3,
        )


def _warn_of_test_copies(copies: Sequence[Sequence[str]], num_test: int) -> None:
    copy, original = map(printable, copies[0])
    warnings.warn(
        f"{len(copies)} of {num_test} test images are copies of training images, byte for byte (first: {copy} of "
        f"{original}): what is measured on them says too much. {IMAGES_FILE} lists them; take them out of one of the "
        "two sets (data.exclude).",
        stacklevel=3,
    )


def _duplicates(images: ImageFiles, show: AnyProgress) -> list[list[str]]:
    """Groups of files that are the same, byte for byte. They stay: whether a copy is a mistake is not ours to say."""
    task = show.add("looking for copies", total=len(images), unit="images")
    groups = duplicates(images, lambda done: show.advance(task, done))
    copies = sum(map(len, groups)) - len(groups)
    show.finish(task, f"{copies} copies")
    if copies:
        first, second = map(printable, groups[0][:2])
        show.print(
            f"{copies} of {len(images)} images are copies of others, byte for byte (first: {second} of {first}); they "
            f"are trained on all the same. {IMAGES_FILE} lists them."
        )
    return groups


def _stored(images: ImageFiles, data: DataConfig, show: AnyProgress) -> Images:
    """The images out of the decoded store that data.store names, built now if it is not there."""
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
