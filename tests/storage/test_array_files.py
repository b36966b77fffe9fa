"""A file of arrays is whole, or it is damaged and said to be: nothing in between is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdclr.storage.array_files import DamagedArraysError, read_arrays, write_arrays


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", {"name": "é", "n": 3}, {"x": np.arange(3), "y": np.zeros(0, "u1")})
    found = read_arrays(tmp_path / "a")
    assert found is not None
    assert found.facts == {"name": "é", "n": 3}
    np.testing.assert_array_equal(found.arrays["x"], np.arange(3))
    assert found.arrays["y"].dtype == np.uint8
    assert read_arrays(tmp_path / "b") is None


def test_one_byte_fewer_more_or_other_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_arrays(file, {}, {"x": np.arange(20)})
    content = file.read_bytes()
    other = bytearray(content)
    other[-10] ^= 1
    for damaged in (b"", content[:20], content[:-1], content + b"x", bytes(other)):
        file.write_bytes(damaged)
        with pytest.raises(DamagedArraysError):
            read_arrays(file)


def test_a_folder_in_its_place_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedArraysError):
        read_arrays(tmp_path)
