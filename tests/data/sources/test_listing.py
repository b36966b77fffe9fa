"""Listing a folder: what counts as an image, in which order, and what cannot make it go wrong or on for ever."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdclr.data.sources import listing as module
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.listing import IMAGE_SUFFIXES, list_images
from sdclr.errors import DataError, MissingInputError
from sdclr.presentation.sheet import sheet_png


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY))


def test_images_are_found_at_every_depth_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = [
        "b.jpg",
        "a/z.png",
        "a.jpg",
        "a/b/c.webp",
        "B.JPG",
        "ä.jpg",
        "a b.jpg",
        "10.jpg",
        "9.jpg",
    ]
    touch(tmp_path, *names)
    assert list_images(tmp_path).paths == sorted(names, key=os.fsencode)


def test_the_order_does_not_depend_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number % 3}/{number}.jpg" for number in range(30)]
    touch(tmp_path, *names)
    (tmp_path / "l2").symlink_to("1")
    (tmp_path / "l3.jpg").symlink_to("1/1.jpg")
    (tmp_path / "l1").symlink_to("1")
    expected = list_images(tmp_path)
    real = os.scandir

    class Shuffled:
        def __init__(self, where: str) -> None:
            with real(where) as entries:
                self.entries = list(entries)
            np.random.default_rng(len(self.entries)).shuffle(self.entries)

        def __enter__(self) -> list:
            return self.entries

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(module.os, "scandir", Shuffled)
    assert list_images(tmp_path) == expected
    assert expected.paths == sorted([*names, "l3.jpg"], key=os.fsencode)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_suffixes_count_whatever_their_case(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a{suffix}", f"B{suffix.upper()}", f"c{suffix}.txt")
    listing = list_images(tmp_path)
    assert listing.paths == [f"B{suffix.upper()}", f"a{suffix}"]
    assert listing.num_other == 1


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.jpg",
        "notes.txt",
        "x/list.csv",
        ".hidden.jpg",
        ".cache/a.jpg",
        ".cache/b.jpg",
        "jpg",
    )
    listing = list_images(tmp_path)
    assert listing[:4] == (["a.jpg"], 3, 2, 0)
    assert listing.remarks() == [
        "files that are not images left out: 3",
        "hidden files and folders left out: 2",
    ]
    assert list_images(tmp_path / "x").remarks() == ["files that are not images left out: 1"]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "album.jpg/1.jpg")
    assert list_images(tmp_path)[:4] == (["album.jpg/1.jpg"], 0, 0, 0)


def test_pipes_and_sockets_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert list_images(tmp_path)[:4] == (["a.jpg"], 2, 0, 0)


def test_loops_of_links_end_and_every_folder_is_entered_once(tmp_path: Path) -> None:
    touch(tmp_path, "z/1.jpg", "z/deep/2.jpg")
    (tmp_path / "z" / "loop").symlink_to(tmp_path)
    (tmp_path / "z" / "deep" / "up").symlink_to("..")
    (tmp_path / "a").symlink_to("z")  # comes before z, and yet z is called z
    (tmp_path / "self").symlink_to("self")
    listing = list_images(tmp_path)
    assert listing.paths == ["z/1.jpg", "z/deep/2.jpg"]
    assert listing.num_other == 1, "a link to itself leads to no folder"


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A folder with links to a file and a folder elsewhere, one under two names."""
    touch(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    touch(tmp_path / "root", "3.jpg")
    (tmp_path / "root" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "one.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "root" / "broken.jpg").symlink_to("nowhere")
    return tmp_path / "root"


def test_links_out_of_the_folder_are_followed_when_that_is_said(leaky: Path) -> None:
    paths = list_images(leaky, links="anywhere").paths
    assert paths == ["3.jpg", "again/1.jpg", "again/2.jpg", "broken.jpg", "one.jpg"]


def test_links_out_of_the_folder_are_refused(leaky: Path, tmp_path: Path) -> None:
    to = f"{leaky}, to {tmp_path}/elsewhere \\(1 more links do so\\).*themselves there, or use data.links=anywhere"
    with pytest.raises(DataError, match=f"^{leaky}/again/ leads through a link out of {to}"):
        list_images(leaky)
    (leaky / "again").unlink()
    (leaky / "more").unlink()
    with pytest.raises(
        DataError, match=f"^{leaky}/one.jpg leads .* to {tmp_path}/elsewhere/1.jpg. Put"
    ):
        list_images(leaky)
    (leaky / "one.jpg").unlink()
    assert list_images(leaky).paths == ["3.jpg", "broken.jpg"], (
        "a broken link shows when it is read"
    )


def test_a_folder_outside_is_refused_before_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "disk").symlink_to("/")
    listed: list[str] = []
    real = os.scandir
    monkeypatch.setattr(
        module.os, "scandir", lambda where: (listed.append(os.path.realpath(where)), real(where))[1]
    )
    with pytest.raises(
        DataError, match=f"{tmp_path}/disk/ leads through a link out of {tmp_path}, to /\\. Put"
    ):
        list_images(tmp_path)
    assert listed == [str(tmp_path)]


def test_links_that_are_not_asked_for_may_lead_anywhere(tmp_path: Path) -> None:
    """What is left out is left out, wherever it lies."""
    touch(tmp_path / "root", "1.jpg")
    touch(tmp_path / "run", "sheet.jpg")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "root" / "notes.txt").symlink_to(tmp_path / "notes.txt")
    (tmp_path / "root" / ".hidden.jpg").symlink_to(tmp_path / "run" / "sheet.jpg")
    (tmp_path / "root" / "run").symlink_to(tmp_path / "run")
    assert list_images(tmp_path / "root", exclude=[tmp_path / "run"])[:4] == (["1.jpg"], 1, 1, 1)


def test_an_output_folder_inside_does_no_harm(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "runs/mine/views.png", "runs/mine/deep/b.png", "b/c.jpg")
    before = list_images(tmp_path, [tmp_path / "absent"])
    assert len(before.paths) == 4
    listing = list_images(tmp_path, [tmp_path / "b" / ".." / "runs" / "mine", tmp_path / "absent"])
    assert listing[:4] == (["a.jpg", "b/c.jpg"], 0, 0, 1)
    assert listing.remarks() == ["excluded folders left out: 1"]


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", 'it\'s "one".jpg', "caf\udce9\udcff.jpg", "-x .jpg", "图.jpg", "a\\b.jpg"]
)
def test_names_survive(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, f"{name}/x.jpg".replace(".jpg/", "/"))
    paths = list_images(tmp_path).paths
    assert len(paths) == 2
    assert all((tmp_path / path).is_file() for path in paths)


def test_no_file_is_asked_for_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{number % 4}/{number}.jpg" for number in range(40)))
    asked: list[str] = []
    real = os.stat
    monkeypatch.setattr(
        module.os, "stat", lambda path, *a, **k: (asked.append(str(path)), real(path, *a, **k))[1]
    )
    monkeypatch.setattr("builtins.open", None)
    assert len(list_images(tmp_path).paths) == 40
    assert len(asked) == 5, "the folders"


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg")
    for name in ("absent", "file.jpg"):
        with pytest.raises(MissingInputError, match=f"image folder .*{name} does not exist"):
            list_images(tmp_path / name)


@pytest.mark.skipif(os.getuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match=r"image folder .*/a cannot be listed: Permission denied"):
        list_images(tmp_path)
    (tmp_path / "a").chmod(0o700)


def test_our_own_outputs_are_no_images(tmp_path: Path) -> None:
    for name in ("a.png", "b-views.png"):  # a photograph may be called so
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "runs" / "photos" / "figures").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "runs" / "photos" / "figures" / "x.png")
    for name in ("config.yaml", "split.json", "environment.json"):
        (tmp_path / "runs" / "photos" / name).write_text("")
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    (tmp_path / "runs" / "photos-views.png").write_bytes(sheet_png(pixels, pixels, pixels))
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "config.yaml").write_text("")
    Image.new("RGB", (4, 4)).save(tmp_path / "settings" / "c.png")
    found = list_images(tmp_path)
    assert found.paths == ["a.png", "b-views.png", "settings/c.png"]
    assert found.num_ours == 2
    assert "outputs of sdclr (run folders, sheets of views) left out: 2" in found.remarks()


def test_thumbnails_and_trash_of_servers_are_not_entered_and_are_counted(tmp_path: Path) -> None:
    """Forty images with three thumbnails each are forty images."""
    names = [f"{number % 2}/{number}.jpg" for number in range(40)]
    thumbs = [
        f"{n % 2}/@eaDir/{n}.jpg/SYNOPHOTO_THUMB_{size}.jpg"
        for n in range(40)
        for size in ("XL", "M")
    ]
    touch(
        tmp_path,
        *names,
        *thumbs,
        "#recycle/1.jpg",
        "x/Previews.lrdata/0/a.jpg",
        "$Recycle.Bin/b.png",
    )
    listing = list_images(tmp_path)
    assert listing.paths == sorted(names)
    assert listing.remarks() == [
        "folders of thumbnails, previews or trash (first: #recycle) left out: 5"
    ]
    assert list_images(tmp_path / "#recycle").paths == ["1.jpg"], "a folder that is named is meant"


def test_a_link_does_not_bring_a_service_folder_back(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "z/@eaDir/2.jpg")
    (tmp_path / "a").symlink_to("z/@eaDir")
    assert list_images(tmp_path).paths == ["1.jpg"]


@pytest.mark.usefixtures("without_heif")
def test_pictures_that_cannot_be_read_are_named_by_kind(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.HEIC", "c.heif", "x/d.heic", "e.nef", "notes.txt")
    assert list_images(tmp_path).remarks() == [
        "pictures of a kind that cannot be read (HEIC/HEIF) left out: 2 .heic, 1 .heif, 1 .nef; convert them to JPEG "
        'or PNG to use them, or pip install "sdclr[heif]" for HEIC',
        "files that are not images left out: 1",
    ]


def test_unwanted_folders_are_not_even_looked_into(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "9.jpg")
    touch(tmp_path / "root", "1.jpg", "2_mask.png", "a/old/3.jpg", "a/old/4.jpg", "a/5.jpg")
    (tmp_path / "root" / "a" / "old" / "out").symlink_to(tmp_path / "elsewhere")
    globs = Exclusion(["old", "*_mask.png"])
    listing = list_images(tmp_path / "root", unwanted=globs)
    assert listing.paths == ["1.jpg", "a/5.jpg"]
    assert listing.remarks() == ["files and folders that data.exclude matches left out: 2"]
    assert globs.unused() == []
