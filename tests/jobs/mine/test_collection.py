"""Which images are known: by name and content, below a common folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sdclr.data.collections.contents import ABSENT, Content
from sdclr.errors import ConfigError
from sdclr.jobs.mine.collection import Joined, Listed, Stored, join


def contents(**digests: str) -> list[Content]:
    return [Content(f"{name}.png", digest, 1, 1) for name, digest in digests.items()]


def joined(
    now: list[Content], old: list[Content], *, root: str = "/p", old_root: str = "/p", keep: bool
) -> Joined:
    record = SimpleNamespace(root=old_root)
    stored = cast(Stored, SimpleNamespace(folder=Path("x"), record=record, contents=old))
    return join(Listed(cast(Any, None), root, now, {}), stored, keep_others=keep)


def test_an_image_is_known_by_its_name_and_its_content() -> None:
    now = contents(a="1", b="2", c="3", d=ABSENT)
    found = joined(now, contents(b="2", c="other", d=ABSENT), keep=False)
    assert found.stored_row.tolist() == [-1, 0, -1, -1]
    assert found.unseen.tolist() == [0, 2, 3]


def test_images_of_another_folder_are_kept_in_the_order_of_names() -> None:
    found = joined(
        contents(b="1", z="2"), contents(a="3", c="4"), root="/p/x", old_root="/p/m", keep=True
    )
    assert [one.path for one in found.contents] == ["m/a.png", "m/c.png", "x/b.png", "x/z.png"]
    assert found.stored_row.tolist() == [0, 1, -1, -1]
    assert found.listed_row.tolist() == [-1, -1, 0, 1]
    assert found.root == "/p"


def test_a_folder_above_the_earlier_one_has_its_images_once() -> None:
    now = [one._replace(path=f"m/{one.path}") for one in contents(a="3")] + contents(z="2")
    found = joined(now, contents(a="3", gone="5"), root="/p", old_root="/p/m", keep=True)
    assert [one.path for one in found.contents] == ["m/a.png", "z.png"]
    assert found.stored_row.tolist() == [0, -1]
    assert found.remarks == ("1 images of the earlier collection are missing and left out.",)


def test_earlier_images_of_the_same_folder_are_kept_while_their_files_exist(tmp_path: Path) -> None:
    for name in ("june.png", "one.tar"):
        (tmp_path / name).touch()
    names = ["gone.png", "june.png", "june.png#1,2,3,4", "none.tar/b.png", "one.tar/a.png"]
    old = [Content(name, str(row), 1, 1) for row, name in enumerate(names)]
    root = str(tmp_path)
    found = joined(contents(july="9"), old, root=root, old_root=root, keep=True)
    kept = ["july.png", "june.png", "june.png#1,2,3,4", "one.tar/a.png"]
    assert [one.path for one in found.contents] == kept
    assert found.stored_row.tolist() == [-1, 1, 2, 4]
    assert found.remarks == ("2 images of the earlier collection are missing and left out.",)


def test_images_at_an_address_are_kept_since_nobody_asks_there() -> None:
    root = "/home/me/s3:/bucket"
    found = joined(contents(b="1"), contents(a="2"), root=root, old_root=root, keep=True)
    assert [one.path for one in found.contents] == ["a.png", "b.png"]
    found = joined(contents(b="1"), contents(a="2"), root="/home/me", old_root=root, keep=True)
    assert [one.path for one in found.contents] == ["b.png", "s3:/bucket/a.png"]


def test_images_of_two_arrays_have_no_common_folder() -> None:
    with pytest.raises(ConfigError, match="with a common folder"):
        joined(contents(a="1"), contents(a="2"), root="", old_root="", keep=True)


def test_images_in_memory_have_no_common_folder_with_others() -> None:
    with pytest.raises(ConfigError, match="with a common folder"):
        joined(contents(a="1"), contents(b="2"), root="", old_root="/p", keep=True)
