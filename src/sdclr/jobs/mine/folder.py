"""The folder that mining writes: its computed results, kept for the next call, and a record of the call.

mine.json identifies the folder and records its progress; features.npy, looks.npy and images.tsv.gz
have one row per image, in the order of scores.csv.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sdclr.config import Section
from sdclr.data.collections.contents import Content, read_record, write_record
from sdclr.errors import ConfigError, DataError, MissingInputError, RunFolderError
from sdclr.jobs.mine.looking import LOOK, Looks
from sdclr.run.files import MINE_FILE
from sdclr.safe_text import shown
from sdclr.storage.array_files import save_array
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import (
    is_leftover,
    make_folder,
    storage_errors,
    temporary_name,
    write_atomically,
)
from sdclr.storage.locks import remove_leftovers, writing
from sdclr.storage.output_files import lexists, require_parent
from sdclr.storage.row_parts import put_in_place

RECORD = MINE_FILE
FEATURES, LOOKS, IMAGES = "features.npy", "looks.npy", "images.tsv.gz"
SCORES_FILE, PARQUET, PAGE = "scores.csv", "scores.parquet", "index.html"
UNFINISHED = "features.partial"
MARKS_OF_MISSING = "marks_of_missing.csv"
"""Marks of images that are no longer mined, kept until they are mined again."""
RANKING = "ranking.npz"
"""What the first of several processes hands over to the others."""
_WRITTEN = (RECORD, FEATURES, LOOKS, IMAGES, SCORES_FILE, PARQUET, PAGE, MARKS_OF_MISSING, RANKING)


class MineRecord(Section):
    """mine.json."""

    sdclr_mine: Literal[1] = 1
    """Version of the folder."""
    state: Literal["computing", "features", "finished"]
    """computing: images are being processed; features: the results of all images are stored; finished."""
    encoder: str = ""
    """Encoder.digest: features of equal digests may be mixed."""
    encoder_name: str = ""
    copied_to: str = ""
    """Where --copy-to has copied, resolved; empty: nowhere."""
    reading: dict[str, Any] = Field(default_factory=dict)
    """The settings by which files become pixels, where these can differ."""
    root: str = ""
    num_images: int = 0
    title: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The request for the ranking."""
    copy_rules: list[tuple[float, int]] = Field(default_factory=list)
    """The rules by which near-duplicates were folded: (reach, bits), see rarity's near_duplicates."""
    approximations: dict[str, dict[str, float]] = Field(default_factory=dict)
    """How approximate each approximate search for neighbours was, see rarity's cells."""
    table_root: str | None = None
    """The folder that names in scores.csv are relative to; None if an earlier version wrote it."""
    table_columns: dict[str, str] | None = None
    """Column of the images' own table -> its name in scores.csv; None if an earlier version wrote it."""
    quality: dict[str, Any] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict)
    """Command, versions and device, as in a run."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The stored results of an earlier call on N images."""

    folder: Path
    record: MineRecord
    contents: list[Content]
    features: npt.NDArray[np.float32]
    """[N, F], mapped from the file."""
    looks: Looks


@contextmanager
def claimed(folder: Path, *, overwrite: bool) -> Iterator[None]:
    """Hold the exclusive right to write in the folder for the block.

    Raises RunFolderError for a folder with other content, and ConfigError for one in which mining
    is finished, unless ``overwrite``.
    """
    with storage_errors(folder):
        if folder.name in ("", ".."):
            raise ConfigError(f"--out {shown(folder)} needs a name of its own; give a folder.")
        require_parent(folder)
        if folder.is_symlink() or (lexists(folder) and not folder.is_dir()):
            raise RunFolderError(f"{folder} is not a folder; choose another --out.")
    with writing(folder):
        make_folder(folder)
        remove_leftovers(folder, _WRITTEN)
        record = _require_ours(folder)
        if record is not None and record.state == "finished" and not overwrite:
            raise ConfigError(
                f"{folder} holds finished results; give --overwrite to replace them (features and "
                "your marks are kept), or choose another --out."
            )
        if record is None:
            write_state(folder, MineRecord(state="computing"))
        yield


def _require_ours(folder: Path) -> MineRecord | None:
    with storage_errors(folder):
        names = [name for name in os.listdir(folder) if not is_leftover(name)]
    if RECORD in names:
        return read_state(folder)
    if names:
        raise RunFolderError(
            f"{folder} holds files and was not made by sdclr mine; choose another --out."
        )
    return None


def read_state(folder: Path) -> MineRecord:
    """Read mine.json. Raises MissingInputError if there is none, DataError if it is damaged."""
    path = folder / RECORD
    try:
        return MineRecord.parse(read_json_file(path))
    except FileNotFoundError:
        raise MissingInputError(
            f"{folder} is not a folder of sdclr mine: {path} does not exist."
        ) from None
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise DataError(
            f"{path} is damaged: {shown(error, 300).rstrip('.')}. Restore it, or mine into another folder."
        ) from None


def write_state(folder: Path, record: MineRecord) -> None:
    write_atomically(folder / RECORD, record.model_dump_json(indent=1) + "\n")


def read_stored(folder: Path) -> Stored | None:
    """The results stored in ``folder``; None if no call has come that far. Raises DataError if they are damaged."""
    record = read_state(folder)
    if record.state == "computing":
        return None
    try:
        contents = (read_record(folder / IMAGES, cure="") or {}).get("images", [])
        features = np.load(folder / FEATURES, mmap_mode="c")
        looks = np.load(folder / LOOKS)
    except (OSError, ValueError, EOFError, DataError) as error:
        why = shown(error, 300).rstrip(".")
        raise DataError(
            f"what {folder} has kept cannot be read: {why}. {_elsewhere(folder)}"
        ) from None
    n = record.num_images
    fits = features.ndim == 2 and features.dtype == np.float32 and looks.dtype == LOOK
    if not fits or not len(features) == len(looks) == len(contents) == n:
        raise DataError(
            f"the files in {folder} do not belong together: {len(features)} rows in {FEATURES}, "
            f"{len(looks)} in {LOOKS}, {len(contents)} in {IMAGES}, {n} in {RECORD}. "
            f"{_elsewhere(folder)}"
        )
    return Stored(folder, record, contents, features, looks)


def _elsewhere(folder: Path) -> str:
    """Advice for a folder that cannot be read; its marks are in a table, which still can."""
    scores = folder / SCORES_FILE
    marks = f"; --feedback {shown(scores)} takes the marks there along" if scores.is_file() else ""
    return f"Mine into another folder{marks}."


class StoredWriter:
    """Writes the results of N images to ``folder``, block by block in any order; memory does not grow with F."""

    def __init__(self, folder: Path, num_images: int, feature_dim: int) -> None:
        self._folder, self._num_images = folder, num_images
        self._looks: Looks = np.empty(num_images, dtype=LOOK)
        with storage_errors(folder):
            self._path = temporary_name(folder / FEATURES)
            self._features = np.lib.format.open_memmap(
                self._path, mode="w+", dtype=np.float32, shape=(num_images, feature_dim)
            )

    def put(
        self,
        rows: npt.NDArray[np.int64] | slice,
        features: npt.NDArray[np.float32],
        looks: Looks,
    ) -> None:
        with storage_errors(self._folder):
            self._features[rows], self._looks[rows] = features, looks

    def finish(self, record: MineRecord, contents: list[Content]) -> Stored:
        """Rename the files to their final names; ``contents``: the N images."""
        with storage_errors(self._folder):
            self._features.flush()
            del self._features
        record = record.model_copy(update={"num_images": self._num_images})
        return _store(self._folder, record, contents, self._path, self._looks)


def _store(
    folder: Path, record: MineRecord, contents: list[Content], features: Path, looks: Looks
) -> Stored:
    """Store the results; ``features`` is a finished file beside its final name."""
    with storage_errors(folder):
        temporary = temporary_name(folder / LOOKS)
        with temporary.open("xb") as file:
            save_array(file, looks)
        write_state(folder, record.model_copy(update={"state": "computing"}))
        put_in_place(features, folder / FEATURES)
        put_in_place(temporary, folder / LOOKS)
        write_record(folder / IMAGES, {"images": contents})
        write_state(folder, record.model_copy(update={"state": "features"}))
    found = read_stored(folder)
    assert found is not None
    return found
