"""Images in tar shards, as WebDataset writes them: which there are and where their bytes lie. Opens no image.

An uncompressed tar is an archive that can be read anywhere: once its headers are known, images in shards are images in
files, in any order, each exactly once an epoch. So there is no stream, no shuffle buffer and no other order than that
of every collection; shards must lie on a disk. A sample is what has one name up to the first dot of its last part;
its class is the number in its ``.cls``.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdclr.data.decode import Member, printable
from sdclr.data.listing import IMAGE_SUFFIXES
from sdclr.data.splits import Positions
from sdclr.data.tar_headers import members_of
from sdclr.errors import DataError, MissingInputError

CLASS_SUFFIX = "cls"
LONGEST_CLASS = 20
_BRACES = re.compile(r"\{([0-9]{1,15})\.\.([0-9]{1,15})\}")
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Members:
    """Where N images lie in S shards."""

    shards: tuple[str, ...]
    """[S], below the root of the collection."""
    shard: Positions
    """int64 [N], which of them."""
    start: Positions
    """int64 [N], the first byte there."""
    size: Positions
    """int64 [N], in bytes."""

    def at(self, positions: Positions) -> Members:
        return Members(self.shards, self.shard[positions], self.start[positions], self.size[positions])

    def member(self, root: Path, position: int, name: str) -> Member:
        shard = self.shards[int(self.shard[position])]
        own = name.removeprefix(f"{shard}/")
        return Member(os.path.join(root, shard), int(self.start[position]), int(self.size[position]), own)


class ShardedImages(NamedTuple):
    """The images of some shards, in the order of the shards and, inside each, of the tar."""

    paths: list[str]
    """[N], SHARD/MEMBER."""
    labels: list[str] | None
    """[N], the class of each, where every image has one."""
    members: Members
    remarks: list[str]
    """What was left out, one phrase each."""


class _Found(NamedTuple):
    name: str
    start: int
    size: int
    label: str | None


def expand_braces(name: str) -> list[str]:
    """``train-{000..146}.tar`` -> 147 names; a name without a range is itself. Several ranges multiply.

    Raises DataError for a range that descends, and for more than 100,000 names.
    """
    names = [""]
    rest = name
    while match := _BRACES.search(rest):
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        if not 0 <= last - first < _MOST_SHARDS // len(names):
            raise DataError(
                f"{printable(name)}: the range {match[0]} must ascend, and all ranges name {_MOST_SHARDS:,} at most."
            )
        numbers = [f"{number:0{width}d}" for number in range(first, last + 1)]
        names = [f"{begun}{rest[: match.start()]}{number}" for begun in names for number in numbers]
        rest = rest[match.end() :]
    names = [begun + rest for begun in names]
    if any(brace in names[0] for brace in "{}"):
        raise DataError(f"{printable(name)}: ranges are written {{000..146}}, and do not nest.")
    return names


def read_shards(root: Path, shards: list[str]) -> ShardedImages:
    """The images in tar files below ``root``, from their headers alone.

    Raises MissingInputError for an absent shard, and DataError for one that is compressed, cut off or no tar, for one
    that holds a name twice, and where only some images have a class.
    """
    if absent := [shard for shard in shards if not (root / shard).exists()]:
        raise MissingInputError(
            f"{len(absent)} of {len(shards)} shards do not exist (first: {printable(root / absent[0])}). Restore them."
        )
    if repeated := [shard for shard, times in Counter(shards).items() if times > 1]:
        raise DataError(f"shard {printable(repeated[0])} is named twice.")
    found: list[tuple[int, _Found]] = []
    num_lost = 0
    for number, shard in enumerate(shards):
        images, lost = _images_of(root / shard)
        found += [(number, one) for one in images]
        num_lost += lost
    if not found:
        raise DataError(f"{len(shards)} shards below {printable(root)} hold no images ({', '.join(IMAGE_SUFFIXES)}).")
    paths = [f"{shards[number]}/{one.name}" for number, one in found]
    unlabelled = [path for path, (_, one) in zip(paths, found, strict=True) if one.label is None]
    if 0 < len(unlabelled) < len(found):
        raise DataError(
            f"{len(unlabelled)} of {len(found)} images have no .{CLASS_SUFFIX} beside them, and others have one "
            f"(first: {printable(unlabelled[0])}). Give every image a class, or none."
        )
    return ShardedImages(
        paths,
        None if unlabelled else [one.label or "" for _, one in found],
        Members(
            tuple(shards),
            np.array([number for number, _ in found], dtype=np.int64),
            np.array([one.start for _, one in found], dtype=np.int64),
            np.array([one.size for _, one in found], dtype=np.int64),
        ),
        [f"links in shards that lead nowhere left out: {num_lost}"] if num_lost else [],
    )


def _images_of(shard: Path) -> tuple[list[_Found], int]:
    """The images of one shard, and the number of its links that lead nowhere; a class may stand before or after."""
    _require_shard(shard)
    images: dict[str, tuple[str, int, int]] = {}
    class_of: dict[str, str] = {}
    num_lost = 0
    try:
        for member, archive in members_of(shard):
            name = member.name.removeprefix("./")
            folder, _, base = name.rpartition("/")
            key, _, suffix = base.partition(".")
            sample, is_image = f"{folder}/{key}", base.lower().endswith(IMAGE_SUFFIXES) and key
            if name in images or (suffix.lower() == CLASS_SUFFIX and sample in class_of):
                raise DataError(f"shard {printable(shard)} holds {printable(name)} twice.")
            if member.issparse() and is_image:
                raise DataError(
                    f"shard {printable(shard)}: {printable(name)} is stored with its holes left out. Write the "
                    "shard again without tar's --sparse."
                )
            if member.islnk() and is_image and (target := images.get(member.linkname.removeprefix("./"))):
                images[name] = (sample, *target[1:])
            elif (member.islnk() or member.issym()) and is_image:
                num_lost += 1
            elif member.isreg() and suffix.lower() == CLASS_SUFFIX:
                class_of[sample] = _read_class(archive, member, shard)
            elif member.isreg() and is_image:
                images[name] = (sample, member.offset_data, member.size)
    except tarfile.ReadError as error:
        raise DataError(
            f"shard {printable(shard)} cannot be read as an uncompressed tar: {error}. Copy it again if it is cut off; "
            "unpack it if it is compressed (images in it are)."
        ) from None
    except OSError as error:
        raise DataError(f"shard {printable(shard)} cannot be read: {error.strerror}.") from None
    found = [_Found(name, start, size, class_of.get(sample)) for name, (sample, start, size) in images.items()]
    return found, num_lost


def _require_shard(shard: Path) -> None:
    """DataError for what is no regular file."""
    if not shard.is_file():
        raise DataError(f"shard {printable(shard)} is a folder, a pipe, a socket or a device.")


def _read_class(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> str:
    file = archive.extractfile(member)
    content = file.read(LONGEST_CLASS + 1) if file is not None else b""
    text = content.decode("ascii", "replace").strip()
    if len(content) > LONGEST_CLASS or not text.isdigit():
        raise DataError(
            f"shard {printable(shard)}: {printable(member.name)} must hold a class as a whole number, "
            f"got {content[:LONGEST_CLASS]!r}."
        )
    return str(int(text))
