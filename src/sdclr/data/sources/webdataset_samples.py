"""Which members of a tar shard are images, and of which class, as WebDataset names samples. Reads no pixels.

A sample is all members with the same name up to the first dot of the last part, as in WebDataset; its class is the
number in its ``.cls``. A name may contain dots of its own, though (22.00.jpg with 22.00.cls): where no ``.cls`` has the
name up to the first dot, one with the name up to a later dot counts; two that disagree are an error. ``0001.seg.png``
next to ``0001.jpg`` is a part of that sample and not an image. It is an image where no such image exists, where it has
a ``.cls`` of its own, or where the text between the dots is a number. Unused members are counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sdclr.addresses import Place
from sdclr.data.decoding.decode import printable
from sdclr.data.sources.exclusion import SERVICE_FOLDERS, Exclusion, is_hidden, is_in_service_folder
from sdclr.data.sources.listing import IMAGE_SUFFIXES, OTHER_PICTURES, other_pictures
from sdclr.data.sources.shard_members import CLASS_SUFFIX, LONGEST_CLASS, ShardMember
from sdclr.errors import DataError
from sdclr.safe_text import shown

_MOST_DOTS = 8
"""The most dots in a name at which a sample or a class is searched."""
_RULES = 1
"""The version of the rules for images and their classes; it changes with them, which invalidates what was kept."""


class SampleImage(NamedTuple):
    """An image of a shard."""

    name: str
    """The name of the member."""
    start: int
    """Its first byte in the shard."""
    size: int
    """In bytes."""
    label: str | None
    """Its class, where it has one."""


@dataclass
class Unused:
    """How many members of some shards are neither images nor their classes."""

    links: int = 0
    """Broken links."""
    hidden: int = 0
    service: int = 0
    """Thumbnails and the like."""
    unwanted: int = 0
    classes: list[str] = field(default_factory=list)
    """``.cls`` files without an image, by name."""
    beside: Counter[str] = field(default_factory=Counter)
    """Images that are parts of another image's sample, by what follows the first dot of their name."""
    pictures: Counter[str] = field(default_factory=Counter)
    """Pictures that cannot be read, by suffix."""
    others: Counter[str] = field(default_factory=Counter)
    """All others by suffix."""

    def add(self, other: Unused) -> None:
        """Add the counts of another shard."""
        self.links += other.links
        self.hidden += other.hidden
        self.service += other.service
        self.unwanted += other.unwanted
        self.classes += other.classes
        self.beside += other.beside
        self.pictures += other.pictures
        self.others += other.others

    def remarks(self) -> list[str]:
        """What was left out, a phrase for each kind."""
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


def rules(also: tuple[str, ...]) -> tuple[object, ...]:
    """Everything that decides which members are images (``also``: further suffixes) and which are classes."""
    return _RULES, IMAGE_SUFFIXES, also, sorted(OTHER_PICTURES), SERVICE_FOLDERS


def images_of(
    members: Iterable[ShardMember],
    path: Place,
    shard: str,
    unwanted: Exclusion,
    also: tuple[str, ...],
) -> tuple[list[SampleImage], Unused]:
    """The images of one shard; a class may come before or after its image. Unused members are counted.

    ``path``: the shard in errors; ``shard``: its name, which a glob may put in front of a member's. ``also``: further
    suffixes of images.
    """
    found, unused = _Contents({}, {}), Unused()
    for member in members:
        name = member.name
        if member.kind == "folder":
            continue
        if is_hidden(name) or is_in_service_folder(name):
            unused.hidden += is_hidden(name)
            unused.service += not is_hidden(name)
            continue
        # both are checked: a glob may match either
        if (name in unwanted) | (f"{shard}/{name}" in unwanted):
            unused.unwanted += 1
            continue
        _sort_in(member, path, found, unused, also)
    return _matched(path, found.images, found.classes, unused), unused


class _Contents(NamedTuple):
    """The images and classes of one shard."""

    images: dict[str, tuple[int, int]]
    """First byte and size, by name."""
    classes: dict[str, tuple[str, str]]
    """Name and class of every ``.cls``, by its name up to the last dot."""


class _MemberName(NamedTuple):
    """The name of a member in its parts."""

    sample: str
    """Up to the first dot of its last part, as in WebDataset."""
    stem: str
    """Up to the last dot."""
    suffix: str
    """From the last dot on, in lower case."""
    fields: str
    """From the first dot on."""

    def beginnings(self) -> list[str]:
        """Every prefix from sample to stem that ends before a dot; only these two for a name with many dots."""
        parts = self.stem[len(self.sample) :].split(".")[1:]
        if len(parts) > _MOST_DOTS:
            return [self.sample, self.stem]
        return [".".join([self.sample, *parts[:number]]) for number in range(len(parts) + 1)]

    def goes_on_with_a_number(self, beginning: str) -> bool:
        """Whether the rest is a part of the name, as in 22.00.jpg, and not the key of an image in a sample."""
        rest = self.stem[len(beginning) :].replace(".", "")
        return rest.isascii() and rest.isdigit()


def _parsed(name: str) -> _MemberName:
    folder, slash, base = name.rpartition("/")
    key, dot, fields = base.partition(".")
    stem, last, suffix = base.rpartition(".")
    if not last:
        stem, suffix = base, ""
    return _MemberName(
        folder + slash + key, folder + slash + stem, f"{last}{suffix.lower()}", dot + fields
    )


def _sort_in(
    member: ShardMember, shard: Place, found: _Contents, unused: Unused, also: tuple[str, ...]
) -> None:
    """Classify a member as an image, a class or neither."""
    name, parts = member.name, _parsed(member.name)
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
        is_class
        and (known := classes.get(_parsed(member.target).stem))
        and known[0] == member.target
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
    shard: Place,
    images: dict[str, tuple[int, int]],
    classes: dict[str, tuple[str, str]],
    unused: Unused,
) -> list[SampleImage]:
    """The images that do not belong to another image's sample, each with its class, where it has one.

    ``classes``: name and class of every ``.cls``, by its name up to the last dot.
    """
    names = {name: _parsed(name) for name in images}
    stems = {parts.stem for parts in names.values()}
    used, found = set[str](), list[SampleImage]()
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
        keys = [key for key in parts.beginnings() if key in classes]
        # 22.cls does not belong to 22.00.jpg where 22.00.cls exists
        keys = [key for key in keys if key == keys[-1] or not parts.goes_on_with_a_number(key)]
        class_files = [classes[key] for key in keys]
        if len({label for _, label in class_files}) > 1:
            (first, label), (last, other) = class_files[0], class_files[-1]
            raise DataError(
                f"shard {printable(shard)}: {printable(name)} has two classes, {label} in {printable(first)} "
                f"and {other} in {printable(last)}. Rename or remove one of them."
            )
        used |= {file for file, _ in class_files}
        found.append(SampleImage(name, start, size, class_files[0][1] if class_files else None))
    unused.classes += [name for name, _ in classes.values() if name not in used]
    return found


def _class_in(member: ShardMember, shard: Place) -> str:
    text = member.content.decode("ascii", "replace").strip()
    if len(member.content) > LONGEST_CLASS or not text.isdigit():
        raise DataError(
            f"shard {printable(shard)}: {printable(member.name)} must hold a class as a whole number, "
            f"got {member.content[:LONGEST_CLASS]!r}."
        )
    return str(int(text))


def _by_kind(counts: Counter[str], most: int = 8) -> str:
    """``12 .json, 3 .txt``, the most frequent ones first."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    parts = [f"{num} {shown(kind, 20)}" for kind, num in ranked[:most]]
    rest = sum(num for _, num in ranked[most:])
    return ", ".join(parts + [f"{rest} others"] * (rest > 0))
