"""Arrays and facts in one file with a checksum, for data that can be recomputed: damaged files count as absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdclr.storage.durable_files import write_atomically

_MARK = b"sdclr arrays 1\n"
_DIGEST = 32
_FACTS = "facts"


class Arrays(NamedTuple):
    """The contents of a file of arrays."""

    facts: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class DamagedArraysError(Exception):
    """A file that exists, but is not what was written."""


class _Written:
    """A file that hides its type from NumPy: the errors of NumPy's own way of writing to real files give no cause."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def save_array(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write a .npy file. An OSError describes what the system has refused, which numpy.save's does not."""
    np.lib.format.write_array(_Written(file), array, allow_pickle=False)


def mapped_file(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.memmap[Any, np.dtype[Any]]:
    """A new .npy file, mapped for writing. OSError where the disk is too small, before a page of it is written."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # else a full disk ends the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return mapped


def write_arrays(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Replace ``path`` by these, whole or not at all. ``facts`` go through JSON."""
    buffer = io.BytesIO()
    text = json.dumps(dict(facts)).encode()
    everything: dict[str, Any] = {_FACTS: np.frombuffer(text, np.uint8), **arrays}
    np.savez(buffer, **everything)
    body = buffer.getvalue()
    write_atomically(path, _MARK + hashlib.sha256(body).digest() + body)


def read_arrays(path: Path) -> Arrays | None:
    """The arrays that were written; None where there is no such file. DamagedArraysError for anything else."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedArraysError(str(error)) from None
    begin = len(_MARK) + _DIGEST
    body = memoryview(content)[begin:]
    if (
        not content.startswith(_MARK)
        or hashlib.sha256(body).digest() != content[len(_MARK) : begin]
    ):
        raise DamagedArraysError("its checksum does not match")
    with np.load(io.BytesIO(body), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    return Arrays(json.loads(arrays.pop(_FACTS).tobytes()), arrays)
