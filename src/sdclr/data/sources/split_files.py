"""Read the authors' split lists: ``.npy`` positions (CIFAR) and ``.txt`` lines ``relative/path label`` (ImageNet).

Nothing pickled is loaded, no path leaves its root, and every list is checked before it is used.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdclr.data.choices import AUTHORS_CIFAR_FOLDERS
from sdclr.data.decoding.npy_files import read_npy
from sdclr.data.splits import Positions, Split
from sdclr.errors import DataError, MissingInputError

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_authors_cifar_split(
    folder: Path | str, dataset: str, number: int, num_images: int = 50_000
) -> Split:
    """Split ``number`` (1-5) of cifar10 or cifar100 from the authors' ``split`` folder.

    Expects their layout, for example ``cifar10_imbSub_with_subsets/split1_D_i.npy`` and ``cifar10/trainIdxList.npy``.
    Raises MissingInputError for an absent list and DataError for one that is invalid.
    """
    lists, subsets, list_prefix, subset_prefix = AUTHORS_CIFAR_FOLDERS[dataset]
    folder = Path(folder)

    def subset(tag: str) -> Positions:
        return read_positions(
            folder / subsets / f"{subset_prefix}split{number}_{tag}.npy", num_images
        )

    validation = read_positions(folder / lists / f"{list_prefix}valIdxList.npy", num_images)
    split = Split(
        long_tail=subset("D_i"),
        balanced=subset("D_b"),
        few_shot=subset("S_b"),
        train=read_positions(folder / lists / f"{list_prefix}trainIdxList.npy", num_images),
        validation=validation,
        number=number,
        source="authors' lists",
    )
    for name in ("long_tail", "balanced", "few_shot", "train"):
        shared = np.intersect1d(split.subset(name), validation)
        if len(shared):
            raise DataError(
                f"{folder}: the {name} list of {dataset} split {number} holds {len(shared)} validation images "
                f"(first: {shared[0]}). These lists do not belong together."
            )
    return split


def read_positions(path: Path, num_images: int) -> Positions:
    """A ``.npy`` list of distinct positions 0 .. num_images - 1, as int64 [n]."""
    if not path.is_file():
        raise MissingInputError(
            f"split list {path} does not exist. Is data.splits_dir the authors' split folder?"
        )
    try:
        positions = read_npy(path)
    except OSError as error:
        raise DataError(f"split list {path} cannot be read: {error.strerror}.") from None
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise DataError(f"split list {path} must hold a one-dimensional integer array.")
    if len(positions) == 0:
        raise DataError(f"split list {path} is empty.")
    bad = np.flatnonzero((positions < 0) | (positions >= num_images))
    if len(bad):
        raise DataError(
            f"split list {path}: entry {bad[0]} is {positions[bad[0]]}, outside 0 .. {num_images - 1}. "
            "Is it a list for another data set?"
        )
    if len(np.unique(positions)) != len(positions):
        raise DataError(f"split list {path} names some image twice.")
    return positions.astype(np.int64)


class ImageList(NamedTuple):
    """A list of distinct image files below some root, in file order."""

    paths: list[str]
    labels: Positions
    """[N] int64."""
    file: Path
    """The list itself."""
    lines: Positions
    """[N] int64, the line of each, from 1."""

    def where(self, row: int) -> str:
        """List and line of an entry, for messages."""
        return f"{self.file}, line {self.lines[row]}"


def read_image_list(path: Path | str) -> ImageList:
    """Lines ``relative/path label``; the label follows the last space. Raises DataError naming the line."""
    path = Path(path)
    line_of: dict[str, int] = {}
    labels = []
    for number, line in read_lines(path):
        name, _, label = line.rstrip().rpartition(" ")
        if problem := _problem(name, label, line):
            raise DataError(f"{path}, line {number}: {problem}")
        if name in line_of:
            raise DataError(
                f"{path}, line {number}: {name!r} is listed already, in line {line_of[name]}."
            )
        line_of[name] = number
        labels.append(int(label))
    if not line_of:
        raise DataError(f"image list {path} is empty.")
    return ImageList(
        list(line_of), np.array(labels, np.int64), path, np.array(list(line_of.values()), np.int64)
    )


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of every line of a list that is not blank; undecodable bytes become surrogates."""
    return [
        (number, line)
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]


def read_text(path: Path) -> str:
    """A list as text, line ends as they are: UTF-8, or the encoding of its byte order mark (UTF-16 and UTF-32).

    Raises MissingInputError or DataError when it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    marked = next(
        (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), None
    )
    if marked is None and b"\0" in content[:2]:
        raise DataError(
            f"{path}, line 1: a zero byte among the first two, as in UTF-16 without its byte order mark. "
            "Save it again, as UTF-8."
        )
    if marked is None:
        if _is_binary(content):
            raise DataError(
                f"{path} is a binary file, not a list. Give lines of text (.txt, .csv, .tsv, .jsonl) or a table in "
                "Parquet (.parquet)."
            )
        return content.decode("utf-8", "surrogateescape")
    try:
        return content.decode(marked, "surrogateescape" if marked == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} begins as {marked.upper()} text, but is not valid at byte {error.start}: {error.reason}. "
            "Save it again, as UTF-8."
        ) from None


def _is_binary(content: bytes) -> bool:
    """Whether the beginning is not text in any of the usual encodings: control characters where words should be."""
    beginning = content[:1024]
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in beginning)
    return controls > 0.05 * len(beginning) or content[:16].count(0) > 1


def _problem(name: str, label: str, line: str) -> str | None:
    """What is wrong with one line, if anything."""
    if "\t" in line:
        return f"a tab; one space goes between path and label: {line[:80]!r}."
    if not name or not (label.isascii() and label.isdigit()) or len(label) > 9:
        return f"expected 'relative/path label', got {line[:80]!r}."
    return path_problem(name)


def path_problem(name: str) -> str | None:
    """Why a path of a list names nothing below the image folder; None if it does."""
    return leaving_problem(name) or (backslash_problem(name) if "\\" in name else None)


def leaving_problem(name: str) -> str | None:
    """The problem of a path that leads out of the image folder; None for any other."""
    if name.startswith(("/", "~")) or ".." in name.split("/") or "\0" in name:
        return f"{name[:80]!r} leaves the image folder; only paths below it count."
    return None


def backslash_problem(name: str) -> str:
    return f"a backslash; / goes between folders: {name[:80]!r}."
