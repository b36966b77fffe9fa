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

from sdclr.data.collections.members import Members
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.exclusion import Exclusion, is_hidden, is_in_service_folder
from sdclr.data.sources.listing import IMAGE_SUFFIXES, OTHER_PICTURES, other_pictures
from sdclr.data.sources.tar_headers import members_of
from sdclr.errors import DataError, MissingInputError
from sdclr.safe_text import shown

CLASS_SUFFIX = "cls"
LONGEST_CLASS = 20
MOST_DOTS = 8
"""In a name, between which a sample or a class is looked for."""
_BRACES = re.compile(r"\{([0-9]{1,15})\.\.([0-9]{1,15})\}")
_MOST_SHARDS = 100_000


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
    found: list[tuple[int, _Found]] = []
    unused = _Unused()
    for number, shard in enumerate(shards):
        here = _images_of(root, shard, unwanted or Exclusion(), unused, also)
        found += [(number, one) for one in here]
    if not found:
        but = f"; {', '.join(unused.remarks())}" if unused.remarks() else ""
        raise DataError(
            f"{len(shards)} shards below {printable(root)} hold no images ({', '.join(IMAGE_SUFFIXES)}){but}."
        )
    paths = [f"{shards[number]}/{one.name}" for number, one in found]
    unlabelled = [path for path, (_, one) in zip(paths, found, strict=True) if one.label is None]
    if 0 < len(unlabelled) < len(found):
        raise DataError(
            f"{len(unlabelled)} of {len(found)} images have no .{CLASS_SUFFIX} beside them, and others have one "
            f"(first: {printable(unlabelled[0])}). Give every image a class, or none; leave out with data.exclude what "
            "is no image of its own."
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
        unused.remarks(),
    )


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


def _images_of(
    root: Path, shard: str, unwanted: Exclusion, unused: _Unused, also: tuple[str, ...]
) -> list[_Found]:
    """The images of one shard; a class may stand before or after. Counts in ``unused`` what is not used."""
    path = root / shard
    _require_shard(path)
    images: dict[str, tuple[int, int]] = {}
    classes: dict[str, tuple[str, str]] = {}
    try:
        for member, archive in members_of(path):
            name = member.name.removeprefix("./")
            parts = _name(name)
            is_class = parts.suffix == f".{CLASS_SUFFIX}"
            is_image = parts.suffix in IMAGE_SUFFIXES + also
            if member.isdir():
                continue
            if is_hidden(name) or is_in_service_folder(name):
                unused.hidden += is_hidden(name)
                unused.service += not is_hidden(name)
                continue
            # both are asked: a glob may match either
            if (name in unwanted) | (f"{shard}/{name}" in unwanted):
                unused.unwanted += 1
                continue
            if name in images or (is_class and parts.stem in classes):
                raise DataError(f"shard {printable(path)} holds {printable(name)} twice.")
            if member.issparse() and is_image:
                raise DataError(
                    f"shard {printable(path)}: {printable(name)} is stored with its holes left out. Write the "
                    "shard again without tar's --sparse."
                )
            target = member.linkname.removeprefix("./") if member.islnk() else ""
            if is_image and target in images:
                images[name] = images[target]
            elif is_class and (known := classes.get(_name(target).stem)) and known[0] == target:
                classes[parts.stem] = (name, known[1])
            elif (member.islnk() or member.issym()) and (is_image or is_class):
                unused.links += 1
            elif member.isreg() and is_class:
                classes[parts.stem] = (name, _read_class(archive, member, path))
            elif member.isreg() and is_image:
                images[name] = (member.offset_data, member.size)
            elif parts.suffix in OTHER_PICTURES:
                unused.pictures[parts.suffix] += 1
            else:
                unused.others[parts.suffix or "without a suffix"] += 1
    except tarfile.ReadError as error:
        raise DataError(
            f"shard {printable(path)} cannot be read as an uncompressed tar: {error}. Copy it again if it is cut off; "
            "unpack it if it is compressed (images in it are)."
        ) from None
    except OSError as error:
        raise DataError(f"shard {printable(path)} cannot be read: {error.strerror}.") from None
    return _matched(path, images, classes, unused)


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
