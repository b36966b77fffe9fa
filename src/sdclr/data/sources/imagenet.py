"""ImageNet-100 and ImageNet-LT-exp: images on disk, split by the authors' lists.

C classes. The pool is every distinct training file that a list names, in the order of its names; the positions of the
split point into it. Opens no image and reads the state of no file. The class folders are listed for the check of links,
and where the full training list is absent, which they then replace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdclr.data.choices import AUTHORS_IMAGENET_LISTS, Links
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import LabelledImages
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.links import LinkCheck
from sdclr.data.sources.listing import IMAGE_SUFFIXES
from sdclr.data.sources.split_files import ImageList, read_image_list
from sdclr.data.splits import SUBSETS, Positions, Split
from sdclr.errors import DataError, MissingInputError

Lists = Mapping[str, ImageList]


def read_imagenet(
    name: str,
    root: Path,
    splits_dir: Path,
    *,
    num_workers: int | None = None,
    links: Links = "inside",
) -> LabelledImages:
    """``name`` (a key of AUTHORS_IMAGENET_LISTS) from ``root``, which holds train/ and val/, and the authors' folder.

    Raises MissingInputError for an absent folder or list, and DataError, naming list and line, for lists that do not
    fit together and, unless ``links`` may lead anywhere, for images that are outside ``root``.
    """
    for folder in (root, root / "train", root / "val"):
        if not folder.is_dir():
            raise MissingInputError(
                f"{name}: folder {folder} does not exist. {root} must hold ImageNet's train/ and val/, with a folder "
                "for each class."
            )
    lists = _read_lists(name, splits_dir)
    label_of = _label_of_each_image(lists)
    folder_of = _folder_of_each_class(lists)
    _refuse_overlap(lists)
    if "train" in lists:
        train = lists["train"].paths
    else:
        listed = _list_class_folders(root, folder_of)
        train = _remaining(listed, lists, root)
        label_of |= listed
    link_check = LinkCheck(root, links)
    for images in lists.values():
        link_check.refuse_ways_out(images.paths, images.where)
    link_check.refuse_ways_out(train, lambda row: f"the class folders of {root}")
    pool, positions = _pool(lists, train)
    labels = np.array([label_of[path] for path in pool], dtype=np.int64)
    test = ImageFiles(
        root, tuple(lists["test"].paths), lists["test"].labels, num_workers=num_workers
    )
    split = Split(
        long_tail=positions["long_tail"],
        balanced=positions["balanced"],
        few_shot=positions["few_shot"],
        train=positions["train"],
        validation=positions["validation"],
        number=1,
        source="authors' lists",
    )
    class_names = [folder.rpartition("/")[2] for folder in folder_of]
    pool_files = ImageFiles(root, tuple(pool), labels, num_workers=num_workers)
    return LabelledImages(pool_files, test, class_names, split)


def _read_lists(name: str, splits_dir: Path) -> dict[str, ImageList]:
    """Every list that is present; only the full training list may be absent."""
    lists = {}
    for subset, file in AUTHORS_IMAGENET_LISTS[name].items():
        path = splits_dir / file
        if path.is_file():
            lists[subset] = read_image_list(path)
        elif subset != "train":
            raise MissingInputError(
                f"image list {path} does not exist. It is in the authors' repository (VITA-Group/SDCLR, folder split); "
                "is data.splits_dir a copy of that folder?"
            )
    return lists


# ---- checks over all lists


def _label_of_each_image(lists: Lists) -> dict[str, int]:
    label_of: dict[str, int] = {}
    for images in lists.values():
        for row, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
            if label_of.setdefault(path, label) != label:
                raise DataError(
                    f"{images.where(row)}: {path!r} has label {label}, but {label_of[path]} in another list. "
                    "These lists do not belong together."
                )
    return label_of


def _folder_of_each_class(lists: Lists) -> list[str]:
    """The training folder of every class [C], train/n01440764 for example; every list must have every class."""
    num_classes = _count_classes(lists)
    folder_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    for images in lists.values():
        for row, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
            folder = path.rpartition("/")[0]
            class_name = folder.rpartition("/")[2]
            if not class_name:
                raise DataError(f"{images.where(row)}: {path!r} is in no class folder.")
            known = folder_of.setdefault(label, folder)
            if (
                label_of.setdefault(class_name, label) != label
                or known.rpartition("/")[2] != class_name
            ):
                raise DataError(
                    f"{images.where(row)}: label {label} for class folder {class_name}, but elsewhere "
                    f"{known.rpartition('/')[2]} has label {label} and {class_name} has {label_of[class_name]}."
                )
        counts = np.bincount(images.labels, minlength=num_classes)
        if (counts == 0).any():
            raise DataError(
                f"{images.file} has no image of class {np.argmin(counts)} (classes 0 .. {num_classes - 1})."
            )
    return [folder_of[label] for label in range(num_classes)]


def _count_classes(lists: Lists) -> int:
    """C, where labels are 0 .. C - 1 without a gap."""
    present = np.unique(np.concatenate([images.labels for images in lists.values()]))
    if present[-1] != len(present) - 1:
        images = next(images for images in lists.values() if present[-1] in images.labels)
        gap = np.flatnonzero(present != np.arange(len(present)))[0]
        raise DataError(
            f"{images.where(int(images.labels.argmax()))}: label {present[-1]}, but no list has an image of class "
            f"{gap}. Classes are numbered 0 .. C - 1."
        )
    return len(present)


def _refuse_overlap(lists: Lists) -> None:
    """Refuse images that are both trained on and used for validation or testing."""
    held_out = {path: part for part in ("validation", "test") for path in lists[part].paths}
    for name in ("long_tail", "balanced", "few_shot", "train", "validation"):
        for row, path in enumerate(lists[name].paths if name in lists else ()):
            if held_out.get(path, name) != name:
                raise DataError(
                    f"{lists[name].where(row)}: {path!r} is in {lists[held_out[path]].file.name} as well. "
                    f"No {held_out[path]} image may be in another list."
                )


# ---- the pool


def _list_class_folders(root: Path, folders: list[str]) -> dict[str, int]:
    """Label of every image file in the class folders, sorted within each. Lists folders, opens no file."""
    label_of: dict[str, int] = {}
    for label, folder in enumerate(folders):
        try:
            with os.scandir(root / folder) as entries:
                # a link counts as a file: whether it is broken shows when it is read
                names = sorted(
                    e.name for e in entries if e.is_symlink() or e.is_file(follow_symlinks=False)
                )
        except (FileNotFoundError, NotADirectoryError):
            raise MissingInputError(
                f"class folder {printable(root / folder)} does not exist."
            ) from None
        images = (
            name
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )
        label_of |= {f"{folder}/{name}": label for name in images}
    return label_of


def _remaining(listed: Mapping[str, int], lists: Lists, root: Path) -> list[str]:
    """The full training list: every file of the class folders that is not held out for validation.

    Raises MissingInputError where the other lists name files that the folders lack: too few would remain.
    """
    named = {
        path: None for name, images in lists.items() if name != "test" for path in images.paths
    }
    if absent := [path for path in named if path not in listed]:
        raise MissingInputError(
            f"{len(absent)} of {len(named)} listed training images are not in their class folders below {root} "
            f"(first: {', '.join(map(printable, absent[:3]))}). Restore them."
        )
    held_out = set(lists["validation"].paths)
    return [path for path in listed if path not in held_out]


def _pool(lists: Lists, train: list[str]) -> tuple[list[str], dict[str, Positions]]:
    """Every distinct training file by name, and the positions of each subset in it.

    The training list is sorted, so that it does not matter whether it was read or derived.
    """
    paths_of = {name: images.paths for name, images in lists.items() if name != "test"} | {
        "train": sorted(train)
    }
    pool = sorted(set().union(*paths_of.values()))
    position_of = {path: position for position, path in enumerate(pool)}
    return pool, {
        name: np.array([position_of[path] for path in paths_of[name]], dtype=np.int64)
        for name in SUBSETS
    }
