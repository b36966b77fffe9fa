"""What globs and the names of service folders leave out, and what they leave alone."""

from __future__ import annotations

import unicodedata

import pytest

from sdclr.data.sources.exclusion import (
    Exclusion,
    glob_problem,
    is_hidden,
    is_in_service_folder,
    is_service_folder,
)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("thumbs", "a/thumbs/b/1.jpg"),
        ("thumbs/", "thumbs/1.jpg"),
        ("./a/thumbs", "a/thumbs/1.jpg"),
        ("a/*", "a/b/1.jpg"),
        ("*_mask.png", "a/1_mask.png"),
        ("**/1.jpg", "1.jpg"),
        ("**/1.jpg", "a/b/1.jpg"),
        ("a/b", "a/b/c/d/1.jpg"),
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9/1.jpg")),
        ("[ab]?.jpg", "x/a1.jpg"),
    ],
)
def test_a_glob_matches_paths_folders_above_and_names(glob: str, path: str) -> None:
    globs = Exclusion([glob, "other"])
    assert path in globs
    assert globs.unused() == ["other"]


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("thumbs", "thumbs2/1.jpg"),
        ("a/*", "b/a/1.jpg"),
        ("*.jpg", "1.JPG"),
        ("b", "a/b.jpg"),
        ("a", "ab/1.jpg"),
    ],
)
def test_a_glob_leaves_everything_else_alone(glob: str, path: str) -> None:
    globs = Exclusion([glob])
    assert path not in globs
    assert globs.unused() == [glob]


def test_no_globs_leave_nothing_out() -> None:
    assert "a.jpg" not in Exclusion()


@pytest.mark.parametrize("deep", ["a/" * 3_000 + "x/1.jpg", "a/" * 200_000 + "x/1.jpg"])
def test_names_of_any_depth_can_be_asked_for(deep: str) -> None:
    assert deep in Exclusion(["x"])
    assert deep not in Exclusion(["y"])
    assert not is_in_service_folder(deep)


@pytest.mark.parametrize("glob", ["", "/", " ", "/data/*", "~/x", "../x", "a/../../b", "a\\b"])
def test_a_glob_that_can_match_nothing_is_a_problem(glob: str) -> None:
    assert glob_problem(glob) is not None
    assert glob_problem("a/*.jpg") is None


@pytest.mark.parametrize(
    "folder",
    [
        *(
            "@eaDir",
            "a/@EADIR",
            "#recycle",
            "@Recycle",
            "$RECYCLE.BIN",
            "x/__MACOSX",
            "System Volume Information",
        ),
        *(
            "Catalog Previews.lrdata",
            "2024/CaptureOne/Cache",
            "x.cocatalog/Cache",
            "My.photoslibrary/resources",
        ),
        *("#snapshot", "lost+found", "appdata_oc1/preview"),
    ],
)
def test_folders_of_servers_and_systems_are_known(folder: str) -> None:
    assert is_service_folder(folder)
    assert is_in_service_folder(f"{folder}/deep/1.jpg")


@pytest.mark.parametrize(
    "folder", ["eaDir", "recycle", "Cache", "thumbs", "CaptureOne", "lrdata", "My.photoslibrary"]
)
def test_folders_that_may_be_somebodys_own_are_not_among_them(folder: str) -> None:
    assert not is_service_folder(folder)
    assert not is_in_service_folder(f"{folder}/1.jpg")


def test_hidden_names_begin_with_a_dot() -> None:
    assert is_hidden(".a/1.jpg")
    assert is_hidden("a/.1.jpg")
    assert not is_hidden("./a/../1.jpg")
