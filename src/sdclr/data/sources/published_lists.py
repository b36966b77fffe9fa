"""Places-LT and iNaturalist 2018: images on disk, as listed in the published lists. Opens no image.

C classes. A list has a line ``relative/path label`` for each image. The training list is D_i as a whole: nothing is
drawn from it, and there is no balanced twin.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdclr.data.choices import PUBLISHED_LISTS, Links
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import LabelledImages
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.links import LinkCheck
from sdclr.data.sources.split_files import ImageList, read_image_list
from sdclr.data.splits import natural_split
from sdclr.errors import DataError, MissingInputError


def read_published_lists(
    name: str,
    root: Path,
    lists_dir: Path,
    *,
    num_workers: int | None = None,
    links: Links = "inside",
) -> LabelledImages:
    """``name`` (a key of PUBLISHED_LISTS): images below ``root``, lists in ``lists_dir``.

    Raises MissingInputError for an absent folder or list, and DataError, naming list and line, for lists that do not
    fit together and, unless ``links`` may lead anywhere, for images that are outside ``root``.
    """
    if not root.is_dir():
        raise MissingInputError(f"{name}: folder {root} does not exist.")
    lists = _read(name, lists_dir)
    num_classes = _checked_classes(lists)
    _refuse_shared(lists)
    check = LinkCheck(root, links)
    for images in lists.values():
        check.refuse_ways_out(images.paths, images.where)
    pool = list(lists["train"].paths)
    labels = lists["train"].labels
    if "validation" in lists:
        pool += lists["validation"].paths
        labels = np.concatenate([labels, lists["validation"].labels])
    validation = np.arange(len(lists["train"].paths), len(pool))
    train = ImageFiles(root, tuple(pool), labels, num_workers=num_workers)
    tested = lists["test"]
    test = ImageFiles(root, tuple(tested.paths), tested.labels, num_workers=num_workers)
    split = natural_split(labels, validation=validation)
    return LabelledImages(train, test, _class_names(lists["train"], num_classes), split)


def _read(name: str, lists_dir: Path) -> dict[str, ImageList]:
    lists = {}
    for part, file in PUBLISHED_LISTS[name].items():
        path = lists_dir / file
        if not path.is_file():
            raise MissingInputError(
                f"image list {path} does not exist. {name} needs {', '.join(PUBLISHED_LISTS[name].values())}; "
                "say where they are with --splits-dir FOLDER."
            )
        lists[part] = read_image_list(path)
    return lists


def _checked_classes(lists: Mapping[str, ImageList]) -> int:
    """C; every class 0 .. C - 1 is trained on, and no other list has a class beyond these."""
    train = lists["train"]
    counts = np.bincount(train.labels)
    if (counts == 0).any():
        raise DataError(
            f"{train.file} has no image of class {int(np.argmin(counts))} (classes 0 .. {len(counts) - 1})."
        )
    for images in lists.values():
        if (strange := np.flatnonzero(images.labels >= len(counts))).size:
            row = int(strange[0])
            raise DataError(
                f"{images.where(row)}: class {images.labels[row]} has no training image "
                f"(classes 0 .. {len(counts) - 1})."
            )
    return len(counts)


def _refuse_shared(lists: Mapping[str, ImageList]) -> None:
    """DataError where an image is in two of the lists."""
    list_of: dict[str, ImageList] = {}
    for images in lists.values():
        for row, path in enumerate(images.paths):
            other = list_of.setdefault(path, images)
            if other is not images:
                raise DataError(
                    f"{images.where(row)}: {printable(path)} is in {other.file.name} as well."
                )


def _class_names(train: ImageList, num_classes: int) -> list[str]:
    """The folder of each class below their common folder; the class's number where folders are not classes."""
    folders: dict[int, set[str]] = {}
    for path, label in zip(train.paths, train.labels.tolist(), strict=True):
        folders.setdefault(label, set()).add(path.rpartition("/")[0])
    distinct = set().union(*folders.values())
    if any(len(one) > 1 for one in folders.values()) or len(distinct) < num_classes:
        return [str(label) for label in range(num_classes)]
    common = os.path.commonpath(distinct) if "" not in distinct else ""
    names = [next(iter(folders[label])) for label in range(num_classes)]
    return [printable(os.path.relpath(name, common) if common else name) for name in names]
