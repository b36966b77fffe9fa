"""The headers of a tar file, read within bounds: what one claims is checked before anything is read for it.

tarfile trusts every header: it reads an extended header of any size into memory, recurses once for each of many
extended headers in a row, and seeks to negative positions. This is its own reader with limits.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from sdclr.errors import SdclrError

LONGEST_EXTENSION = 1 << 20
"""Bytes of a long name or of a pax header; both hold names, times and a comment."""
MOST_EXTENSIONS = 16
"""The most extended headers of one member."""
LONGEST_PADDING = 16 << 20
"""Bytes of zeros after the end mark; tar fills its last record, 10 KB by default."""

_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Member(tarfile.TarInfo):
    """A header that is checked before its reader acts on it; _proc_member is the hook that tarfile provides."""

    def _proc_member(self, archive: _Archive) -> _Member:
        if self.size < 0:
            raise tarfile.ReadError(f"a member of {self.size} bytes at byte {self.offset:,}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(
                f"{self.name[:80]} is stored with its holes left out (tar --sparse)"
            )
        if self.type not in _EXTENSIONS:
            return super()._proc_member(archive)  # type: ignore[misc]
        if self.size > LONGEST_EXTENSION:
            raise tarfile.ReadError(
                f"an extended header of {self.size:,} bytes at byte {self.offset:,}"
            )
        archive.extensions += 1
        if archive.extensions > MOST_EXTENSIONS:
            raise tarfile.ReadError(
                f"more than {MOST_EXTENSIONS} extended headers in a row at byte {self.offset:,}"
            )
        try:
            return super()._proc_member(archive)  # type: ignore[misc]
        finally:
            archive.extensions -= 1

    def _is_sparse(self, member: _Member, *_: object) -> None:
        """Record that a pax header declares the member sparse, without reading its map of holes."""
        member.sparse = []  # type: ignore[assignment]  # typeshed describes the header's bytes

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _is_sparse


class _Archive(tarfile.TarFile):
    tarinfo = _Member
    extensions = 0
    """The number of extended headers being read for the next member."""


def members_in(file: BinaryIO, size: int) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Every member of an uncompressed tar of ``size`` bytes, with the archive to read it from.

    Raises tarfile.ReadError for one that is damaged, cut off, compressed or beyond the limits of this module, whatever
    its headers claim, and passes on what reading ``file`` raises.
    """
    try:
        with _Archive.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # known to lack; a shard may hold millions
                stored = member.isreg() and not member.issparse()
                if member.size < 0 or (stored and member.offset_data + member.size > size):
                    raise tarfile.ReadError(
                        f"it ends before {member.name[:80]!r} does, a member of {member.size:,} bytes"
                    )
                yield member, archive
            _require_end_mark(archive, size)
    except tarfile.ReadError as error:
        raise tarfile.ReadError(_other_kind(file) or str(error)) from None
    except (tarfile.TarError, OSError, SdclrError):
        raise
    except Exception as error:  # tarfile's parsers raise errors of any kind for damaged headers
        raise tarfile.ReadError(
            f"a damaged header ({type(error).__name__}: {str(error)[:80]})"
        ) from None


_KINDS = {
    b"\x1f\x8b": "it is compressed (gzip)",
    b"BZh": "it is compressed (bzip2)",
    b"\xfd7zXZ": "it is compressed (xz)",
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd)",
    b"PK\x03\x04": "it is a zip",
    b"<!doctype": "it is a web page",
    b"<html": "it is a web page",
    b"<?xml": "it is XML, perhaps a server's refusal",
}
"""By their first bytes, the kinds of files that are most often taken for a tar."""


def _other_kind(file: BinaryIO) -> str | None:
    """What a file is that is not a tar, where its first bytes show it."""
    file.seek(0)
    beginning = file.read(tarfile.BLOCKSIZE).lstrip()
    values = (
        kind for first, kind in _KINDS.items() if beginning[: len(first)].lower() == first.lower()
    )
    return next(values, None)


def _require_end_mark(archive: tarfile.TarFile, size: int) -> None:
    """Require a block of zeros where the reader stopped, and only zeros after it.

    The reader stops silently at anything it cannot read, and at the end of the first of two joined archives.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no member and no end mark at byte {archive.offset:,}")
    if size - archive.offset > LONGEST_PADDING:
        raise tarfile.ReadError(
            f"{size - archive.offset:,} bytes follow its end mark at byte {archive.offset:,}"
        )
    while rest := archive.fileobj.read(1 << 20):
        if any(rest):
            raise tarfile.ReadError(f"something follows its end mark at byte {archive.offset:,}")
