"""Images in tar shards, as WebDataset writes them: which there are and where their bytes lie. Opens no image.

An uncompressed tar is an archive that can be read anywhere: once its headers are known, images in shards are images in
files, in any order, each exactly once an epoch. So there is no stream, no shuffle buffer and no other order than that
of every collection; shards must lie on a disk.

A sample is what has one name up to the first dot of its last part, as WebDataset has it; its class is the number in its
``.cls``. A name may have dots of its own, though (22.00.jpg with 22.00.cls): where no ``.cls`` has the name up to the
first dot, one with the name up to a later dot counts; two that disagree are an error. ``0001.seg.png`` beside
``0001.jpg`` is a part of that sample and no image. It is one where no such image is there, where it has a ``.cls`` of
its own, and where what stands between the dots is a number. What is not used is counted.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdclr.data.collections.members import Members
from sdclr.data.collections.packed_names import PackedNames, packed, starts_of
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.exclusion import Exclusion, is_hidden, is_in_service_folder
from sdclr.data.sources.listing import IMAGE_SUFFIXES, OTHER_PICTURES, other_pictures
from sdclr.data.sources.shard_members import (
    CLASS_SUFFIX,
    LONGEST_CLASS,
    ShardMember,
    members_on_disk,
)
from sdclr.data.splits import Positions
from sdclr.errors import DataError, MissingInputError
from sdclr.safe_text import shown

MOST_DOTS = 8
"""In a name, between which a sample or a class is looked for."""
_BRACES = re.compile(r"\{([0-9]{1,15})\.\.([0-9]{1,15})\}")
_MOST_SHARDS = 100_000


class ShardedImages(NamedTuple):
    """The images of some shards, in the order of the shards and, inside each, of the tar."""

    paths: PackedNames
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


@dataclass
class _Unused:
    """How much of some shards is no image and no class of one."""

    links: int = 0
    """That lead nowhere."""
    hidden: int = 0
    service: int = 0
    """Thumbnails and the like."""
    unwanted: int = 0
    classes: list[str] = field(default_factory=list)
    """``.cls`` files without an image, by name."""
    beside: Counter[str] = field(default_factory=Counter)
    """Images that are parts of another one's sample, by what follows the first dot of their name."""
    pictures: Counter[str] = field(default_factory=Counter)
    """Those that cannot be read, by suffix."""
    others: Counter[str] = field(default_factory=Counter)
    """All others by suffix."""

    def add(self, other: _Unused) -> None:
        """Count what another shard has, too."""
        self.links += other.links
        self.hidden += other.hidden
        self.service += other.service
        self.unwanted += other.unwanted
        self.classes += other.classes
        self.beside += other.beside
        self.pictures += other.pictures
        self.others += other.others

    def remarks(self) -> list[str]:
        """What was left out, one phrase each."""
        parts = {
            "links in shards that lead nowhere": self.links,
            "hidden members of shards": self.hidden,
            "members in folders of thumbnails, previews or trash": self.service,
            "members that data.exclude matches": self.unwanted,
        }
        remarks = [f"{what} left out: {num}" for what, num in parts.items() if num]
        if self.classes:
            first = printable(min(self.classes, key=os.fsencode))
            remarks.append(
                f".{CLASS_SUFFIX} files without an image: {len(self.classes)} (first: {first})"
            )
        if self.beside:
            remarks.append(
                f"images that belong to the sample of another one left out: {_by_kind(self.beside)}"
            )
        remarks += other_pictures(dict(self.pictures))
        if self.others:
            kinds = _by_kind(self.others)
            remarks.append(
                f"members of shards that are not used: {kinds} (a class is read from a .{CLASS_SUFFIX})"
            )
        return remarks


def _by_kind(counts: Counter[str], most: int = 8) -> str:
    """``12 .json, 3 .txt``, the most frequent ones first."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    parts = [f"{num} {shown(kind, 20)}" for kind, num in ranked[:most]]
    rest = sum(num for _, num in ranked[most:])
    return ", ".join(parts + [f"{rest} others"] * (rest > 0))


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


def read_shards(
    root: Path,
    shards: list[str],
    unwanted: Exclusion | None = None,
    also: tuple[str, ...] = (),
) -> ShardedImages:
    """The images in tar files below ``root``, from their headers alone; members that are ``unwanted`` do not count.

    A glob is compared with the member's name, and with SHARD/MEMBER.

    Raises MissingInputError for an absent shard, and DataError for one that is compressed, cut off or no tar, for one
    that holds a name twice, and where only some images have a class.
    """
    if absent := [shard for shard in shards if not (root / shard).exists()]:
        raise MissingInputError(
            f"{len(absent)} of {len(shards)} shards do not exist (first: {printable(root / absent[0])}). Restore them."
        )
    if repeated := [shard for shard, times in Counter(shards).items() if times > 1]:
        raise DataError(f"shard {printable(repeated[0])} is named twice.")
    unwanted = unwanted or Exclusion()
    found = [_images_of(root, shard, unwanted, also) for shard in shards]
    unused = _Unused()
    for one in found:
        unused.add(one.unused)
    if not any(len(one.lengths) for one in found):
        but = f"; {', '.join(unused.remarks())}" if unused.remarks() else ""
        raise DataError(
            f"{len(shards)} shards below {printable(root)} hold no images ({', '.join(IMAGE_SUFFIXES)}){but}."
        )
    paths, members = _joined(shards, found)
    return ShardedImages(paths, _labels(paths, found), members, unused.remarks())


class _ShardImages(NamedTuple):
    """The images of one shard, n of them, as arrays."""

    letters: npt.NDArray[np.uint8]
    """Of all names, in UTF-8."""
    lengths: npt.NDArray[np.int32]
    """[n], of each name."""
    starts: Positions
    """[n], first bytes."""
    sizes: Positions
    """[n], in bytes."""
    label_of: npt.NDArray[np.int32]
    """[n], which of ``labels``; -1: it has none."""
    labels: list[str]
    unused: _Unused


def _as_arrays(found: list[_Found], unused: _Unused) -> _ShardImages:
    letters, lengths = packed(one.name for one in found)
    labels = list(dict.fromkeys(one.label for one in found if one.label is not None))
    number_of = {label: number for number, label in enumerate(labels)}
    return _ShardImages(
        letters,
        lengths,
        np.array([one.start for one in found], dtype=np.int64),
        np.array([one.size for one in found], dtype=np.int64),
        np.array([number_of.get(one.label or "", -1) for one in found], dtype=np.int32),
        labels,
        unused,
    )


def _joined(shards: list[str], found: list[_ShardImages]) -> tuple[PackedNames, Members]:
    """The images of all shards, one shard after the other."""
    which = np.repeat(np.arange(len(found), dtype=np.int32), [len(one.lengths) for one in found])
    lengths = np.concatenate([one.lengths for one in found])
    letters = np.concatenate([one.letters for one in found])
    sizes = np.concatenate([one.sizes for one in found])
    if sizes.max() < 1 << 32:
        sizes = sizes.astype(np.uint32)  # half the memory of very many
    starts = np.concatenate([one.starts for one in found])
    beginnings = [f"{shard}/" for shard in shards]
    paths = PackedNames(beginnings, which, letters, starts_of(lengths), lengths)
    return paths, Members(tuple(shards), which, starts, sizes)


def _labels(paths: PackedNames, found: list[_ShardImages]) -> list[str] | None:
    """The class of each image; None where none has one. DataError where some have."""
    unlabelled = np.concatenate([one.label_of for one in found]) < 0
    if unlabelled.all():
        return None
    if unlabelled.any():
        raise DataError(
            f"{unlabelled.sum()} of {len(paths)} images have no .{CLASS_SUFFIX} beside them, and others have one "
            f"(first: {printable(paths[int(unlabelled.argmax())])}). Give every image a class, or none; leave out with "
            "data.exclude what is no image of its own."
        )
    return [one.labels[number] for one in found for number in one.label_of.tolist()]


class _Name(NamedTuple):
    """The name of a member, taken apart."""

    sample: str
    """Up to the first dot of its last part, as WebDataset has it."""
    stem: str
    """Up to the last dot."""
    suffix: str
    """After the last dot, with it, in small letters."""
    fields: str
    """What follows the first dot, with it."""

    def beginnings(self) -> list[str]:
        """Every text from sample to stem that ends before a dot; of a name with many dots these two alone."""
        parts = self.stem[len(self.sample) :].split(".")[1:]
        if len(parts) > MOST_DOTS:
            return [self.sample, self.stem]
        return [".".join([self.sample, *parts[:number]]) for number in range(len(parts) + 1)]

    def goes_on_with_a_number(self, beginning: str) -> bool:
        """Whether what follows is a part of the name, as in 22.00.jpg, and not what an image is called in a sample."""
        rest = self.stem[len(beginning) :].replace(".", "")
        return rest.isascii() and rest.isdigit()


def _name(name: str) -> _Name:
    folder, slash, base = name.rpartition("/")
    key, dot, fields = base.partition(".")
    stem, last, suffix = base.rpartition(".")
    if not last:
        stem, suffix = base, ""
    return _Name(
        folder + slash + key, folder + slash + stem, f"{last}{suffix.lower()}", dot + fields
    )


class _Contents(NamedTuple):
    """What counts in one shard."""

    images: dict[str, tuple[int, int]]
    """First byte and size, by name."""
    classes: dict[str, tuple[str, str]]
    """Name and class of every ``.cls``, by what stands before its last dot."""


def _images_of(root: Path, shard: str, unwanted: Exclusion, also: tuple[str, ...]) -> _ShardImages:
    """The images of one shard; a class may stand before or after. What is not used is counted."""
    path = root / shard
    _require_shard(path)
    found, unused = _Contents({}, {}), _Unused()
    try:
        for member in members_on_disk(path):
            name = member.name
            if member.kind == "folder":
                continue
            if is_hidden(name) or is_in_service_folder(name):
                unused.hidden += is_hidden(name)
                unused.service += not is_hidden(name)
                continue
            # both are asked: a glob may match either
            if (name in unwanted) | (f"{shard}/{name}" in unwanted):
                unused.unwanted += 1
                continue
            _sort_in(member, path, found, unused, also)
    except tarfile.ReadError as error:
        raise DataError(
            f"shard {printable(path)} cannot be read as an uncompressed tar: {error}. Copy it again if it is cut off; "
            "unpack it if it is compressed (images in it are)."
        ) from None
    except OSError as error:
        raise DataError(f"shard {printable(path)} cannot be read: {error.strerror}.") from None
    return _as_arrays(_matched(path, found.images, found.classes, unused), unused)


def _sort_in(
    member: ShardMember, shard: Path, found: _Contents, unused: _Unused, also: tuple[str, ...]
) -> None:
    """Take a member for an image, a class or neither."""
    name, parts = member.name, _name(member.name)
    images, classes = found
    is_class = parts.suffix == f".{CLASS_SUFFIX}"
    is_image = parts.suffix in IMAGE_SUFFIXES + also
    if name in images or (is_class and parts.stem in classes):
        raise DataError(f"shard {printable(shard)} holds {printable(name)} twice.")
    if member.kind == "holes" and is_image:
        raise DataError(
            f"shard {printable(shard)}: {printable(name)} is stored with its holes left out. Write the "
            "shard again without tar's --sparse."
        )
    if is_image and member.target in images:
        images[name] = images[member.target]
    elif (
        is_class and (known := classes.get(_name(member.target).stem)) and known[0] == member.target
    ):
        classes[parts.stem] = (name, known[1])
    elif member.kind in ("hard link", "link") and (is_image or is_class):
        unused.links += 1
    elif member.kind in ("file", "holes") and is_class:
        classes[parts.stem] = (name, _class_in(member, shard))
    elif member.kind == "file" and is_image:
        images[name] = (member.start, member.size)
    elif parts.suffix in OTHER_PICTURES:
        unused.pictures[parts.suffix] += 1
    else:
        unused.others[parts.suffix or "without a suffix"] += 1


def _matched(
    shard: Path,
    images: dict[str, tuple[int, int]],
    classes: dict[str, tuple[str, str]],
    unused: _Unused,
) -> list[_Found]:
    """The images that are none of another one's sample, each with its class, where it has one.

    ``classes``: name and class of every ``.cls``, by what stands before its last dot.
    """
    names = {name: _name(name) for name in images}
    stems = {parts.stem for parts in names.values()}
    used, found = set[str](), list[_Found]()
    for name, (start, size) in images.items():
        parts = names[name]
        shorter = [
            one
            for one in parts.beginnings()[:-1]
            if one in stems and not parts.goes_on_with_a_number(one)
        ]
        if shorter and parts.stem not in classes:
            unused.beside[parts.fields] += 1
            continue
        of_it = [one for one in parts.beginnings() if one in classes]
        # 22.cls is not that of 22.00.jpg where 22.00.cls is there
        of_it = [one for one in of_it if one == of_it[-1] or not parts.goes_on_with_a_number(one)]
        said = [classes[one] for one in of_it]
        if len({label for _, label in said}) > 1:
            raise DataError(
                f"shard {printable(shard)}: {printable(name)} has two classes, {said[0][1]} in {printable(said[0][0])} "
                f"and {said[-1][1]} in {printable(said[-1][0])}. Rename or remove one of them."
            )
        used |= {file for file, _ in said}
        found.append(_Found(name, start, size, said[0][1] if said else None))
    unused.classes += [name for name, _ in classes.values() if name not in used]
    return found


def _require_shard(shard: Path) -> None:
    """DataError for what is no regular file."""
    if not shard.is_file():
        raise DataError(f"shard {printable(shard)} is a folder, a pipe, a socket or a device.")


def _class_in(member: ShardMember, shard: Path) -> str:
    text = member.content.decode("ascii", "replace").strip()
    if len(member.content) > LONGEST_CLASS or not text.isdigit():
        raise DataError(
            f"shard {printable(shard)}: {printable(member.name)} must hold a class as a whole number, "
            f"got {member.content[:LONGEST_CLASS]!r}."
        )
    return str(int(text))
