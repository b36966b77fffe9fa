"""Headers of tars that claim what they cannot hold are refused before anything is read for them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from sdclr.data.sources.tar_headers import LONGEST_PADDING, members_in


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    member = tarfile.TarInfo(name.decode())
    member.size, member.type = 0, kind
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: dict[str, str]) -> bytes:
    return tarfile.TarInfo.create_pax_global_header(records).replace(b"g", b"x", 1)


def read(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [member.name for member, _ in members_in(file, path.stat().st_size)]


END = bytes(1024)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(b"a.jpg", 8**11 - 1) + END, "ends before 'a.jpg' does"),
        (header(b"a.jpg", -1) + END, "bytes"),
        (header(b"././@LongLink", 1 << 30, b"L") + END, "extended header of 1,073,741,824 bytes"),
        (header(b"pax", 1 << 30, b"x") + END, "extended header of"),
        (header(b"a.jpg", 512, b"S") + bytes(512) + END, "holes left out"),
        (header(b"a.jpg", 0), "no member and no end mark"),
        (b"no tar at all" * 100, "header|end mark"),
    ],
)
def test_a_header_beyond_its_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(tarfile.ReadError, match=words):
        read(tmp_path / "x.tar")


def extended(number: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}
    ) as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    content = buffer.getvalue()
    first = content[:1024]  # a header and its one block of records
    return first * number + content[1024:]


def test_many_extended_headers_in_a_row_are_refused_and_a_few_are_read(tmp_path: Path) -> None:
    (tmp_path / "few.tar").write_bytes(extended(3))
    assert read(tmp_path / "few.tar") == ["a.jpg"]
    (tmp_path / "many.tar").write_bytes(extended(3_000))
    with pytest.raises(tarfile.ReadError, match="extended headers in a row"):
        read(tmp_path / "many.tar")


@pytest.mark.parametrize("size", ["-1", "-512", "99999999999999999999"])
def test_a_pax_size_that_is_none_is_refused(tmp_path: Path, size: str) -> None:
    record = b"%d size=%s\n" % (len(size) + 8 + (len(size) + 8 > 9), size.encode())
    content = (
        header(b"pax", len(record), b"x") + record.ljust(512, b"\0") + header(b"a.jpg", 0) + END
    )
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(tarfile.ReadError):
        read(tmp_path / "x.tar")


def test_gigabytes_of_padding_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(header(b"a.jpg", 0) + END)
    os.truncate(path, 50 << 30)  # a hole
    with pytest.raises(tarfile.ReadError, match="bytes follow its end mark"):
        read(path)
    os.truncate(path, LONGEST_PADDING // 2)
    assert read(path) == ["a.jpg"]


@pytest.mark.parametrize("name", ["GNU", "PAX", "USTAR"])
def test_sound_tars_of_every_format_are_read(tmp_path: Path, name: str) -> None:
    def add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
        archive.addfile(_member(path, len(content)), io.BytesIO(content))

    names = ["a.jpg", "x/" * 40 + "b.jpg"] + (["é" * 90 + ".jpg"] if name != "USTAR" else [])
    with tarfile.open(
        tmp_path / "x.tar", "w", format=getattr(tarfile, f"{name}_FORMAT")
    ) as archive:
        for path in names:
            add(archive, path, b"12345")
    assert read(tmp_path / "x.tar") == names


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size = size
    return member
