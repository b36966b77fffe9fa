"""Arrays are read when their header agrees with what follows it, and with NumPy's own reader."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.decoding import npy_files
from sdclr.data.decoding.npy_files import read_npy, read_npz_arrays
from sdclr.data.sources.arrays import read_npz
from sdclr.errors import DataError


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64),
        np.zeros((2, 3, 4), np.uint8),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(["a", "bb"]),
        np.array(5),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
    ],
)
def test_a_plain_array_is_what_numpy_reads(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    found = read_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(found, np.load(tmp_path / "x.npy"))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", images=array, other=array)
        arrays, held = read_npz_arrays(tmp_path / "x.npz", ["images", "absent"])
        assert (list(arrays), held) == (["images"], ["images", "other"])
        np.testing.assert_array_equal(arrays["images"], array)


@pytest.mark.parametrize("shape", [(7, 5, 4, 3), (1, 3, 3, 3), (0, 4, 4, 3), (5, 0, 4, 3)])
@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_colour_images_are_what_numpy_reads_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], piece: int
) -> None:
    monkeypatch.setattr(npy_files, "PIECE", piece)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", images=images)
        found = read_npz_arrays(tmp_path / "x.npz", ["images"])[0]["images"]
        assert found.shape == shape
        np.testing.assert_array_equal(found, images)


def test_images_are_in_memory_once(tmp_path: Path) -> None:
    images = np.zeros((20_000, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.zeros(20_000, np.int64))
    tracemalloc.start()
    try:
        train = read_npz(tmp_path / "x.npz").train
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(train, ImageArrays)
    assert train.images.is_contiguous()
    assert images.nbytes <= peak <= images.nbytes + 4_000_000


def test_a_changed_byte_is_found_by_the_archives_checksum(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[5_000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz_arrays(tmp_path / "x.npz", ["images"])


def npy(description: str, shape: str, body: bytes = b"") -> bytes:
    text = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy("'|u1'", "(1000000000000000,)"), "claims 1,000,000,000,000,000 bytes"),
        (npy("'<i8'", "(4294967296, 4294967296)"), "claims"),
        (npy("'|u1'", "(-1,)", b"1234"), "shape"),
        (npy("'|u1'", "(3,)", b"1234"), "claims 3 bytes of numbers, and 4 follow"),
        (npy("'|O'", "(1,)", b"12345678"), "pickled objects are refused"),
        (npy("'|V8'", "(1,)", b"12345678"), "not plain"),
        (npy("[('a', '<i4')]", "(1,)", b"1234"), "not plain"),
        (npy("'|S0'", "(9,)"), "not plain"),
        (npy("__import__('this')", "(1,)", b"1"), "is not a plain"),
        (npy("'|u1'", "(" * 200 + ")" * 200), "is not a plain"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"", "is not a plain"),
    ],
)
def test_a_header_that_does_not_agree_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_npy(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(DataError, match=words):
        read_npz_arrays(tmp_path / "x.npz", ["images"])


def test_members_that_numpy_does_not_write_and_arrays_beyond_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("images", b"raw")
    with pytest.raises(DataError, match="is not an array"):
        read_npz_arrays(tmp_path / "raw.npz", ["images"])
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", npy("'|u1'", "(4,)", b"1234"))
    with pytest.raises(DataError, match="packed in a way"):
        read_npz_arrays(tmp_path / "lzma.npz", ["images"])
    np.savez_compressed(tmp_path / "large.npz", images=np.zeros(10_000_000, np.uint8))
    monkeypatch.setattr(npy_files, "free_memory_of_machine", lambda: 5_000_000)
    with pytest.raises(DataError, match=r"0\.0 GB, and 0\.0 GB of memory are free"):
        read_npz_arrays(tmp_path / "large.npz", ["images"])
