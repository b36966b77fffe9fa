"""Folders that are the splits of one set, train, val and test: recognised by their names, and taken apart.

Hugging Face's imagefolder, Keras and many archives use them; below each are images, or a folder for each class.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sdclr.data.choices import ZIP_SUFFIX, Links
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.exclusion import Exclusion, is_service_folder
from sdclr.data.sources.found_images import FoundImages, labels_by_folder
from sdclr.data.sources.listing import list_images
from sdclr.data.sources.zip_files import read_zip
from sdclr.data.splits import Positions
from sdclr.errors import DataError
from sdclr.safe_text import shown

_SPLIT_NAME = re.compile(
    r"(?:train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|dev|eval)(?:[-_ ]?(?:set|split|images?|data|[0-9]{4}))?"
)


def splits_by_name(paths: list[str]) -> list[str]:
    """The first-level sub-folders, if each of them has the name of a split (train, val, test)."""
    folders = sorted({path.partition("/")[0] for path in paths if "/" in path})
    return folders if all(map(part_of, folders)) else []


Part = Literal["train", "validation", "test"]


def part_of(folder: str) -> Part | None:
    """What a folder of this name holds, if it is the name of a split."""
    name = folder.lower()
    if not _SPLIT_NAME.fullmatch(name):
        return None
    if name.startswith("train"):
        return "train"
    return "test" if name.startswith("test") else "validation"


def has_splits(
    folder: Path,
    exclude: Iterable[Path | str] = (),
    links: Links = "inside",
    unwanted: Iterable[str] = (),
) -> bool:
    """Whether the sub-folders of a folder are splits by their names: training images and others.

    A sub-folder with another name does not count where no image is below it. ``unwanted``: globs of what to leave out.
    """
    if not folder.is_dir() and folder.suffix.lower() == ZIP_SUFFIX:
        zipped = read_zip(folder, Exclusion(unwanted))
        found = {
            part_of(one)
            for one in splits_by_name([name.removeprefix(zipped.prefix) for name in zipped.paths])
        }
        return "train" in found and len(found) > 1
    try:
        names = [
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    except OSError:  # reading the folder raises the error
        return False
    parts = {part_of(name) for name in names} - {None}
    if "train" not in parts or len(parts) < 2:
        return False
    left_out, globs = {os.path.realpath(one) for one in exclude}, Exclusion(unwanted)
    others = [
        name
        for name in names
        if part_of(name) is None
        and not is_service_folder(name)
        and os.path.realpath(folder / name) not in left_out
    ]
    return not any(
        f"{name}/{path}" not in globs
        for name in others
        for path in list_images(folder / name, exclude, links=links).paths
    )


class _Parts(NamedTuple):
    """A collection whose folders are splits."""

    pool: FoundImages
    """Training images and, where labels are known, validation images."""
    test: FoundImages | None
    validation: Positions | None
    """Positions in the pool that are not trained on."""


def take_apart(found: FoundImages, class_folders: bool, val_is_test: bool = True) -> _Parts:
    """Training, validation and test images by their first folder.

    ``val_is_test``: whether the validation folder is the test set where there is no test folder.
    """
    first = [path.removeprefix(found.prefix).partition("/")[0] for path in found.paths]
    parts = [part_of(name) for name in first]
    outside = [path for path, part in zip(found.paths, parts, strict=True) if part is None]
    where = printable(found.root / found.prefix)
    if "train" not in parts:
        raise DataError(
            f"data.layout=splits: no folder of {where} is called train and holds images. Use data.layout=flat."
        )
    labels = labels_by_folder(found, depth=1, left_out=set(outside)) if class_folders else None
    found = found._replace(labels=labels)
    rows: dict[Part, list[int]] = {"train": [], "validation": [], "test": []}
    for row, part in enumerate(parts):
        if part is not None:
            rows[part].append(row)
    if not rows["test"] and val_is_test:
        rows["test"], rows["validation"] = rows["validation"], []
    names: dict[str, int] = Counter(
        first[row] for row in range(len(first)) if parts[row] is not None
    )
    trained = ", ".join(
        f"{shown(name)} ({num})" for name, num in names.items() if part_of(name) == "train"
    )
    others = ", ".join(
        f"{shown(name)} ({num})" for name, num in names.items() if part_of(name) != "train"
    )
    remarks = [
        f"the folders of {where} are splits: {trained} is trained on, an evaluation uses {others or 'none'}"
    ]
    if outside:
        remarks.append(
            f"images in no split left out: {len(outside)} (first: {printable(outside[0])})"
        )
    pool_rows = sorted(rows["train"] + (rows["validation"] if class_folders else []))
    pool = found.at(pool_rows)._replace(remarks=found.remarks + remarks)
    if not class_folders:
        return _Parts(pool, None, None)
    held_out = set(rows["validation"])
    validation = np.array([n for n, row in enumerate(pool_rows) if row in held_out], dtype=np.int64)
    test = found.at(rows["test"])._replace(remarks=[]) if rows["test"] else None
    return _Parts(pool, test, validation if len(validation) else None)


def splits_are_no_classes(folder: Path, splits: list[str]) -> str:
    train = next((name for name in splits if name.lower().startswith("train")), splits[0])
    test = next((name for name in splits if name != train), None)
    also = "" if test is None else f" and {printable(folder / test)} as data.test_path"
    return (
        f"the sub-folders of {printable(folder)} are splits by their names ({', '.join(splits)}), and data.labels="
        f"folders would take them for classes. Give {printable(folder / train)} as data.path (--data){also}, or use "
        "data.layout=splits, or data.labels=none."
    )


def trained_on_all(folder: Path, splits: list[str]) -> list[str]:
    if not splits:
        return []
    names = ", ".join(splits)
    return [
        f"the sub-folders of {printable(folder)} are splits by their names ({names}): all of them are used; "
        "data.layout=splits takes train alone, data.exclude leaves some out"
    ]
