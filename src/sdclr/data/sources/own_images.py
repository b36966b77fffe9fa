"""A collection of a user's own images: a folder, a list, a table or shards, taken as it is. Opens no image.

N images, C classes. Labels are known where a list has them, or where sub-folders are declared to be classes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import chain

import numpy as np

from sdclr.addresses import Address, Place
from sdclr.data.choices import (
    MEGADETECTOR_CATEGORIES,
    MEGADETECTOR_CONFIDENCE,
    TABLE_SUFFIXES,
    ZIP_SUFFIX,
    Unlabelled,
)
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import LabelledImages
from sdclr.data.collections.packed_names import PackedNames
from sdclr.data.decoding.decode import printable
from sdclr.data.look_ahead import num_cores
from sdclr.data.remote.limits import CONNECTIONS
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.finding import find_images, has_folders
from sdclr.data.sources.found_images import FoundImages
from sdclr.data.sources.listing import HEIF_SUFFIXES
from sdclr.data.sources.split_folders import take_apart
from sdclr.data.sources.test_sets import (
    check_test,
    labels_of_training,
    refuse_overlap,
    require_one_of_each,
    without_test_images,
)
from sdclr.data.sources.wanted import Reading, Wanted
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

TURNED_SUFFIXES = {"TIFF": (".tif", ".tiff"), "HEIC": HEIF_SUFFIXES}
"""Files that their readers rotate by their own orientation, whatever the settings."""
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")


def read_own_images(
    path: Place,
    wanted: Wanted | None = None,
    reading: Reading | None = None,
    *,
    test_path: Place | None = None,
    validation_is_drawn: bool = False,
    val_is_test: bool = True,
) -> LabelledImages:
    """The images at ``path``, and the labelled test set at ``test_path``: each a folder, a list, a .csv or shards.

    Either may be an address of shards (:mod:`sdclr.addresses`), a pattern of such or a folder of them. ``wanted``
    applies to both, except that the sub-folders of a test folder are always classes. Of folders that are splits,
    training images are trained on, and where classes are known the others are the validation and the test set. A glob
    of ``wanted.unwanted`` that matches nothing causes a warning. A test class that no training image has is an error,
    and so is an image in both sets. ``validation_is_drawn``: whether validation images are to be drawn from the
    training images, which is an error where a folder holds them. ``val_is_test``: of folders that are splits, whether
    the validation folder is the test set where there is no test folder.
    """
    wanted, reading = wanted or Wanted(), reading or Reading()
    sources = [path] if test_path is None else [path, test_path]
    _require_fitting(wanted, path, sources)
    train = find_images(path, wanted)
    test, validation = None, None
    if wanted.in_splits:
        train, test, validation = take_apart(train, wanted.class_folders, val_is_test)
        require_one_of_each(path, test, validation, test_path, validation_is_drawn)
    _check_boxes([train] if test is None else [train, test], wanted, reading, sources)
    class_names = class_names_of(labels_of_training(train.labels, validation))
    if validation is not None:
        check_test(train.at(validation.tolist()), path, class_names, path, "validation")
    if test_path is not None:
        classes = has_folders(test_path)
        unlabelled: Unlabelled = "leave_out" if wanted.unlabelled == "leave_out" else "refuse"
        # only images with labels can test
        of_test = replace(wanted, class_folders=classes, in_splits=False, unlabelled=unlabelled)
        test = find_images(test_path, of_test)
    if test is not None:
        check_test(test, path if test_path is None else test_path, class_names, path)
        refuse_overlap(train, test)
        train.remarks.extend(f"test set: {remark}" for remark in test.remarks)
        train.remarks.extend(without_test_images(class_names, test))
    _warn_of_useless_globs(wanted.unwanted, path)
    if not reading.exif_rotation:
        turned = chain(train.files(), test.files() if test else ())
        train.remarks.extend(_turned_in_any_case(turned))
    return LabelledImages(
        _files(train, class_names, reading),
        None if test is None else _files(test, class_names, reading),
        [printable(name) for name in class_names],
        validation=validation,
        remarks=tuple(train.remarks),
    )


def _require_fitting(wanted: Wanted, path: Place, sources: Sequence[Place]) -> None:
    """ConfigError for a setting that does nothing for what is at ``path``, before anything is read."""
    root = wanted.root
    if root is not None and all(source.is_dir() for source in sources):
        raise ConfigError(
            f"data.root={root} is for a .txt list or a .csv, and {path} is a folder: its paths begin there. "
            "Leave data.root out."
        )
    columns = (("path", wanted.path_column), ("label", wanted.label_column))
    tables = any(source.suffix.lower() in TABLE_SUFFIXES for source in sources)
    for setting, value in columns:
        if value is not None and not tables:
            raise ConfigError(
                f"data.{setting}_column={value} is for tables ({', '.join(TABLE_SUFFIXES)}), and "
                f"{printable(path)} is not one. Leave it out."
            )
    if wanted.class_folders and isinstance(path, Address):
        raise ConfigError(
            f"data.labels=folders is for folders of images; {path} are shards, whose classes are beside the images "
            "(.cls). Leave it out."
        )
    if wanted.class_folders and path.is_file() and path.suffix.lower() != ZIP_SUFFIX:
        raise ConfigError(
            f"data.labels=folders is for folders; {path} is a file: lists and shards have their own labels."
        )
    if wanted.in_splits and not has_folders(path):
        raise ConfigError(
            f"data.layout=splits is for a folder, and {printable(path)} is not one. Leave it out."
        )


def _warn_of_useless_globs(unwanted: Exclusion, path: Place) -> None:
    if unused := unwanted.unused():
        shown = ", ".join(map(repr, unused[:5])) + ", ..." * (len(unused) > 5)
        warnings.warn(
            f"data.exclude: nothing below {printable(path)} matches {shown}. A glob is compared with relative paths, "
            "the folders above them and their names, capitals included.",
            stacklevel=3,
        )


def _turned_in_any_case(paths: Iterable[str]) -> list[str]:
    """A remark on files for which data.exif_rotation=false cannot be honoured."""
    counts = dict.fromkeys(TURNED_SUFFIXES, 0)
    for path in paths:
        for kind, suffixes in TURNED_SUFFIXES.items():
            counts[kind] += path.lower().endswith(suffixes)
    return [
        f"{kind} files, turned as they specify despite data.exif_rotation=false: {number}"
        for kind, number in counts.items()
        if number
    ]


def class_names_of(labels: list[str] | None) -> list[str]:
    """The distinct labels [C], sorted by value where all are numbers (2, 10 and 2.0, 10.0 as programs write them), else
    as text.

    A warning where two of them spell the same number: every label is a text, and they stay two classes.
    """
    names = sorted(set(labels or ()))
    first_of_value: dict[Decimal, str] = {}
    for name in filter(_NUMBER.fullmatch, names):
        if (first := first_of_value.setdefault(Decimal(name), name)) != name:
            warnings.warn(
                f"labels {shown(first)} and {shown(name)} are the same number in two spellings, and two classes here. "
                "Write them alike if they are one class.",
                stacklevel=3,
            )
    return sorted(names, key=Decimal) if all(map(_NUMBER.fullmatch, names)) else names


def _files(found: FoundImages, class_names: list[str], reading: Reading) -> ImageFiles:
    """The files of the images found, to be decoded by ``reading``; labels are positions in ``class_names``."""
    labels: Positions | None = None
    if found.labels is not None:
        id_of = {name: number for number, name in enumerate(class_names)}
        labels = np.array([id_of[label] for label in found.labels], dtype=np.int64)
    num_workers = reading.num_workers
    if not num_workers and isinstance(found.root, Address):
        num_workers = max(CONNECTIONS, num_cores())  # they wait for answers rather than compute
    return ImageFiles(
        found.root,
        found.paths if isinstance(found.paths, PackedNames) else tuple(found.paths),
        labels,
        exif_rotation=reading.exif_rotation,
        grey_bits=reading.grey_bits,
        channels=reading.channels,
        num_workers=num_workers,
        members=found.members,
        columns={name: np.array(cells, dtype=object) for name, cells in found.columns.items()},
        boxes=found.boxes,
    )


def _check_boxes(
    found: list[FoundImages], wanted: Wanted, reading: Reading, sources: list[Place]
) -> None:
    """Refuse settings of boxes that have no effect."""
    shown_sources = " and ".join(map(printable, sources))
    from_megadetector = any(one.is_of_turned_pictures for one in found)
    if from_megadetector and not reading.exif_rotation:
        raise ConfigError(
            "MegaDetector's boxes refer to pictures that were turned by EXIF, and data.exif_rotation=false does "
            "not turn them. Use data.exif_rotation=true."
        )
    if (
        not any(source.suffix.lower() in TABLE_SUFFIXES for source in sources)
        and wanted.boxes != "none"
    ):
        raise ConfigError(
            f"data.boxes={wanted.boxes} is for tables with box columns ({', '.join(TABLE_SUFFIXES)}), and "
            f"{shown_sources} is not one. Leave it out."
        )
    changed = {
        "box_categories": wanted.box_categories != MEGADETECTOR_CATEGORIES,
        "min_confidence": wanted.min_confidence != MEGADETECTOR_CONFIDENCE,
    }
    if given := [
        name for name, is_changed in changed.items() if is_changed and not from_megadetector
    ]:
        raise ConfigError(
            f"data.{given[0]} is for what MegaDetector writes, and {shown_sources} is not. Leave it out."
        )
