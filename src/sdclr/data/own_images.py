"""A collection of somebody's own images: a folder, a list, a table or shards, taken as it is. Opens no image.

N images, C classes. Labels are known where a list brings them, or where sub-folders are said to be classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdclr.data.decode import printable
from sdclr.data.image_files import ImageFiles
from sdclr.data.image_lists import read_csv_list, read_txt_list
from sdclr.data.images import LabelledImages
from sdclr.data.links import Fence, Links
from sdclr.data.listing import list_images
from sdclr.data.splits import Positions
from sdclr.data.tar_shards import Members, expand_braces, read_shards
from sdclr.errors import ConfigError, DataError, MissingInputError

ACCEPTED = (
    "a folder (searched with its sub-folders), a .txt list (lines 'relative/path' or 'relative/path label'), a .csv "
    "with a column path (and label), uncompressed .tar shards (one, 'NAME-{000..099}.tar', or a folder of them), or a "
    ".npz of arrays (with data.name=arrays)"
)
SHARD_SUFFIX = ".tar"
_READERS = {".txt": read_txt_list, ".csv": read_csv_list}


class _Found(NamedTuple):
    """Image files that one source names."""

    root: Path
    paths: list[str]
    labels: list[str] | None
    """[N], the class of each as text."""
    remarks: list[str]
    members: Members | None = None
    """Where the images lie, if in shards."""


def read_own_images(
    path: Path,
    *,
    root: Path | None = None,
    class_folders: bool = False,
    test_path: Path | None = None,
    exif_rotation: bool = False,
    num_workers: int | None = None,
    exclude: Iterable[Path | str] = (),
    links: Links = "inside",
) -> LabelledImages:
    """The images at ``path``, and the labelled test set at ``test_path``: each a folder, a list, a .csv or shards.

    ``root``: what the paths of lists are relative to (default: each list's own folder). ``class_folders``: the
    sub-folders of ``path`` are its classes; those of a test folder always are. ``exclude``: folders to leave out.
    ``links``: whether those below a folder, or below the root of a list, may lead out of it. A test class that no
    training image has is an error, and so is an image in both sets.
    """
    sources = [path] if test_path is None else [path, test_path]
    if root is not None and all(source.is_dir() for source in sources):
        raise ConfigError(
            f"data.root={root} is for a .txt list or a .csv, and {path} is a folder: its paths begin there. "
            "Leave data.root out."
        )
    if class_folders and path.is_file():
        raise ConfigError(
            f"data.labels=folders is for folders; {path} is a list or a shard, which bring their own labels."
        )
    train = _find(path, root, class_folders, exclude, links)
    class_names = _class_names(train.labels)
    test = None
    if test_path is not None:
        found = _find(test_path, root, test_path.is_dir(), exclude, links)
        _check_test(found, test_path, class_names, path)
        _refuse_overlap(train, found)
        test = _files(found, class_names, exif_rotation, num_workers)
        train.remarks.extend(_without_test_images(class_names, found))
    return LabelledImages(
        _files(train, class_names, exif_rotation, num_workers),
        test,
        [printable(name) for name in class_names],
        remarks=tuple(train.remarks),
    )


def _find(path: Path, root: Path | None, class_folders: bool, exclude: Iterable[Path | str], links: Links) -> _Found:
    if path.suffix.lower() == SHARD_SUFFIX and not path.is_dir():
        # whoever names a shard means it, wherever a link of that name leads
        names = [path.name] if path.exists() else expand_braces(path.name)
        return _find_in_shards(path.parent, names, root)
    if not path.exists():
        raise MissingInputError(f"{printable(path)} does not exist. Images are taken from {ACCEPTED}.")
    if path.is_dir():
        return _find_in_folder(path, class_folders, exclude, links)
    read = _READERS.get(path.suffix.lower())
    if read is None or not path.is_file():
        raise DataError(f"{printable(path)} is no collection of images. Give {ACCEPTED}.")
    if root is not None and not root.is_dir():
        raise MissingInputError(f"data.root={printable(root)} is no folder; the paths of {path} should begin there.")
    listed, root = read(path), path.parent if root is None else root
    Fence(root, links).refuse_ways_out(listed.paths, listed.where)
    return _Found(root, listed.paths, listed.labels, [])


def _find_in_folder(folder: Path, class_folders: bool, exclude: Iterable[Path | str], links: Links) -> _Found:
    exclude = list(exclude)
    listing = list_images(folder, exclude, links=links)
    remarks = listing.remarks()
    shards = [] if listing.paths else list_images(folder, exclude, (SHARD_SUFFIX,), links).paths
    if shards:
        if class_folders:
            raise ConfigError(f"data.labels=folders is for folders of images; {folder} holds shards. Leave it out.")
        return _find_in_shards(folder, shards, None)
    if not listing.paths:
        but = f" ({', '.join(remarks)})" if remarks else ""
        raise DataError(f"folder {printable(folder)} holds no images{but}. Give {ACCEPTED}.")
    labels = _labels_by_folder(folder, listing.paths) if class_folders else None
    return _Found(folder, listing.paths, labels, remarks)


def _find_in_shards(folder: Path, names: list[str], root: Path | None) -> _Found:
    if root is not None:
        raise ConfigError(f"data.root={root} is for a .txt list or a .csv, and not for shards. Leave it out.")
    found = read_shards(folder, names)
    return _Found(folder, found.paths, found.labels, found.remarks, found.members)


def _labels_by_folder(folder: Path, paths: list[str]) -> list[str]:
    """The first-level sub-folder of every image."""
    if outside := [path for path in paths if "/" not in path]:
        raise DataError(
            f"{len(outside)} of {len(paths)} images lie in no class folder of {printable(folder)} (first: "
            f"{printable(outside[0])}). Move them into one, or use data.labels=none."
        )
    labels = [path.partition("/")[0] for path in paths]
    if len(set(labels)) == 1:
        raise DataError(
            f"{printable(folder)} has one class folder only, {printable(labels[0])}. Give the folder whose sub-folders "
            "are the classes, or use data.labels=none."
        )
    return labels


def _class_names(labels: list[str] | None) -> list[str]:
    """The distinct labels [C]: by value where all are whole numbers, else as text."""
    names = sorted(set(labels or ()))
    return sorted(names, key=int) if all(name.isascii() and name.isdigit() for name in names) else names


def _files(found: _Found, class_names: list[str], exif_rotation: bool, num_workers: int | None) -> ImageFiles:
    labels: Positions | None = None
    if found.labels is not None:
        id_of = {name: number for number, name in enumerate(class_names)}
        labels = np.array([id_of[label] for label in found.labels], dtype=np.int64)
    return ImageFiles(
        found.root,
        tuple(found.paths),
        labels,
        exif_rotation=exif_rotation,
        num_workers=num_workers,
        members=found.members,
    )


def _check_test(test: _Found, test_path: Path, class_names: list[str], train_path: Path) -> None:
    """A test set has labels, and no class that training does not have."""
    if not class_names:
        raise ConfigError(
            f"data.test_path={test_path} is for evaluation, and {train_path} has no labels to learn from. Use "
            "data.labels=folders or a list with labels, or leave data.test_path out."
        )
    if test.labels is None:
        raise DataError(f"test set {test_path} has no labels. Give a list with labels, or a folder of class folders.")
    known = set(class_names)
    if unknown := sorted(set(test.labels) - known):
        raise DataError(
            f"test set {test_path} has a class that no training image of {train_path} has: "
            f"{', '.join(map(printable, unknown[:3]))}{', ...' * (len(unknown) > 3)}. The training classes are "
            f"{', '.join(map(printable, class_names[:10]))}{', ...' * (len(class_names) > 10)}."
        )


def _without_test_images(class_names: list[str], test: _Found) -> list[str]:
    """A remark that names the classes that no test image has."""
    missing = sorted(set(class_names) - set(test.labels or ()))
    if not missing:
        return []
    shown = ", ".join(map(printable, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return [f"classes without a test image: {shown} (evaluate with --untested leave_out, or add some)"]


def _refuse_overlap(train: _Found, test: _Found) -> None:
    """No image that is trained on may be one that measures, under whatever link."""
    trained_on = set(_places(train))
    if shared := [path for path, place in zip(test.paths, _places(test), strict=True) if place in trained_on]:
        raise DataError(
            f"{len(shared)} of {len(test.paths)} test images are training images as well (first: "
            f"{printable(shared[0])}). Keep the test set outside of the training images."
        )


def _places(found: _Found) -> list[tuple[str, int]]:
    """Where each image lies: its file, links to folders and shards resolved, and the first byte there."""
    root = os.path.realpath(found.root)
    if found.members is None:
        return [(os.path.join(root, path), 0) for path in found.paths]
    files = [os.path.realpath(os.path.join(root, shard)) for shard in found.members.shards]
    where = zip(found.members.shard.tolist(), found.members.start.tolist(), strict=True)
    return [(files[shard], start) for shard, start in where]
