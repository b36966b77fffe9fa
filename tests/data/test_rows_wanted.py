"""What says that a row is another one: how a file is read, its name, its content, and when it was written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from image_folder_stand_in import make_folder
from sdclr.data import DataConfig, build_data
from sdclr.data.rows_wanted import rows_wanted


def wanted(path: Path, **settings: object) -> tuple[str, list[tuple[int, int]] | None]:
    values = {"name": "images", "path": str(path), "subset": "all"}
    found = build_data(DataConfig.parse(values | settings))
    identity, keys = rows_wanted(found, found.train)
    return identity, None if keys is None else [tuple(key) for key in keys.tolist()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_folder(tmp_path / "photos", {"cat": 3, "dog": 2})
    return tmp_path / "photos"


def test_a_file_that_was_written_again_has_another_key_and_a_moved_folder_the_same(
    photos: Path,
) -> None:
    identity, keys = wanted(photos)
    assert keys is not None
    assert len(set(keys)) == 5
    first = sorted(path for path in photos.rglob("*.*"))[0]
    os.utime(first, ns=(5, 5))
    again = wanted(photos)[1]
    assert again is not None
    assert [a == b for a, b in zip(keys, again, strict=True)] == [False, True, True, True, True]
    moved = photos.rename(photos.with_name("moved"))
    assert wanted(moved) == (identity, again)


def test_boxes_in_other_units_and_other_readings_are_other_rows(photos: Path) -> None:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.*"))
    table = photos / "boxes.csv"
    table.write_text("path,x,y,width,height\n" + "".join(f"{name},0,0,1,1\n" for name in names))
    units = [wanted(table, boxes=unit)[0] for unit in ("pixels", "fractions")]
    others = [wanted(photos, exif_rotation=turned)[0] for turned in (True, False)]
    assert len({*units, *others}) == 4


def test_images_in_memory_have_no_keys_and_are_all_of_the_identity(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        images = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{seed}.npz", images=images)
        found.append(wanted(tmp_path / f"{seed}.npz", name="arrays"))
    assert found[0][1] is None
    assert found[0][0] != found[1][0]
