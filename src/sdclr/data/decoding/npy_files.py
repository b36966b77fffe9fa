"""Arrays in NumPy's files, read within bounds: a header is compared with the number of bytes that follow before any
memory is reserved for it. Pickled arrays are refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sdclr.compute.memory import free_memory_of_machine
from sdclr.errors import DataError

LONGEST_HEADER = 10_000
"""Bytes of the text that describes an array."""
PIECE = 1 << 20
"""Bytes that are read at a time, straight into the array."""
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npy(path: Path) -> npt.NDArray[Any]:
    """The array in a ``.npy`` file. Raises DataError, naming the file and what is wrong, and OSError as open does."""
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except (DataError, OSError):
        raise
    except Exception as error:  # NumPy's parsers raise errors of any kind for damaged headers
        raise DataError(f"{path} is not a plain .npy array: {_described(error)}") from None


def npy_shape(file: IO[bytes], size: int) -> tuple[int, ...]:
    """The shape in the header of an open ``.npy`` of ``size`` bytes; ValueError where it does not fit."""
    shape, _, _ = _header(file, size)
    return shape


def npy_array(file: IO[bytes], size: int) -> npt.NDArray[Any]:
    """The array in an open ``.npy`` of ``size`` bytes. Raises ValueError for anything else."""
    return _read(file, size)


def read_npz_arrays(
    path: Path, wanted: Iterable[str]
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """The arrays of a ``.npz`` whose names are ``wanted``, and the names of all that it holds.

    Raises DataError, naming the file and what is wrong, also for arrays that do not fit in the free memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
            chosen = {name: members[name] for name in wanted if name in members}
            _require_memory(sum(member.file_size for member in chosen.values()), path)
            return {name: _member(archive, member) for name, member in chosen.items()}, list(
                members
            )
    except DataError:
        raise
    # zipfile's and NumPy's parsers raise errors of any kind for damaged files
    except Exception as error:
        raise DataError(f"{path} is not a plain .npz archive: {_described(error)}") from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename[:80]!r} is not an array")
    if member.compress_type not in _PACKINGS:
        raise ValueError(f"{member.filename[:80]!r} is packed in a way that NumPy does not use")
    with archive.open(member) as file:
        return _read(file, member.file_size)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type, from a header that agrees with the ``size`` bytes of the file."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = readers[version](file, max_header_size=LONGEST_HEADER)
    if dtype.hasobject or dtype.kind not in "biufcSU" or dtype.itemsize == 0:
        raise ValueError(
            f"its entries are {str(dtype)[:80]}, not plain numbers or text (pickled objects are refused)"
        )
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    numbers = math.prod(shape)
    there = size - file.tell()
    if numbers * dtype.itemsize != there:
        raise ValueError(
            f"its header claims {numbers * dtype.itemsize:,} bytes of numbers, and {there:,} follow it"
        )
    return shape, fortran, dtype


def _read(file: IO[bytes], size: int) -> npt.NDArray[Any]:
    """An array whose header agrees with the ``size`` bytes of the file, read once."""
    shape, fortran, dtype = _header(file, size)
    there = size - file.tell()
    if dtype == np.uint8 and len(shape) == 4 and shape[3] == 3 and not fortran:
        return _colour_images(file, shape)
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    flat = array.reshape(-1, order="A").view(np.uint8)
    for first in range(0, there, PIECE):
        _fill(file, flat[first : first + PIECE], first, there)
    return array


def _colour_images(file: IO[bytes], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """uint8 [N, H, W, 3] whose planes are stored one after the other, as networks take them.

    Transposing an array of images afterwards would need the memory of two.
    """
    num, height, width, channels = shape
    planes = np.empty((num, channels, height, width), np.uint8)
    size = height * width * channels
    step = max(1, PIECE // max(size, 1))
    piece = np.empty((min(step, num), height, width, channels), np.uint8)
    for first in range(0, num, step):
        here = piece[: num - first]
        _fill(file, here.reshape(-1), first * size, num * size)
        planes[first : first + step] = here.transpose(0, 3, 1, 2)
    return planes.transpose(0, 2, 3, 1)


def _fill(file: IO[bytes], piece: npt.NDArray[np.uint8], before: int, total: int) -> None:
    """Fill ``piece`` with the next bytes of ``file``; ``before`` of ``total`` were read already."""
    done = 0
    while done < len(piece):
        got = file.readinto(piece[done:])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"it is cut off: {before + done:,} of {total:,} bytes are there")
        done += got


def _require_memory(size: int, path: Path) -> None:
    free = free_memory_of_machine()
    if size > free:
        raise DataError(
            f"{path} holds arrays of {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free. Write the "
            "images as files, or as tar shards: these are read one at a time."
        )


def _described(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
