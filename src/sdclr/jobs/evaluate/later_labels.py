"""Labels supplied after a run was trained: a table of names and labels for some or all of its images."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.addresses import Place
from sdclr.config import user_path, user_place
from sdclr.data import Data, DataConfig, Images, build_data
from sdclr.data.choices import LIST_SUFFIXES, SPREADSHEETS, TABLE_SUFFIXES
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import printable
from sdclr.data.grouping import group_images, require_apart
from sdclr.data.sources.image_lists import ListedImages, is_other_encoding, read_listed_images
from sdclr.data.sources.listed_names import match_names, with_slashes
from sdclr.data.sources.own_images import class_names_of
from sdclr.data.splits import Positions, natural_split
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import command, shown, table_text

SOURCES = ("images", "arrays")
"""Data sets whose labels may come from a file; the others have their own."""
NAMES_TRIED = 64
"""Rows inspected to guess where a table's paths begin, if it names no image of a run."""


def labelled_data(
    trained: Data, config: DataConfig, labels: Path, *, exclude: Path
) -> tuple[Data, dict[str, Any]]:
    """The images of ``trained`` that the file ``labels`` names, with their natural split; and facts about them.

    ``config``: the evaluation's data settings; its test set is read with the same class names. ``exclude``: a folder
    to skip when folders are searched. The file's paths are relative to the root of the run's images, or to
    ``data.root``. Names that match no image of the run are left out with a warning; DataError if none matches.
    """
    if trained.name not in SOURCES:
        raise ConfigError(
            f"--labels is for images without labels of their own; {trained.name} has labels. Leave it out."
        )
    begin = None if config.root is None else user_path(config.root)
    listed = _read(labels, trained.train, config, begin)
    positions, rows = _found(listed, trained.train, begin)
    assert listed.labels is not None
    texts = [listed.labels[row] for row in rows]
    class_names = class_names_of(texts)
    train = trained.train.at(positions).with_labels(_ids(texts, class_names))
    assert train.labels is not None
    test = trained.test if trained.name == "arrays" else None
    if config.test_path is not None:
        test = _test_images(config, class_names, train, exclude)
    groups = None
    if config.group_by is not None:
        own = {name: [cells[row] for row in rows] for name, cells in listed.columns.items()}
        groups = group_images(train, config.group_by, own)
        if test is not None:
            require_apart(groups, group_images(test, config.group_by))
    # cross-validation holds out images itself
    held_out = 0 if test is None else config.validation_per_class
    split = natural_split(
        train.labels,
        validation_per_class=held_out,
        groups=None if groups is None else groups.of_image,
        seed=config.split,
    )
    names = [printable(name) for name in class_names]
    data = replace(trained, train=train, test=test, class_names=names, split=split)
    data = replace(data, groups=groups, remarks=())
    return data, {
        "source": labels.name,
        "sha256": hashlib.sha256(labels.read_bytes()).hexdigest(),
        "num_labelled": len(positions),
        "num_images": len(trained.train),
        "num_unknown_names": len(listed.paths) - len(positions),
    }


def _read(labels: Path, images: Images, config: DataConfig, begin: Path | None) -> ListedImages:
    """The rows of the file that have a label."""
    if labels.is_dir():
        raise DataError(
            f"{shown(labels)} is a folder; --labels takes a table with the columns path and label. Where the "
            "sub-folders of the run's images are the classes, use data.labels=folders."
        )
    if labels.suffix.lower() in SPREADSHEETS:
        raise DataError(f"{shown(labels)} is a spreadsheet: save it as CSV.")
    listed = read_listed_images(
        labels,
        _root_on_disk(images) if begin is None else begin,
        path_column=config.path_column,
        label_column=config.label_column,
        unlabelled="leave_out",
        boxes="none"
        if config.boxes == "none"
        else "auto",  # a box of the run is identified by its table or its name
        box_categories=config.box_categories,
        min_confidence=config.min_confidence,
    )
    if listed.labels is None:
        raise DataError(
            f"{labels} has no labels. It needs a column label (or class, target) beside that of the paths; name "
            "another one with data.label_column=NAME."
        )
    return listed


def _found(listed: ListedImages, images: Images, begin: Path | None) -> tuple[Positions, list[int]]:
    """Positions of the named images, ascending, and the row of the file that names each."""
    found: dict[int, int] = {}
    unknown: list[int] = []
    for row, position in enumerate(positions_of(listed, images, begin)):
        if position is None:
            unknown.append(row)
        elif position in found:
            name = listed.name(row)
            raise DataError(f"{listed.where(row)}: {printable(name)} has a label already.")
        else:
            found[position] = row
    if unknown:
        _warn_of_unknown(listed, unknown, images)
    in_order = sorted(found)
    return np.array(in_order, dtype=np.int64), [found[position] for position in in_order]


def _root_on_disk(images: Images) -> Path | None:
    """The folder that image names are relative to; None for images that are not files on a disk."""
    root = None if images.files is None else images.files.root
    return root if isinstance(root, Path) else None


def positions_of(listed: ListedImages, images: Images, begin: Path | None) -> list[int | None]:
    """The position of the image that each entry of a list names, [rows]; None for an unknown name.

    ``begin``: the folder that the list's paths are relative to, if not the images' root.
    """
    position_of = {
        **{table_text(str(name)): position for position, name in enumerate(images.names)},
        **{name: position for position, name in enumerate(images.names)},
    }
    # the names as the table writes them, and relative to ``begin``
    written, below = listed, listed
    files, num_backslashes = images.files, 0
    slashed = listed._replace(paths=list(map(with_slashes, listed.paths)))
    slashed_below = slashed
    if files is not None and begin is not None:
        below = listed._replace(paths=_names_below(begin, listed.paths, files))
        slashed_below = listed._replace(paths=_names_below(begin, slashed.paths, files))
    if files is not None and isinstance(files.root, Path) and files.members is None:
        here, there = (match_names(files.root, one.paths) for one in (written, below))
        written, below = listed._replace(paths=here.paths), listed._replace(paths=there.paths)
    archive = _archive(images)
    positions: list[int | None] = []
    for row in range(len(listed.paths)):
        name = written.name(row)
        found = _first_of((below.name(row), name, f"{archive}{name}"), position_of)
        if found is None and "\\" in listed.paths[row]:
            tried = (slashed_below.name(row), slashed.name(row), f"{archive}{slashed.name(row)}")
            found = _first_of(tried, position_of)
        # counted only if it is not a name as it stands, with or without escapes
        num_backslashes += (
            found is not None and "\\" in listed.paths[row] and listed.name(row) not in position_of
        )
        positions.append(found)
    if num_backslashes:
        warnings.warn(
            f"{num_backslashes} names of {listed.file.name} have \\ between folders, as Windows writes them; it was "
            "read as /.",
            stacklevel=5,
        )
    return positions


def _first_of(names: Sequence[str], position_of: Mapping[str, int]) -> int | None:
    return next((position_of[one] for one in names if one in position_of), None)


def _archive(images: Images) -> str:
    """The common prefix of all names if one .zip or shard contains the images: a table may omit it."""
    if images.files is None or images.files.members is None:
        return ""
    first = {name.partition("/")[0] for name in images.names}
    return f"{first.pop()}/" if len(first) == 1 else ""


def _names_below(begin: Path, paths: Sequence[str], images: ImageFiles) -> list[str]:
    """Paths relative to ``begin`` (a folder, zip or shard), rewritten relative to the root of the run's images."""
    root, begin = Path(os.path.realpath(images.root)), Path(os.path.realpath(begin))
    return [os.path.relpath(begin / path, root) for path in paths]


def _warn_of_unknown(listed: ListedImages, unknown: Sequence[int], images: Images) -> None:
    first = f"{listed.where(unknown[0])}: {printable(listed.paths[unknown[0]])}"
    if len(unknown) == len(listed.paths):
        name = printable(images.names[0])
        cure = "Write paths relative to the run's folder of images, or absolute ones below it."
        if images.files is None:
            cure = "The images of a .npz have no names: write their positions, from 0, in the column path."
        elif (
            place := _where_names_begin(list(map(with_slashes, listed.paths)), images.files)
        ) is not None:
            cure = f"They are below {shown(place)}: add {command(f'data.root={place}')} to the command."
        raise DataError(
            f"{listed.file} names no image of this run (first: {first}); those have names like {name}. {cure}"
        )
    others = " Images that it was not trained on can be its test set: data.test_path."
    if images.files is None:
        others = ""
    elif any(is_other_encoding(listed.paths[row]) for row in unknown):
        others = f" {listed.file.name} is not UTF-8: save it as UTF-8 (a spreadsheet: CSV UTF-8)."
    warnings.warn(
        f"{len(unknown)} of {len(listed.paths)} labelled names are not images of this run and are left out (first: "
        f"{first}).{others}",
        stacklevel=5,
    )


def _where_names_begin(paths: Sequence[str], images: ImageFiles) -> Path | None:
    """The likely folder below which the first of these paths are images of the run; None if there is none."""
    known, sample = set(images.paths), paths[:NAMES_TRIED]
    common = os.path.commonpath([os.path.dirname(path) for path in images.paths])
    if not isinstance(images.root, Path):
        return None
    for place in (Path.cwd(), images.root.parent, images.root / common):
        if known.intersection(_names_below(place, sample, images)):
            return place.absolute()
    return None


def _ids(texts: Sequence[str], class_names: Sequence[str]) -> Positions:
    id_of = {name: number for number, name in enumerate(class_names)}
    return np.array([id_of[text] for text in texts], dtype=np.int64)


def _test_images(
    config: DataConfig, class_names: Sequence[str], train: Images, exclude: Path
) -> Images:
    """The labelled test set at ``config.test_path``, its labels numbered like the training classes."""
    assert config.test_path is not None
    path = user_place(config.test_path)
    folders = "folders" if path.is_dir() else "none"
    alone = config.with_values(
        {"path": str(path), "test_path": None, "labels": folders, "validation_per_class": 0}
    )
    if path.suffix.lower() not in TABLE_SUFFIXES:
        alone = alone.with_values({"path_column": None, "label_column": None})
    if path.suffix.lower() not in LIST_SUFFIXES:
        alone = alone.with_values({"root": None})
    found = build_data(alone, exclude=[exclude])
    if found.train.labels is None:
        raise DataError(
            f"test set {path} has no labels. Give a list with labels, or a folder of class folders."
        )
    known = {printable(name): number for number, name in enumerate(class_names)}
    if unknown := [name for name in found.class_names if name not in known]:
        raise DataError(
            f"test set {path} has a class that no labelled training image has: {', '.join(unknown[:3])}"
            f"{', ...' * (len(unknown) > 3)}. The classes of the labels are {', '.join(list(known)[:10])}"
            f"{', ...' * (len(known) > 10)}."
        )
    _refuse_shared(train, found.train, path)
    number_of = np.array([known[name] for name in found.class_names], dtype=np.int64)
    return found.train.with_labels(number_of[found.train.labels])


def _refuse_shared(train: Images, test: Images, path: Place) -> None:
    """Raise DataError if a labelled training image is a test image; having been seen unlabelled is allowed."""
    learned = set(_places(train))
    if shared := [place for place in _places(test) if place in learned]:
        raise DataError(
            f"{len(shared)} of {len(test)} images of test set {path} have a label to learn from as well (first: "
            f"{printable(shared[0])}). Take them out of one of the two."
        )


def _places(images: Images) -> list[str]:
    files = images.files
    if files is None:
        return []
    root = os.path.realpath(files.root)
    if files.members is not None:
        return [os.path.join(root, name) for name in files.paths]
    return [os.path.realpath(os.path.join(root, name)) for name in files.paths]
