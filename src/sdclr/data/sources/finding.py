"""The images of one source of a user's collection, by its kind: folder, list, table, glob, zip or shards.

Opens no image.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from sdclr.addresses import Address, Place
from sdclr.data.choices import (
    LIST_SUFFIXES,
    SHARD_SUFFIX,
    SPREADSHEETS,
    TABLE_SUFFIXES,
    ZIP_SUFFIX,
)
from sdclr.data.collections.boxes import Boxes, written
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.found_images import FoundImages, labels_by_folder
from sdclr.data.sources.globs import Glob, glob_of
from sdclr.data.sources.image_lists import ListedImages, is_other_encoding, read_listed_images
from sdclr.data.sources.links import LinkCheck
from sdclr.data.sources.list_root import require_right_root
from sdclr.data.sources.listed_names import match_names
from sdclr.data.sources.listing import IMAGE_SUFFIXES, list_images
from sdclr.data.sources.remote_shards import shards_at
from sdclr.data.sources.split_files import backslash_problem
from sdclr.data.sources.split_folders import (
    splits_are_no_classes,
    splits_by_name,
    trained_on_all,
)
from sdclr.data.sources.tar_shards import expand_braces, read_shards
from sdclr.data.sources.wanted import Wanted
from sdclr.data.sources.zip_files import read_zip
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.safe_text import shown

ACCEPTED = (
    "a folder of images, one image, a .txt list, a table (.csv, .tsv, .jsonl, .json, .parquet), .tar shards (also at "
    "s3:// or https://), a .zip, a quoted glob ('photos/**/*.jpg'), or a .npz of arrays (data.name=arrays)"
)
"""What a collection may be; docs/own-images.md has the details."""

FILES = "files and folders"


def has_folders(path: Place) -> bool:
    """Whether a collection is a folder, or a zip of one."""
    return path.is_dir() or path.suffix.lower() == ZIP_SUFFIX


def find_images(path: Place, wanted: Wanted) -> FoundImages:
    """The images of a folder, list, table, glob, zip or shards, by what is at ``path``.

    MissingInputError where nothing is there, DataError for something that is not a collection or has no image,
    ConfigError for a setting that is not for its kind.
    """
    if isinstance(path, Address):
        folder, names = shards_at(path)
        return _find_in_shards(folder, names, wanted)
    if (glob := glob_of(path)) is not None:
        return _find_by_glob(glob, path, wanted)
    if path.suffix.lower() == SHARD_SUFFIX and not path.is_dir():
        # a shard that is named is meant, wherever a link of that name leads
        names = [path.name] if path.exists() else expand_braces(path.name)
        return _find_in_shards(path.parent, names, wanted)
    if path.suffix.lower() == ZIP_SUFFIX and path.is_file():
        return _find_in_zip(path, wanted)
    if not path.exists():
        raise MissingInputError(
            f"{printable(path)} does not exist. Images are taken from {ACCEPTED}."
        )
    if path.is_dir():
        return _find_in_folder(path, wanted)
    if path.suffix.lower() in IMAGE_SUFFIXES + wanted.also and path.is_file():
        _refuse_root(wanted, "one image")
        if path.name in wanted.unwanted:
            raise DataError(
                f"data.exclude leaves out {printable(path)}, the only image. Give other globs."
            )
        return FoundImages(path.parent, [path.name], None, [])
    if path.suffix.lower() not in LIST_SUFFIXES or not path.is_file():
        what = (
            "is a spreadsheet: save it as CSV"
            if path.suffix.lower() in SPREADSHEETS
            else "is not a collection of images"
        )
        raise DataError(f"{printable(path)} {what}. Give {ACCEPTED}.")
    return _find_in_list(path, wanted)


def _find_by_glob(glob: Glob, path: Path, wanted: Wanted) -> FoundImages:
    """The images below the folder before the first * whose paths match."""
    _refuse_root(wanted, "a glob")
    if not glob.root.is_dir():
        raise MissingInputError(
            f"folder {printable(glob.root)} of the glob {printable(path)} does not exist."
        )
    suffix = path.suffix.lower()
    is_shards = suffix == SHARD_SUFFIX
    suffixes = (SHARD_SUFFIX,) if is_shards else IMAGE_SUFFIXES + wanted.also
    listing = list_images(
        glob.root, wanted.left_out_folders, suffixes, wanted.links, wanted.unwanted, glob
    )
    paths = glob.matching(listing.paths)
    if not paths:
        but = "".join(f"; {remark}" for remark in listing.remarks())
        raise DataError(
            f"no image of {len(listing.paths)} below {printable(glob.root)} matches {printable(path)}{but}. * stays "
            "inside a folder, ** is any number of folders, capitals matter."
        )
    if is_shards:
        if wanted.class_folders:
            raise ConfigError(
                "data.labels=folders is for folders of images, and not for shards. Leave it out."
            )
        return _find_in_shards(glob.root, paths, wanted)
    others = len(listing.paths) - len(paths)
    remarks = listing.remarks() + (
        [f"images that the glob does not match left out: {others}"] if others else []
    )
    taken = FoundImages(glob.root, paths, None, remarks)
    return taken._replace(labels=labels_by_folder(taken)) if wanted.class_folders else taken


def _find_in_list(path: Path, wanted: Wanted) -> FoundImages:
    """The images that a .txt list or a table names, with the labels, boxes and columns in it."""
    if wanted.root is not None and not wanted.root.is_dir():
        raise MissingInputError(
            f"data.root={printable(wanted.root)} is not a folder; the paths of {path} should begin there."
        )
    is_table = path.suffix.lower() in TABLE_SUFFIXES  # one of two sources may be a list of lines
    listed = read_listed_images(
        path,
        wanted.root,
        path_column=wanted.path_column if is_table else None,
        label_column=wanted.label_column if is_table else None,
        boxes=wanted.boxes,
        box_categories=wanted.box_categories,
        min_confidence=wanted.min_confidence,
        unlabelled="keep_all",  # decided on once data.exclude is known
    )
    require_right_root(listed, wanted.root)
    root = path.parent if wanted.root is None else wanted.root
    matched = match_names(root, listed.paths)
    _refuse_unreadable(listed, root, matched.paths)
    _refuse_repeated(listed, matched.paths)
    rows = [row for row, name in enumerate(matched.paths) if name not in wanted.unwanted]
    num_unwanted = len(matched.paths) - len(rows)
    if not rows:
        raise DataError(
            f"data.exclude leaves out all {len(matched.paths)} images of {printable(path)}. Give other globs."
        )
    rows, labels, of_labels = _labels_of(listed, rows, path, wanted)
    paths = [matched.paths[row] for row in rows]
    LinkCheck(root, wanted.links).refuse_ways_out(paths, lambda row: listed.where(rows[row]))
    found = FoundImages(
        root,
        paths,
        labels,
        remarks=[
            *listed.remarks,
            *of_labels,
            *matched.remarks(),
            *_unwanted("images", num_unwanted),
        ],
        columns={name: [cells[row] for row in rows] for name, cells in listed.columns.items()},
        is_of_turned_pictures=listed.is_of_turned_pictures,
    )
    if listed.boxes is None:
        return found
    corners = np.array([listed.boxes[row] for row in rows], dtype=np.float64)
    names = [f"{matched.paths[row]}#{written(listed.boxes[row])}" for row in rows]
    return found._replace(paths=names, boxes=Boxes(tuple(paths), corners, listed.box_unit))


def _labels_of(
    listed: ListedImages, rows: list[int], path: Path, wanted: Wanted
) -> tuple[list[int], list[str] | None, list[str]]:
    """Of these rows those that are taken, their labels, and remarks: what ``wanted.unlabelled`` makes of them."""
    labels = listed.labels
    if labels is None and not listed.num_unlabelled:  # it has no column of labels
        return rows, None, []
    without = rows if labels is None else [row for row in rows if not labels[row]]
    if without and wanted.unlabelled == "refuse":
        raise DataError(
            f"{listed.where(without[0])}: no {listed.label_column}. Give every image one, or rename the column."
        )
    if labels is None or len(without) == len(rows):
        if wanted.unlabelled == "leave_out":
            raise DataError(
                f"{path}: no row has a {listed.label_column}. Fill in that column; rows without one are left out."
            )
        return rows, None, [f"no row of {path} has a label: the images are taken without labels"]
    if not without:
        return rows, [labels[row] for row in rows], []
    if wanted.unlabelled == "leave_out":
        kept = [row for row in rows if labels[row]]
        remark = f"rows of {path} without a label left out: {len(without)}"
        return kept, [labels[row] for row in kept], [remark]
    warnings.warn(
        f"{len(without)} of {len(rows)} rows of {printable(path)} have no label (first: {listed.unit} "
        f"{listed.lines[without[0]]}): all its images are taken without labels. Give every row one, or use those that "
        f"are there with `sdclr finetune` or `sdclr evaluate RUN --labels {printable(path)}`.",
        stacklevel=4,
    )
    return rows, None, []


def _refuse_unreadable(listed: ListedImages, root: Path, paths: list[str]) -> None:
    """DataError for a name with a backslash that no file has; a warning where names are in another encoding."""
    others = [row for row, path in enumerate(paths) if is_other_encoding(path)]
    if lost := [row for row in others if not os.path.lexists(root / paths[row])]:
        warnings.warn(
            f"{listed.file} is not UTF-8: no file is called {shown(paths[lost[0]])} ({listed.where(lost[0])}; "
            f"{len(lost)} such). Save it as UTF-8 (a spreadsheet: CSV UTF-8).",
            stacklevel=5,
        )
    for row, path in enumerate(paths):
        if "\\" in path and not os.path.lexists(root / path):
            raise DataError(f"{listed.where(row)}: {backslash_problem(path)}")


def _refuse_repeated(listed: ListedImages, paths: list[str]) -> None:
    """DataError where two entries, perhaps written in different forms, name one file."""
    row_of: dict[tuple[str, object], int] = {}
    for row, path in enumerate(paths):
        first = row_of.setdefault((path, None if listed.boxes is None else listed.boxes[row]), row)
        if first != row:
            raise DataError(
                f"{listed.where(row)}: {path!r} is listed already, in line {listed.lines[first]}."
            )


def _find_in_folder(folder: Path, wanted: Wanted) -> FoundImages:
    """The images below a folder; where there are none, those of the shards below it."""
    suffixes = IMAGE_SUFFIXES + wanted.also
    listing = list_images(folder, wanted.left_out_folders, suffixes, wanted.links, wanted.unwanted)
    remarks, shards = listing.remarks(), list[str]()
    if not listing.paths:
        found = list_images(
            folder, wanted.left_out_folders, (SHARD_SUFFIX,), wanted.links, wanted.unwanted
        )
        shards = found.paths
        remarks += [] if listing.num_unwanted else _unwanted(FILES, found.num_unwanted)
    if shards:
        if wanted.class_folders:
            raise ConfigError(
                f"data.labels=folders is for folders of images; {folder} holds shards. Leave it out."
            )
        # there is no image beside them: only remarks that the shards' own headers do not give are added
        in_shards = _find_in_shards(folder, shards, replace(wanted, root=None))
        return in_shards._replace(remarks=_unwanted(FILES, found.num_unwanted) + in_shards.remarks)
    if not listing.paths:
        but = f" ({', '.join(remarks)})" if remarks else ""
        raise DataError(f"folder {printable(folder)} holds no images{but}. Give {ACCEPTED}.")
    if wanted.in_splits:
        return FoundImages(folder, listing.paths, None, remarks)
    splits = splits_by_name(listing.paths)
    if splits and wanted.class_folders:
        raise DataError(splits_are_no_classes(folder, splits))
    taken = FoundImages(folder, listing.paths, None, remarks + trained_on_all(folder, splits))
    return taken._replace(labels=labels_by_folder(taken)) if wanted.class_folders else taken


def _find_in_zip(path: Path, wanted: Wanted) -> FoundImages:
    """As :func:`_find_in_folder` for the unpacked folder; if everything is in one folder, that is the collection."""
    _refuse_root(wanted, "a zip")
    zipped = read_zip(path, wanted.unwanted, wanted.also)
    found = FoundImages(
        path.parent, zipped.paths, None, zipped.remarks, zipped.members, prefix=zipped.prefix
    )
    if wanted.in_splits:
        return found
    splits = splits_by_name([name.removeprefix(zipped.prefix) for name in zipped.paths])
    if splits and wanted.class_folders:
        raise DataError(splits_are_no_classes(path, splits))
    found.remarks.extend(trained_on_all(path, splits))
    return found._replace(labels=labels_by_folder(found)) if wanted.class_folders else found


def _find_in_shards(folder: Place, names: list[str], wanted: Wanted) -> FoundImages:
    """The images of the shards of these names, below a folder or at an address."""
    _refuse_root(wanted, "shards")
    taken = [name for name in names if name not in wanted.unwanted]
    if not taken:
        raise DataError(
            f"data.exclude leaves out all {len(names)} shards below {printable(folder)}. Give other globs."
        )
    found = read_shards(folder, taken, wanted.unwanted, wanted.also, wanted.unlabelled)
    remarks = _unwanted(FILES, len(names) - len(taken)) + found.remarks
    return FoundImages(folder, found.paths, found.labels, remarks, found.members)


def _unwanted(what: str, number: int) -> list[str]:
    """A remark that counts what the user's globs leave out; empty if nothing."""
    return [f"{what} that data.exclude matches left out: {number}"] if number else []


def _refuse_root(wanted: Wanted, what: str) -> None:
    if wanted.root is not None:
        raise ConfigError(
            f"data.root={wanted.root} is for a list or a table, and not for {what}. Leave it out."
        )
