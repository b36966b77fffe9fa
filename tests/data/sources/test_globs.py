"""A glob as a collection: which paths it matches, and what it is no glob for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sdclr.data.sources.globs import Glob, glob_of
from sdclr.errors import DataError

PATHS = ["a.jpg", "b.png", "x/a.jpg", "x/y/a.jpg", "x/y/é.jpg", "x/a1.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/é.jpg", "x/a1.jpg"]),
        ("**", PATHS),
        ("x/**", ["x/a.jpg", "x/y/a.jpg", "x/y/é.jpg", "x/a1.jpg"]),
        ("x/*", ["x/a.jpg", "x/a1.jpg"]),
        ("*/a?.jpg", ["x/a1.jpg"]),
        ("[ab].*", ["a.jpg", "b.png"]),
        ("[!a].*", ["b.png"]),
        ("**/e\u0301.jpg", ["x/y/é.jpg"]),
        ("*.JPG", []),
        ("x*a.jpg", []),
        ("[a.jpg", []),
    ],
)
def test_a_star_stays_in_its_folder_and_two_cross_them(pattern: str, expected: list[str]) -> None:
    assert Glob(Path("root"), pattern).matching(PATHS) == expected


@pytest.mark.parametrize(
    ("pattern", "folders"),
    [
        ("*.jpg", []),
        ("**/*.jpg", ["x", "x/y", "z"]),
        ("**", ["x", "x/y", "z"]),
        ("x/**", ["x", "x/y"]),
        ("x/*", ["x"]),
        ("?/*/*.jpg", ["x", "x/y", "z"]),
        ("z/**/y/*.jpg", ["z"]),
        ("x/**/y/**/a.jpg", ["x", "x/y"]),
    ],
)
def test_folders_in_which_nothing_can_match_are_known(pattern: str, folders: list[str]) -> None:
    glob = Glob(Path("root"), pattern)
    assert [name for name in ("x", "x/y", "z") if glob.may_match_below(name)] == folders


def test_what_matches_lies_in_folders_that_may_hold_it() -> None:
    names = ["a", "b", "ab"]
    paths = ["/".join(some) for many in (2, 3, 4) for some in itertools.product(names, repeat=many)]
    for parts in itertools.product(["**", "*", "a", "?b"], repeat=3):
        glob = Glob(Path("root"), "/".join(parts))
        for path in paths:
            above = [path[:end] for end, sign in enumerate(path) if sign == "/"]
            assert not glob.matches(path) or all(map(glob.may_match_below, above)), (parts, path)


def test_what_exists_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "photos [2024]").mkdir()
    assert glob_of(tmp_path / "photos [2024]") is None
    assert glob_of(tmp_path / "photos") is None
    assert glob_of(tmp_path / "p*" / "**" / "x.jpg") == Glob(tmp_path, "p*/**/x.jpg")


def test_a_glob_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leads out of the folder"):
        glob_of(tmp_path / "*" / ".." / "x.jpg")


def test_a_range_that_runs_backwards_is_said() -> None:
    with pytest.raises(
        DataError, match=r"the glob \[z-a\]\.png cannot be read: bad character range"
    ):
        Glob(Path("x"), "[z-a].png").matching(["a.png"])
