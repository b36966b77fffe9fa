"""A collection of somebody's own images: a folder, a list, a table or shards, taken as it is. Opens no image.

N images, C classes. Labels are known where a list brings them, or where sub-folders are said to be classes.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdclr.addresses import Address, Place
from sdclr.data.choices import (
    LIST_SUFFIXES,
    MEGADETECTOR_CATEGORIES,
    MEGADETECTOR_CONFIDENCE,
    SHARD_SUFFIX,
    TABLE_SUFFIXES,
    ZIP_SUFFIX,
    Links,
    WantedBoxes,
)
from sdclr.data.collections.boxes import Boxes, written
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import LabelledImages
from sdclr.data.collections.packed_names import PackedNames
from sdclr.data.decoding.decode import ALL_GREY_BITS, NPY_SUFFIX, printable
from sdclr.data.look_ahead import num_cores
from sdclr.data.remote.limits import CONNECTIONS
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.found_images import FoundImages, labels_by_folder
from sdclr.data.sources.globs import Glob, glob_of
from sdclr.data.sources.image_lists import ListedImages, read_listed_images
from sdclr.data.sources.links import LinkCheck
from sdclr.data.sources.listed_names import match_names
from sdclr.data.sources.listing import HEIF_SUFFIXES, IMAGE_SUFFIXES, list_images
from sdclr.data.sources.remote_shards import shards_at
from sdclr.data.sources.split_folders import (
    splits_are_no_classes,
    splits_by_name,
    take_apart,
    trained_on_all,
)
from sdclr.data.sources.tar_shards import expand_braces, read_shards
from sdclr.data.sources.zip_files import read_zip
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.safe_text import command, shown

ACCEPTED = (
    "a folder of images, a .txt list, a table (.csv, .tsv, .jsonl, .json, .parquet), .tar shards (also at s3:// or "
    "https://), a .zip, a quoted glob ('photos/**/*.jpg'), or a .npz of arrays (data.name=arrays)"
)
"""What a collection may be; docs/own-images.md has the details."""
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
FILES_LOOKED_FOR = 64
"""Entries of a list for which another root is looked for, where none of them is there."""
FOLDERS_LOOKED_INTO = 500
"""Folders that are listed on the way, each up to ENTRIES_LOOKED_AT entries."""
ENTRIES_LOOKED_AT = 10_000
TURNED_SUFFIXES = {"TIFF": (".tif", ".tiff"), "HEIC": HEIF_SUFFIXES}
"""Files that their readers turn as they say, whatever is asked for."""


_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")


class _Rules(NamedTuple):
    """What holds for every source of a collection."""

    root: Path | None
    """What the paths of lists are relative to; None: each list's own folder."""
    exclude: list[Path | str]
    """Folders to leave out."""
    unwanted: Exclusion
    """Names to leave out."""
    links: Links
    path_column: str | None = None
    """Of tables, where it has another name than PATH_COLUMNS."""
    label_column: str | None = None
    in_splits: bool = False
    """Whether the first folders are splits; they are taken apart later."""
    boxes: WantedBoxes = "none"
    """Of tables: whether each row is a box in a picture."""
    partial: bool = False
    """Of tables: whether rows without a label are left out; else they are an error."""
    box_categories: tuple[str, ...] = MEGADETECTOR_CATEGORIES
    min_confidence: float = MEGADETECTOR_CONFIDENCE
    also: tuple[str, ...] = ()
    """Suffixes of further files that are images."""


def read_own_images(
    path: Place,
    *,
    root: Path | None = None,
    class_folders: bool = False,
    in_splits: bool = False,
    validation_is_drawn: bool = False,
    test_path: Place | None = None,
    exif_rotation: bool = False,
    grey_bits: int = ALL_GREY_BITS,
    channels: int = 3,
    num_workers: int | None = None,
    exclude: Iterable[Path | str] = (),
    unwanted: Iterable[str] = (),
    links: Links = "inside",
    path_column: str | None = None,
    label_column: str | None = None,
    boxes: WantedBoxes = "none",
    box_categories: tuple[str, ...] = MEGADETECTOR_CATEGORIES,
    min_confidence: float = MEGADETECTOR_CONFIDENCE,
    partial: bool = False,
    val_is_test: bool = True,
) -> LabelledImages:
    """The images at ``path``, and the labelled test set at ``test_path``: each a folder, a list, a .csv or shards.

    Either may be an address of shards (:mod:`sdclr.addresses`), a pattern of such or a folder of them.
    ``root``: what the paths of lists are relative to (default: each list's own folder). ``class_folders``: the
    sub-folders of ``path`` are its classes; those of a test folder always are. ``exclude``: folders to leave out.
    ``unwanted``: globs of names to leave out (:class:`Exclusion`), in both sets; one that matches nothing is a warning.
    ``links``: whether those below a folder, or below the root of a list, may lead out of it. A test class that no
    training image has is an error, and so is an image in both sets. ``path_column``, ``label_column``: what the columns
    of tables are called, in both sets. ``in_splits``: the first folders of ``path`` are splits by their names; training
    images are trained on, and where ``class_folders`` are known the others are the validation and the test set.
    ``boxes``, ``box_categories`` and ``min_confidence``: see :mod:`sdclr.data.sources.image_lists`.
    ``partial``: rows of a table that have no label are left out, and a remark counts them; else they are an error.
    ``val_is_test``: of folders that are splits, whether that of validation images is the test set where there is none.
    ``validation_is_drawn``: whether validation images are to be drawn from the training images, which is an error where
    a folder holds them.

    ``exif_rotation`` False cannot be honoured for TIFF and HEIC: their readers turn them in any case. A remark counts
    such files. ``grey_bits``: how many bits 16-bit greys use. ``channels``: of every image; of other than 3, .npy files
    are images wherever they lie, and else only where a list names them.
    """
    rules = _Rules(
        root, list(exclude), Exclusion(unwanted), links, path_column, label_column, in_splits
    )
    rules = rules._replace(
        boxes=boxes,
        box_categories=box_categories,
        min_confidence=min_confidence,
        partial=partial,
        also=() if channels == 3 else (NPY_SUFFIX,),
    )
    sources = [path] if test_path is None else [path, test_path]
    _require_fitting(rules, path, sources, class_folders)
    train = _find(path, class_folders, rules)
    found, validation = None, None
    if in_splits:
        train, found, validation = take_apart(train, class_folders, val_is_test)
        _require_one_of_each(path, found, validation, test_path, validation_is_drawn)
    _check_boxes([train] if found is None else [train, found], rules, exif_rotation, sources)
    class_names = class_names_of(_of_training(train.labels, validation))
    if validation is not None:
        _check_test(train.at(validation.tolist()), path, class_names, path, "validation")
    if test_path is not None:
        found = _find(test_path, _has_folders(test_path), rules._replace(in_splits=False))
    if found is not None:
        _check_test(found, path if test_path is None else test_path, class_names, path)
        _refuse_overlap(train, found)
        train.remarks.extend(f"test set: {remark}" for remark in found.remarks)
        train.remarks.extend(_without_test_images(class_names, found))
    _warn_of_useless_globs(rules.unwanted, path)
    if not exif_rotation:
        turned = chain(train.files(), found.files() if found else ())
        train.remarks.extend(_turned_in_any_case(turned))
    as_images = functools.partial(
        _files,
        class_names=class_names,
        exif_rotation=exif_rotation,
        grey_bits=grey_bits,
        channels=channels,
        num_workers=num_workers,
    )
    return LabelledImages(
        as_images(train),
        None if found is None else as_images(found),
        [printable(name) for name in class_names],
        validation=validation,
        remarks=tuple(train.remarks),
    )


def _require_fitting(
    rules: _Rules, path: Place, sources: Sequence[Place], class_folders: bool
) -> None:
    """ConfigError for a setting that does nothing for what lies at ``path``, before anything is read."""
    root = rules.root
    if root is not None and all(source.is_dir() for source in sources):
        raise ConfigError(
            f"data.root={root} is for a .txt list or a .csv, and {path} is a folder: its paths begin there. "
            "Leave data.root out."
        )
    columns = (("path", rules.path_column), ("label", rules.label_column))
    tables = any(source.suffix.lower() in TABLE_SUFFIXES for source in sources)
    for setting, value in columns:
        if value is not None and not tables:
            raise ConfigError(
                f"data.{setting}_column={value} is for tables ({', '.join(TABLE_SUFFIXES)}), and "
                f"{printable(path)} is none. Leave it out."
            )
    if class_folders and isinstance(path, Address):
        raise ConfigError(
            f"data.labels=folders is for folders of images; {path} are shards, whose classes lie beside the images "
            "(.cls). Leave it out."
        )
    if class_folders and path.is_file() and path.suffix.lower() != ZIP_SUFFIX:
        raise ConfigError(
            f"data.labels=folders is for folders; {path} is a list or a shard, which bring their own labels."
        )
    if rules.in_splits and not _has_folders(path):
        raise ConfigError(
            f"data.layout=splits is for a folder, and {printable(path)} is none. Leave it out."
        )


def _require_one_of_each(
    path: Place,
    test: FoundImages | None,
    validation: Positions | None,
    test_path: Place | None,
    validation_is_drawn: bool,
) -> None:
    """ConfigError where a folder brings validation or test images and the settings ask for others."""
    if validation is not None and validation_is_drawn:
        raise ConfigError(
            f"data.validation_per_class holds out training images, and {printable(path)} has a folder of "
            "validation images. Leave it out, or use data.layout=flat."
        )
    if test is not None and test_path is not None:
        raise ConfigError(
            f"{printable(path)} has a folder of test images, and data.test_path={printable(test_path)} is another "
            "test set. Give one of them (data.exclude leaves a folder out)."
        )


def _warn_of_useless_globs(unwanted: Exclusion, path: Place) -> None:
    if unused := unwanted.unused():
        shown = ", ".join(map(repr, unused[:5])) + ", ..." * (len(unused) > 5)
        warnings.warn(
            f"data.exclude: nothing below {printable(path)} matches {shown}. A glob is compared with relative paths, "
            "the folders above them and their names, capitals included.",
            stacklevel=3,
        )


def _has_folders(path: Place) -> bool:
    """Whether a collection is a folder, or a zip of one."""
    return path.is_dir() or path.suffix.lower() == ZIP_SUFFIX


def _find(path: Place, class_folders: bool, rules: _Rules) -> FoundImages:
    if isinstance(path, Address):
        folder, names = shards_at(path)
        return _find_in_shards(folder, names, rules)
    if (glob := glob_of(path)) is not None:
        return _find_by_glob(glob, path, class_folders, rules)
    if path.suffix.lower() == SHARD_SUFFIX and not path.is_dir():
        # whoever names a shard means it, wherever a link of that name leads
        names = [path.name] if path.exists() else expand_braces(path.name)
        return _find_in_shards(path.parent, names, rules)
    if path.suffix.lower() == ZIP_SUFFIX and path.is_file():
        return _find_in_zip(path, class_folders, rules)
    if not path.exists():
        raise MissingInputError(
            f"{printable(path)} does not exist. Images are taken from {ACCEPTED}."
        )
    if path.is_dir():
        return _find_in_folder(path, class_folders, rules)
    if path.suffix.lower() not in LIST_SUFFIXES or not path.is_file():
        what = (
            "is a spreadsheet: save it as CSV"
            if path.suffix.lower() in SPREADSHEETS
            else "is no collection of images"
        )
        raise DataError(f"{printable(path)} {what}. Give {ACCEPTED}.")
    root = rules.root
    if root is not None and not root.is_dir():
        raise MissingInputError(
            f"data.root={printable(root)} is no folder; the paths of {path} should begin there."
        )
    is_table = path.suffix.lower() in TABLE_SUFFIXES  # one of two sources may be a list of lines
    listed = read_listed_images(
        path,
        root,
        path_column=rules.path_column if is_table else None,
        label_column=rules.label_column if is_table else None,
        boxes=rules.boxes,
        box_categories=rules.box_categories,
        min_confidence=rules.min_confidence,
        partial=rules.partial,
    )
    return _find_listed(listed, path.parent if root is None else root, rules)


def _find_by_glob(glob: Glob, path: Path, class_folders: bool, rules: _Rules) -> FoundImages:
    """The images below the folder before the first *, as far as their paths match."""
    if rules.root is not None:
        raise ConfigError(
            f"data.root={rules.root} is for a list or a table, and not for a glob. Leave it out."
        )
    if not glob.root.is_dir():
        raise MissingInputError(
            f"folder {printable(glob.root)} of the glob {printable(path)} does not exist."
        )
    suffix = path.suffix.lower()
    is_shards = suffix == SHARD_SUFFIX
    suffixes = (SHARD_SUFFIX,) if is_shards else IMAGE_SUFFIXES + rules.also
    listing = list_images(glob.root, rules.exclude, suffixes, rules.links, rules.unwanted)
    paths = glob.matching(listing.paths)
    if not paths:
        but = "".join(f"; {remark}" for remark in listing.remarks())
        raise DataError(
            f"no image of {len(listing.paths)} below {printable(glob.root)} matches {printable(path)}{but}. * stays "
            "inside a folder, ** is any number of folders, capitals matter."
        )
    if is_shards:
        if class_folders:
            raise ConfigError(
                "data.labels=folders is for folders of images, and not for shards. Leave it out."
            )
        return _find_in_shards(glob.root, paths, rules)
    others = len(listing.paths) - len(paths)
    remarks = listing.remarks() + (
        [f"images that the glob does not match left out: {others}"] if others else []
    )
    taken = FoundImages(glob.root, paths, None, remarks)
    return taken._replace(labels=labels_by_folder(taken)) if class_folders else taken


def _find_listed(listed: ListedImages, root: Path, rules: _Rules) -> FoundImages:
    _hint_at_the_root(listed, root, rules)
    matched = match_names(root, listed.paths)
    _refuse_repeated(listed, matched.paths)
    wanted = [row for row, name in enumerate(matched.paths) if name not in rules.unwanted]
    if not wanted:
        raise _all_unwanted(listed.file, len(matched.paths))
    paths = [matched.paths[row] for row in wanted]
    labels = None if listed.labels is None else [listed.labels[row] for row in wanted]
    LinkCheck(root, rules.links).refuse_ways_out(paths, lambda row: listed.where(wanted[row]))
    unlabelled = f"rows of {listed.file} without a label left out: {listed.num_unlabelled}"
    remarks = [
        *listed.remarks,
        *([unlabelled] if listed.num_unlabelled else []),
        *matched.remarks(),
        *_unwanted_images(len(matched.paths) - len(wanted)),
    ]
    columns = {name: [cells[row] for row in wanted] for name, cells in listed.columns.items()}
    found = FoundImages(
        root,
        paths,
        labels,
        remarks,
        columns=columns,
        is_of_turned_pictures=listed.is_of_turned_pictures,
    )
    if listed.boxes is None:
        return found
    corners = np.array([listed.boxes[row] for row in wanted], dtype=np.float64)
    names = [f"{matched.paths[row]}#{written(listed.boxes[row])}" for row in wanted]
    return found._replace(paths=names, boxes=Boxes(tuple(paths), corners, listed.box_unit))


def _hint_at_the_root(listed: ListedImages, root: Path, rules: _Rules) -> None:
    """MissingInputError that asks for data.root where no listed file is below ``root``, and names the folder if seen.

    Such as the one where the command runs, which is what most programs take for the beginning of paths.
    """
    sample = listed.paths[:FILES_LOOKED_FOR]
    if any(os.path.lexists(root / path) for path in sample):
        return
    begin, add = (
        ("data.root", "Give") if rules.root is not None else ("the list's own folder", "Add")
    )
    first = f"{listed.where(0)}: {printable(sample[0])} is not below {printable(root)}, {begin}"
    if (place := _folder_above(sample, root)) is not None:
        here = " (where this command runs)" if place == Path.cwd() else ""
        raise MissingInputError(
            f"{first}, and it is below {shown(place)}{here}. {add} {command(f'data.root={place}')} to the command."
        )
    if not any(os.path.lexists(root / path) for path in listed.paths[FILES_LOOKED_FOR:]):
        others = (
            f", nor is any other of its {len(listed.paths)} images" if len(listed.paths) > 1 else ""
        )
        raise MissingInputError(
            f"{first}{others}. {add} data.root=FOLDER, where its paths begin, to the command."
        )


def _folder_above(sample: list[str], root: Path) -> Path | None:
    """The nearest folder below which most of these files are: here, beside the list, or a few folders down from these.

    Looks into FOLDERS_LOOKED_INTO folders at most.
    """
    beside = Path(os.path.realpath(root))
    places = list(dict.fromkeys([Path.cwd(), beside.parent, beside]))
    # grows while it is gone through: the nearest come first
    for number, place in enumerate(places):
        found = sum(os.path.lexists(place / path) for path in sample)
        if 2 * found > len(sample):
            return place
        if number < FOLDERS_LOOKED_INTO and len(places) < FOLDERS_LOOKED_INTO:
            places += sorted(_folders_in(place).difference(places))
    return None


def _folders_in(place: Path) -> set[Path]:
    """Folders that are not hidden, among the first entries."""
    try:
        with os.scandir(place) as entries:
            first = islice(entries, ENTRIES_LOOKED_AT)
            return {
                Path(one.path)
                for one in first
                if one.name[0] != "." and one.is_dir(follow_symlinks=False)
            }
    except OSError:
        return set()


def _refuse_repeated(listed: ListedImages, paths: list[str]) -> None:
    """Two entries that are written in different forms may name one file."""
    row_of: dict[tuple[str, object], int] = {}
    for row, path in enumerate(paths):
        first = row_of.setdefault((path, None if listed.boxes is None else listed.boxes[row]), row)
        if first != row:
            raise DataError(
                f"{listed.where(row)}: {path!r} is listed already, in line {listed.lines[first]}."
            )


def _find_in_folder(folder: Path, class_folders: bool, rules: _Rules) -> FoundImages:
    suffixes = IMAGE_SUFFIXES + rules.also
    listing = list_images(folder, rules.exclude, suffixes, rules.links, rules.unwanted)
    remarks, shards = listing.remarks(), list[str]()
    if not listing.paths:
        found = list_images(folder, rules.exclude, (SHARD_SUFFIX,), rules.links, rules.unwanted)
        shards = found.paths
        remarks += [] if listing.num_unwanted else _unwanted_files(found.num_unwanted)
    if shards:
        if class_folders:
            raise ConfigError(
                f"data.labels=folders is for folders of images; {folder} holds shards. Leave it out."
            )
        # no image lies beside them: what was left out of the folder is what their own headers do not tell
        in_shards = _find_in_shards(folder, shards, rules._replace(root=None))
        return in_shards._replace(remarks=_unwanted_files(found.num_unwanted) + in_shards.remarks)
    if not listing.paths:
        but = f" ({', '.join(remarks)})" if remarks else ""
        raise DataError(f"folder {printable(folder)} holds no images{but}. Give {ACCEPTED}.")
    if rules.in_splits:
        return FoundImages(folder, listing.paths, None, remarks)
    splits = splits_by_name(listing.paths)
    if splits and class_folders:
        raise DataError(splits_are_no_classes(folder, splits))
    taken = FoundImages(folder, listing.paths, None, remarks + trained_on_all(folder, splits))
    return taken._replace(labels=labels_by_folder(taken)) if class_folders else taken


def _find_in_zip(path: Path, class_folders: bool, rules: _Rules) -> FoundImages:
    """As :func:`_find_in_folder` would the unpacked folder; if all lies in one folder, that is the collection."""
    if rules.root is not None:
        raise ConfigError(
            f"data.root={rules.root} is for a list or a table, and not for a zip. Leave it out."
        )
    zipped = read_zip(path, rules.unwanted, rules.also)
    found = FoundImages(
        path.parent, zipped.paths, None, zipped.remarks, zipped.members, prefix=zipped.prefix
    )
    if rules.in_splits:
        return found
    splits = splits_by_name([name.removeprefix(zipped.prefix) for name in zipped.paths])
    if splits and class_folders:
        raise DataError(splits_are_no_classes(path, splits))
    found.remarks.extend(trained_on_all(path, splits))
    return found._replace(labels=labels_by_folder(found)) if class_folders else found


def _find_in_shards(folder: Place, names: list[str], rules: _Rules) -> FoundImages:
    if rules.root is not None:
        raise ConfigError(
            f"data.root={rules.root} is for a .txt list or a .csv, and not for shards. Leave it out."
        )
    wanted = [name for name in names if name not in rules.unwanted]
    if not wanted:
        raise DataError(
            f"data.exclude leaves out all {len(names)} shards below {printable(folder)}. Give other globs."
        )
    found = read_shards(folder, wanted, rules.unwanted, rules.also)
    remarks = _unwanted_files(len(names) - len(wanted)) + found.remarks
    return FoundImages(folder, found.paths, found.labels, remarks, found.members)


def _unwanted_files(number: int) -> list[str]:
    return [f"files and folders that data.exclude matches left out: {number}"] if number else []


def _unwanted_images(number: int) -> list[str]:
    return [f"images that data.exclude matches left out: {number}"] if number else []


def _all_unwanted(source: Path, number: int) -> DataError:
    return DataError(
        f"data.exclude leaves out all {number} images of {printable(source)}. Give other globs."
    )


def _turned_in_any_case(paths: Iterable[str]) -> list[str]:
    """A remark on files for which data.exif_rotation=false cannot be honoured."""
    counts = dict.fromkeys(TURNED_SUFFIXES, 0)
    for path in paths:
        for kind, suffixes in TURNED_SUFFIXES.items():
            counts[kind] += path.lower().endswith(suffixes)
    return [
        f"{kind} files, turned as they say in spite of data.exif_rotation=false: {number}"
        for kind, number in counts.items()
        if number
    ]


def class_names_of(labels: list[str] | None) -> list[str]:
    """The distinct labels [C]: by value where all are numbers (2, 10 and 2.0, 10.0 as programs write them), else as
    text.
    """
    names = sorted(set(labels or ()))
    return sorted(names, key=Decimal) if all(map(_NUMBER.fullmatch, names)) else names


def _files(
    found: FoundImages,
    class_names: list[str],
    exif_rotation: bool,
    grey_bits: int,
    channels: int,
    num_workers: int | None,
) -> ImageFiles:
    labels: Positions | None = None
    at_address = isinstance(found.root, Address)
    if found.labels is not None:
        id_of = {name: number for number, name in enumerate(class_names)}
        labels = np.array([id_of[label] for label in found.labels], dtype=np.int64)
    return ImageFiles(
        found.root,
        found.paths if isinstance(found.paths, PackedNames) else tuple(found.paths),
        labels,
        exif_rotation=exif_rotation,
        grey_bits=grey_bits,
        channels=channels,
        num_workers=num_workers if num_workers or not at_address else max(CONNECTIONS, num_cores()),
        members=found.members,
        columns={name: np.array(cells, dtype=object) for name, cells in found.columns.items()},
        boxes=found.boxes,
    )


def _check_boxes(
    found: list[FoundImages], rules: _Rules, exif_rotation: bool, sources: list[Place]
) -> None:
    """Refuse settings of boxes where there is nothing that they are for."""
    shown_sources = " and ".join(map(printable, sources))
    from_megadetector = any(one.is_of_turned_pictures for one in found)
    if from_megadetector and not exif_rotation:
        raise ConfigError(
            "MegaDetector's boxes count in pictures that were turned by EXIF, and data.exif_rotation=false does "
            "not turn them. Use data.exif_rotation=true."
        )
    if (
        not any(source.suffix.lower() in TABLE_SUFFIXES for source in sources)
        and rules.boxes != "none"
    ):
        raise ConfigError(
            f"data.boxes={rules.boxes} is for tables with box columns ({', '.join(TABLE_SUFFIXES)}), and "
            f"{shown_sources} is none. Leave it out."
        )
    changed = {
        "box_categories": rules.box_categories != MEGADETECTOR_CATEGORIES,
        "min_confidence": rules.min_confidence != MEGADETECTOR_CONFIDENCE,
    }
    if given := [
        name for name, is_changed in changed.items() if is_changed and not from_megadetector
    ]:
        raise ConfigError(
            f"data.{given[0]} is for what MegaDetector writes, and {shown_sources} is not. Leave it out."
        )


def _of_training(labels: list[str] | None, validation: Positions | None) -> list[str] | None:
    """The labels of what is trained on."""
    if labels is None or validation is None:
        return labels
    held_out = set(validation.tolist())
    return [label for row, label in enumerate(labels) if row not in held_out]


def _check_test(
    test: FoundImages,
    test_path: Place,
    class_names: list[str],
    train_path: Place,
    what: str = "test",
) -> None:
    """A test set has labels, and no class that training does not have."""
    if not class_names:
        raise ConfigError(
            f"data.test_path={test_path} is for evaluation, and {train_path} has no labels to learn from. Use "
            "data.labels=folders or a list with labels, or leave data.test_path out."
        )
    if test.labels is None:
        raise DataError(
            f"test set {test_path} has no labels. Give a list with labels, or a folder of class folders."
        )
    known = set(class_names)
    if unknown := sorted(set(test.labels) - known):
        raise DataError(
            f"{what} set {test_path} has a class that no training image of {train_path} has: "
            f"{', '.join(map(printable, unknown[:3]))}{', ...' * (len(unknown) > 3)}. The training classes are "
            f"{', '.join(map(printable, class_names[:10]))}{', ...' * (len(class_names) > 10)}."
        )


def _without_test_images(class_names: list[str], test: FoundImages) -> list[str]:
    """A remark that names the classes that no test image has."""
    missing = sorted(set(class_names) - set(test.labels or ()))
    if not missing:
        return []
    shown = ", ".join(map(printable, missing[:5])) + (
        f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    )
    return [
        f"classes without a test image: {shown} (evaluate with --untested leave_out, or add some)"
    ]


def _refuse_overlap(train: FoundImages, test: FoundImages) -> None:
    """No image that is trained on may be one that measures, under whatever link."""
    trained_on = set(_places(train))
    if shared := [
        path for path, place in zip(test.paths, _places(test), strict=True) if place in trained_on
    ]:
        raise DataError(
            f"{len(shared)} of {len(test.paths)} test images are training images as well (first: "
            f"{printable(shared[0])}). Keep the test set outside of the training images."
        )


def _places(found: FoundImages) -> list[tuple[str, int]]:
    """Where each image lies: its file, links to folders and shards resolved, and the first byte there."""
    root = os.path.realpath(found.root)
    if found.boxes is not None:
        files = [os.path.join(root, file) for file in found.boxes.files]
        return [
            (f"{file}#{written(box)}", 0)
            for file, box in zip(files, found.boxes.corners.tolist(), strict=True)
        ]
    if found.members is None:
        return [(os.path.join(root, path), 0) for path in found.paths]
    files = [os.path.realpath(os.path.join(root, shard)) for shard in found.members.shards]
    where = zip(found.members.shard.tolist(), found.members.start.tolist(), strict=True)
    return [(files[shard], start) for shard, start in where]
