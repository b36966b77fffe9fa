"""Images in a .zip: which there are and where their bytes are. Unpacks nothing to disk and opens no image.

A zip lists at its end where each member begins, so its images are read like images in files, in any order. A stored
member is read in place; a packed one (deflate) is unpacked into memory whenever it is used, never beyond the size that
it claims (:mod:`sdclr.data.decoding.decode`). What a zip claims is checked before anything is read for it: too large a
directory, overlapping members, passwords and other compression methods are refused.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sdclr.data.collections.members import Members
from sdclr.data.decoding.decode import FileState, printable
from sdclr.data.sources.exclusion import Exclusion, is_hidden, is_in_service_folder
from sdclr.data.sources.listing import IMAGE_SUFFIXES, OTHER_PICTURES, other_pictures
from sdclr.errors import DataError, MissingInputError
from sdclr.safe_text import shown

LARGEST_DIRECTORY = 1 << 28
"""Bytes; three million members."""
_LONGEST_COMMENT = 1 << 16
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_IS_ENCRYPTED = 0x1


class ZippedImages(NamedTuple):
    """The images of a zip, in the order of the bytes of their names."""

    paths: list[str]
    """[N], ZIP/MEMBER."""
    members: Members
    prefix: str
    """ZIP/, or ZIP/FOLDER/ where all members are in one folder: the prefix of all names."""
    remarks: list[str]
    """What was left out, a phrase for each kind."""


def read_zip(
    path: Path, unwanted: Exclusion | None = None, also: tuple[str, ...] = ()
) -> ZippedImages:
    """The images in a zip, from its directory alone; members that are ``unwanted`` do not count.

    Raises MissingInputError for an absent file, and DataError for one that is damaged, cut off, not a zip, or beyond
    the limits of this module, and where it has no images.
    """
    if not path.is_file():
        if path.exists():
            raise DataError(f"{printable(path)} is not a file.")
        raise MissingInputError(f"{printable(path)} does not exist.")
    counts: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            state = FileState.of(os.fstat(file.fileno()))
            _require_small_directory(file)
            with zipfile.ZipFile(file) as archive:
                chosen = _images(archive, path, unwanted or Exclusion(), counts, pictures, also)
                places = {name: _place(file, info) for name, info in chosen.items()}
    except (DataError, MissingInputError):
        raise
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # zipfile's parser raises errors of any kind for damaged directories
        raise DataError(
            f"{printable(path)} cannot be read as a zip: {shown(error) or type(error).__name__}. Copy it again if it "
            "is cut off."
        ) from None
    remarks = [f"{what} left out: {number}" for what, number in counts.items()] + other_pictures(
        dict(pictures)
    )
    if not chosen:
        but = f" ({', '.join(remarks)})" if remarks else ""
        raise DataError(f"{printable(path)} holds no images{but}.")
    _refuse_overlap(path, places)
    names = sorted(chosen, key=os.fsencode)
    top = {name.partition("/")[0] if "/" in name else "" for name in names}
    inside = f"{top.pop()}/" if len(top) == 1 and "" not in top else ""
    return ZippedImages(
        [f"{path.name}/{name}" for name in names],
        Members(
            (path.name,),
            np.zeros(len(names), dtype=np.int64),
            np.array([places[name].start for name in names], dtype=np.int64),
            np.array([chosen[name].file_size for name in names], dtype=np.int64),
            np.array([places[name].packed for name in names], dtype=np.int64),
            states=(state,),
        ),
        f"{path.name}/{inside}",
        remarks,
    )


class _Place(NamedTuple):
    start: int
    end: int
    packed: int
    """Bytes of a packed member; -1 for a stored one."""


def _images(
    archive: zipfile.ZipFile,
    path: Path,
    unwanted: Exclusion,
    counts: Counter[str],
    pictures: Counter[str],
    also: tuple[str, ...],
) -> dict[str, zipfile.ZipInfo]:
    """The members that are images, by name; counts the others."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/").removeprefix("./")
        suffix = os.path.splitext(name)[1].lower()
        if name.endswith("/"):
            continue
        if is_hidden(name):
            counts["hidden members of the zip"] += 1
        elif is_in_service_folder(name):
            counts["members in folders of thumbnails, previews or trash"] += 1
        elif (name in unwanted) | (f"{path.name}/{name}" in unwanted):
            # both are checked: a glob may match either
            counts["members that data.exclude matches"] += 1
        elif suffix in OTHER_PICTURES:
            pictures[suffix] += 1
        elif suffix not in IMAGE_SUFFIXES + also:
            counts["members that are not images"] += 1
        elif stat.S_ISLNK(info.external_attr >> 16):
            counts["links in the zip"] += 1
        else:
            _require_readable(info, path, name)
            if name in found:
                raise DataError(f"{printable(path)} holds {printable(name)} twice.")
            found[name] = info
    return found


def _require_readable(info: zipfile.ZipInfo, path: Path, name: str) -> None:
    where = f"{printable(path)}: {printable(name)}"
    if info.flag_bits & _IS_ENCRYPTED:
        raise DataError(f"{where} needs a password. Unpack the zip, and give its folder.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{where} is compressed by a method that is not supported (method {info.compress_type}). Unpack the zip, "
            "and give its folder."
        )


def _place(file: BinaryIO, info: zipfile.ZipInfo) -> _Place:
    """Where the bytes of a member are: after its own header, which alone records its length."""
    file.seek(info.header_offset)
    mark, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if mark != b"PK\3\4":
        raise zipfile.BadZipFile(f"no member at byte {info.header_offset:,}")
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    is_packed = info.compress_type == zipfile.ZIP_DEFLATED
    size = info.compress_size if is_packed else info.file_size
    return _Place(start, start + size, info.compress_size if is_packed else -1)


def _refuse_overlap(path: Path, places: dict[str, _Place]) -> None:
    """DataError for members that share bytes: this is how a small zip unpacks to a large one."""
    size = path.stat().st_size
    before, end = "", 0
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        if place.start < end:
            raise DataError(
                f"{printable(path)}: {printable(name)} overlaps {printable(before)}. It is not a sound zip."
            )
        if place.end > size:
            raise DataError(f"{printable(path)} ends before {printable(name)} does. Copy it again.")
        before, end = name, place.end


def _require_small_directory(file: BinaryIO) -> None:
    """DataError for a directory that would take gigabytes of memory; zipfile reads as much as it claims."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _LONGEST_COMMENT - 22 - 76, 0))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("its end is missing")
    claimed = struct.unpack_from("<I", tail, end + 12)[0]
    long_end = tail.rfind(b"PK\6\6", 0, end)
    if long_end >= 0 and len(tail) >= long_end + 48:
        claimed = max(
            claimed if claimed != 0xFFFFFFFF else 0,
            struct.unpack_from("<Q", tail, long_end + 40)[0],
        )
    if claimed > LARGEST_DIRECTORY:
        raise zipfile.BadZipFile(
            f"its directory claims {claimed:,} bytes, more than {LARGEST_DIRECTORY:,}"
        )
    file.seek(0)
