"""What the headers of a tar shard state about each member, as plain facts: the same wherever the shard is."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from sdclr.data.sources.tar_headers import members_in

CLASS_SUFFIX = "cls"
LONGEST_CLASS = 20
Kind = Literal["file", "holes", "folder", "hard link", "link", "other"]
"""holes: a file that is stored without them (tar --sparse)."""


class ShardMember(NamedTuple):
    """One member, whose content is read only for classes."""

    name: str
    """Without ./ in front of it."""
    kind: Kind
    start: int
    """Its first byte in the shard."""
    size: int
    target: str = ""
    """The target of a hard link, without ./ in front of it."""
    content: bytes = b""
    """The beginning of a ``.cls``: at most one byte more than a class may have."""


def members_on_disk(shard: Path) -> Iterator[ShardMember]:
    """:func:`shard_members` of a file; also raises OSError as open does."""
    with shard.open("rb") as file:
        yield from shard_members(file, os.fstat(file.fileno()).st_size)


def shard_members(file: BinaryIO, size: int) -> Iterator[ShardMember]:
    """The members of a tar of ``size`` bytes, in its order. Raises as members_in does."""
    for member, archive in members_in(file, size):
        kind = _kind(member)
        name = member.name.removeprefix("./")
        target = member.linkname.removeprefix("./") if kind == "hard link" else ""
        is_class = name.lower().endswith(f".{CLASS_SUFFIX}") and kind in ("file", "holes")
        content = _beginning(archive, member) if is_class else b""
        yield ShardMember(name, kind, member.offset_data, member.size, target, content)


def _kind(member: tarfile.TarInfo) -> Kind:
    if member.isdir():
        return "folder"
    if member.islnk() or member.issym():
        return "hard link" if member.islnk() else "link"
    if not member.isreg():
        return "other"
    return "holes" if member.issparse() else "file"


def _beginning(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read(LONGEST_CLASS + 1) if file is not None else b""
