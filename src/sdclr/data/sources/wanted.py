"""Which images of a user's own collection are wanted, and how its files are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdclr.data.choices import (
    MEGADETECTOR_CATEGORIES,
    MEGADETECTOR_CONFIDENCE,
    Links,
    Unlabelled,
    WantedBoxes,
)
from sdclr.data.decoding.decode import ALL_GREY_BITS
from sdclr.data.sources.exclusion import Exclusion


@dataclass(frozen=True)
class Reading:
    """How the files of a collection are decoded; the fields of :class:`ImageFiles` of the same names."""

    exif_rotation: bool = False
    """False cannot be honoured for TIFF and HEIC: their readers always rotate them. A remark counts such files."""
    grey_bits: int = ALL_GREY_BITS
    """How many bits 16-bit greys use."""
    channels: int = 3
    """Of every image."""
    num_workers: int | None = None


@dataclass(frozen=True)
class Wanted:
    """Which images of a source are taken, and what its names and columns mean."""

    root: Path | None = None
    """What the paths of lists are relative to; None: each list's own folder."""
    class_folders: bool = False
    """Whether the sub-folders are the classes."""
    in_splits: bool = False
    """Whether the first folders are splits; they are taken apart later."""
    left_out_folders: tuple[Path | str, ...] = ()
    unwanted: Exclusion = field(default_factory=lambda: Exclusion(()))
    """Names to leave out."""
    links: Links = "inside"
    """Whether those below a folder, or below the root of a list, may lead out of it."""
    path_column: str | None = None
    """Of tables, where its name is not in PATH_COLUMNS."""
    label_column: str | None = None
    unlabelled: Unlabelled = "keep_all"
    """Of tables and shards: what becomes of images without a label where others have one; counted in any case."""
    boxes: WantedBoxes = "none"
    """Of tables: whether each row is a box in a picture; see :mod:`sdclr.data.sources.image_lists`."""
    box_categories: tuple[str, ...] = MEGADETECTOR_CATEGORIES
    min_confidence: float = MEGADETECTOR_CONFIDENCE
    also: tuple[str, ...] = ()
    """Suffixes of further files that are images wherever they are, not only where a list names them."""
