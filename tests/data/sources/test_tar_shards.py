"""Images in shards are the images that were put there; what is wrong with a shard is said before training."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_folder_stand_in import COUNTS, make_folder
from sdclr.data.collections.contents import read_contents
from sdclr.data.collections.duplicates import duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.tar_shards import expand_braces, read_shards
from sdclr.data.sources.wanted import Wanted
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ChangedDataError, ConfigError, DataError, MissingInputError
from shard_stand_in import shards_of, write_shard

CLASSES = sorted(COUNTS)
SPEC = ViewSpec(16, blur=0.5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("photos")
    return root, make_folder(root)


@pytest.fixture(scope="module")
def shards(photos: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four images, with classes."""
    return shards_of(*photos, tmp_path_factory.mktemp("shards"), 3, classes=CLASSES)


def files_of(path: Path) -> ImageFiles:
    images = read_own_images(path).train
    assert isinstance(images, ImageFiles)
    return images


def test_everything_seen_of_shards_is_that_of_the_files_that_were_put_there(
    photos: tuple[Path, list[str]], shards: Path, tmp_path: Path
) -> None:
    files = ImageFiles(
        photos[0], tuple(photos[1]), np.array([CLASSES.index(p.split("/")[0]) for p in photos[1]])
    )
    images = files_of(shards)
    assert images.labels is not None
    np.testing.assert_array_equal(images.labels, files.labels)
    np.testing.assert_array_equal(images.sizes, files.sizes)
    batches = list(torch.arange(len(files)).split(5))
    store = build_store(images, tmp_path / "store")
    for other in (
        images,
        store,
        images.at(np.arange(12)[::-1].copy()).at(np.arange(12)[::-1].copy()),
    ):
        for ours, theirs in zip(
            other.views(batches, SPEC, seed=1, epoch=2),
            files.views(batches, SPEC, seed=1, epoch=2),
            strict=True,
        ):
            assert torch.equal(ours.a, theirs.a)
            assert torch.equal(ours.b, theirs.b)
        for ours, theirs in zip(other.stills(24), files.stills(24), strict=True):
            assert torch.equal(ours, theirs)


def test_the_order_is_that_of_the_shards_and_of_the_tar(tmp_path: Path) -> None:
    write_shard(tmp_path / "b.tar", [("z.jpg", b"1"), ("a.jpg", b"2")])
    write_shard(tmp_path / "a.tar", [("m.png", b"3")])
    found = read_shards(tmp_path, ["b.tar", "a.tar"])
    assert found.paths == ["b.tar/z.jpg", "b.tar/a.jpg", "a.tar/m.png"]
    assert found.labels is None
    assert found.members.shard.tolist() == [0, 0, 1]
    assert found.members.size.tolist() == [1, 1, 1]
    whole = [(tmp_path / name).read_bytes() for name in found.members.shards]
    starts = zip(found.members.shard, found.members.start, strict=True)
    assert [chr(whole[shard][start]) for shard, start in starts] == ["1", "2", "3"]


def test_images_without_a_class_are_refused_left_out_or_make_all_unlabelled(
    tmp_path: Path,
) -> None:
    members = [("a.jpg", b"1"), ("a.cls", b"3"), ("b.jpg", b"2"), ("c.jpg", b"3"), ("c.cls", b"4")]
    write_shard(tmp_path / "s.tar", members)
    with pytest.raises(DataError, match=r"1 of 3 images have no \.cls .*first: s\.tar/b\.jpg"):
        read_shards(tmp_path, ["s.tar"])
    found = read_shards(tmp_path, ["s.tar"], unlabelled="leave_out")
    assert list(found.paths) == ["s.tar/a.jpg", "s.tar/c.jpg"]
    assert found.labels == ["3", "4"]
    assert found.members.size.tolist() == [1, 1]
    assert "images without a .cls beside them left out: 1" in found.remarks
    with pytest.warns(UserWarning, match=r"1 of 3 images .* taken without labels"):
        found = read_shards(tmp_path, ["s.tar"], unlabelled="keep_all")
    assert (len(found.paths), found.labels) == (3, None)


def test_one_shard_a_range_and_a_folder_of_shards_are_read(shards: Path) -> None:
    assert files_of(shards).paths == files_of(shards / "train-{000..002}.tar").paths
    assert len(files_of(shards / "train-001.tar")) == 4
    assert len(files_of(shards / "train-{001..002}.tar")) == 8


def test_ranges_in_braces_are_expanded_with_their_zeros() -> None:
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{0..1}-{1..2}") == ["0-1", "0-2", "1-1", "1-2"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    for wrong in ("a-{3..2}.tar", "a-{0..100000}.tar", "a-{0..99999}-{0..99999}.tar"):
        with pytest.raises(DataError, match="must ascend"):
            expand_braces(wrong)
    for wrong in ("a-{0..{1..2}}.tar", "a-{{0..1}..2}.tar", "a-{0..1.tar"):
        with pytest.raises(DataError, match="do not nest"):
            expand_braces(wrong)


def test_a_file_whose_name_looks_like_a_range_is_that_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "lit{0..1}.tar", [("a.jpg", b"1")])
    assert files_of(tmp_path / "lit{0..1}.tar").paths == ("lit{0..1}.tar/a.jpg",)
    with pytest.raises(DataError, match="named twice"):
        read_shards(tmp_path, ["lit{0..1}.tar"] * 2)


def test_names_of_any_length_and_any_bytes_survive(tmp_path: Path) -> None:
    names = ["é" * 80 + ".jpg", "d/" * 60 + "x.jpg", "a\nb'\"\udcff.jpg"]
    write_shard(tmp_path / "a.tar", [(name, b"1") for name in names])
    assert read_shards(tmp_path, ["a.tar"]).paths == [f"a.tar/{name}" for name in names]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("x.txt", b"")], "hold no images"),
        (
            [("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"1")],
            r"1 of 2 images have no \.cls .* \(first: a\.tar/b\.jpg\)",
        ),
        (
            [("a.jpg", b"1"), ("a.cls", b"cat")],
            r"a\.cls must hold a class as a whole number, got b'cat'",
        ),
        ([("a.jpg", b"1"), ("a.cls", b"-1")], "whole number"),
        ([("a.jpg", b"1"), ("a.cls", b"1" * 5000)], "whole number"),
        ([("a.jpg", b"1"), ("a.jpg", b"2")], "holds a.jpg twice"),
        ([("a.jpg", b"1"), ("./a.jpg", b"2")], "holds a.jpg twice"),
        ([("a.jpg", b"1"), ("a.cls", b"1"), ("a.CLS", b"2")], "holds a.CLS twice"),
    ],
)
def test_what_is_wrong_in_a_shard_is_named(
    tmp_path: Path, members: list[tuple[str, bytes]], words: str
) -> None:
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=words):
        read_shards(tmp_path, ["a.tar"])


def test_a_shard_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    whole = write_shard(
        tmp_path / "a.tar", [(f"{n}.jpg", bytes([n]) * 700) for n in range(4)]
    ).read_bytes()
    end = 4 * (512 + 1024)  # headers and padded members; what follows is the end mark
    for length in [*range(0, end, 97), 512, 1536, 3072, end - 1, end]:
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match="cannot be read as an uncompressed tar"):
            read_shards(tmp_path, ["a.tar"])
    # a header that is none
    (tmp_path / "a.tar").write_bytes(whole[:1536] + b"x" * 512 + whole[2048:])
    with pytest.raises(DataError, match="no member and no end mark at byte 1,536"):
        read_shards(tmp_path, ["a.tar"])
    (tmp_path / "a.tar").write_bytes(whole[: end + 512])
    assert len(read_shards(tmp_path, ["a.tar"]).paths) == 4


def test_links_in_a_shard_are_the_images_they_lead_to_or_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1234")
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to("a.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            archive.add(tmp_path / name, name)
    found = read_shards(tmp_path, ["s.tar"])
    assert found.paths == ["s.tar/a.jpg", "s.tar/b.jpg"]
    assert found.members.start[0] == found.members.start[1]
    assert found.remarks == ["links in shards that lead nowhere left out: 1"]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_images_stored_with_holes_are_refused(tmp_path: Path, form: str) -> None:
    with (tmp_path / "a.bmp").open("wb") as file:
        file.write(b"BM")
        file.seek(1 << 20)
        file.write(b"end")
    command = [
        "tar",
        "-S",
        f"--format={form}",
        "-C",
        str(tmp_path),
        "-cf",
        str(tmp_path / "a.tar"),
        "a.bmp",
    ]
    if shutil.which("tar") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no GNU tar here")
    with pytest.raises(DataError, match=r"a\.bmp is stored with its holes left out"):
        read_shards(tmp_path, ["a.tar"])


def test_what_follows_the_end_mark_is_never_lost(tmp_path: Path) -> None:
    one, two = (
        write_shard(tmp_path / f"{name}.tar", [(f"{name}.jpg", b"1")]).read_bytes() for name in "ab"
    )
    (tmp_path / "both.tar").write_bytes(one + two)
    with pytest.raises(DataError, match="something follows its end mark"):
        read_shards(tmp_path, ["both.tar"])


def test_a_folder_is_searched_for_shards_as_it_is_for_images(tmp_path: Path) -> None:
    write_shard(tmp_path / "sub" / "b.TAR", [("b.jpg", b"1")])
    write_shard(tmp_path / "a.tar", [("a.jpg", b"1")])
    write_shard(tmp_path / "run" / "c.tar", [("c.jpg", b"1")])
    (tmp_path / "._a.tar").write_bytes(b"mac")
    (tmp_path / "old.tar").mkdir()
    found = read_own_images(tmp_path, Wanted(left_out_folders=(tmp_path / "run",))).train
    assert isinstance(found, ImageFiles)
    assert found.paths == ("a.tar/a.jpg", "sub/b.TAR/b.jpg")


def test_a_shard_behind_a_link_is_read_where_it_is_named_and_refused_where_it_is_found(
    shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train-000.tar").symlink_to(shards / "train-001.tar")
    assert len(read_own_images(tmp_path / "own" / "train-000.tar").train) == 4
    assert len(read_own_images(tmp_path / "own" / "train-{000..000}.tar").train) == 4
    with pytest.raises(
        DataError, match=r"own/train-000\.tar leads .* out of .*/own, to .*data\.links=anywhere"
    ):
        read_own_images(tmp_path / "own")
    assert len(read_own_images(tmp_path / "own", Wanted(links="anywhere")).train) == 4


def test_a_test_set_of_the_training_shard_is_refused_under_whatever_link(
    shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.tar").symlink_to(shards / "train-001.tar")
    with pytest.raises(DataError, match="4 of 4 test images are training images"):
        read_own_images(shards, test_path=tmp_path / "t.tar")


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "a.tar", [("a.jpg", b"1")]).read_bytes()
    (tmp_path / "b.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="unpack it if it is compressed"):
        read_shards(tmp_path, ["b.tar"])


def test_what_is_not_there_or_no_file_is_named(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(
        MissingInputError, match=r"2 of 5 shards do not exist \(first: .*train-003\.tar\)"
    ):
        read_own_images(shards / "train-{000..004}.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        read_own_images(tmp_path / "pipe.tar")
    with pytest.raises(ConfigError, match=r"data\.root"):
        read_own_images(shards / "train-000.tar", Wanted(root=shards))
    with pytest.raises(ConfigError, match="holds shards"):
        read_own_images(shards, Wanted(class_folders=True))


def test_a_shard_that_shrinks_later_is_named(
    tmp_path: Path, photos: tuple[Path, list[str]]
) -> None:
    images = files_of(shards_of(*photos, tmp_path, 1))
    whole = (tmp_path / "train-000.tar").read_bytes()
    (tmp_path / "train-000.tar").write_bytes(whole[: int(images.members.start[5]) + 10])  # type: ignore[union-attr]
    with pytest.raises(ChangedDataError, match=r"train-000\.tar was written or replaced after"):
        _ = images.sizes


def test_a_damaged_image_in_a_shard_is_left_out_by_name(
    tmp_path: Path, photos: tuple[Path, list[str]]
) -> None:
    root, paths = photos
    members = [(f"{row}.jpg", (root / paths[row % len(paths)]).read_bytes()) for row in range(30)]
    members[17] = ("17.jpg", members[17][1][:300])
    write_shard(tmp_path / "a.tar", members)
    good, bad = files_of(tmp_path).verified("skip", lambda done: None)
    assert [one.path for one in bad] == ["a.tar/17.jpg"]
    assert len(good) == 29
    assert "a.tar/17.jpg" not in good.paths
    (views,) = good.views([torch.tensor([16, 17])], SPEC, seed=1, epoch=1)
    assert views.a.shape == (2, 3, 16, 16)
    assert duplicates(good)[0] == ["a.tar/0.jpg", "a.tar/12.jpg", "a.tar/24.jpg"]


def test_webdatasets_own_files_are_read(tmp_path: Path, photos: tuple[Path, list[str]]) -> None:
    """By the library itself, where it is installed."""
    webdataset = pytest.importorskip("webdataset")
    root, paths = photos
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for row, path in enumerate(paths):
            sink.write({"__key__": f"{row:04d}", "jpg": (root / path).read_bytes(), "cls": row % 3})
    images = files_of(tmp_path / "a.tar")
    assert images.labels is not None
    assert images.labels.tolist() == [row % 3 for row in range(12)]
    np.testing.assert_array_equal(images.sizes, ImageFiles(root, tuple(paths), None).sizes)


@pytest.mark.processes
def test_a_header_of_60000_by_60000_costs_no_memory(tmp_path: Path) -> None:
    """In a process of its own, which says by how much its peak grew; at most 200 MB are promised."""
    script = """
import resource, struct, sys, zlib
from sdclr.data.decoding.decode import open_image
from sdclr.errors import DataError
chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
body = zlib.compress(bytes(3_000_000), 9)
with open(sys.argv[1], "wb") as file:
    file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_image(sys.argv[1])
except DataError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "huge.png")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert int(found.split()[0]) < 200
    assert "60000 x 60000" in found


def test_globs_leave_members_and_shards_out_before_classes_are_asked_for(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-0.tar", [("a.jpg", b"1"), ("a.cls", b"1"), ("odd/b.jpg", b"1")])
    write_shard(tmp_path / "x-1.tar", [("c.jpg", b"1"), ("c.cls", b"2")])
    write_shard(tmp_path / "x-2.tar", [("broken", b"1")]).write_bytes(b"no tar")
    found = read_own_images(tmp_path, Wanted(unwanted=Exclusion(["odd", "x-2.tar"])))
    assert found.train.paths == ("x-0.tar/a.jpg", "x-1.tar/c.jpg")
    assert "members that data.exclude matches left out: 1" in found.remarks
    assert "files and folders that data.exclude matches left out: 1" in found.remarks
    assert (
        read_own_images(
            tmp_path / "x-{0..2}.tar", Wanted(unwanted=Exclusion(["odd", "x-2.tar"]))
        ).train.paths
        == found.train.paths
    )


@pytest.mark.parametrize("how", ["another archive", "written on the spot"])
def test_a_shard_that_is_replaced_while_it_is_read_gives_no_image_of_another_name(
    tmp_path: Path, how: str
) -> None:
    colours = {f"{number}.bmp": (number, 0, 0) for number in range(6)}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    file = write_bitmaps(tmp_path / "a.tar", list(colours))
    images = read_own_images(file).train
    assert isinstance(images, ImageFiles)
    assert images.picture(0).pixels(0, 0, 1, 1).tolist() == [[[0, 0, 0]]]
    # each member in another's place
    other = write_bitmaps(tmp_path / "b.tar", list(colours)[::-1])
    assert other.stat().st_size == file.stat().st_size
    if how == "another archive":
        os.replace(other, file)
    else:
        file.write_bytes(other.read_bytes())
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))
    with pytest.raises(ChangedDataError, match=r"a\.tar was written or replaced after its members"):
        images.picture(0)
    # no image is at fault, so none is skipped
    with pytest.raises(ChangedDataError, match=r"a\.tar was written or replaced"):
        images.verified("skip", lambda done: None, 0.9)
    with pytest.raises(ChangedDataError, match=r"a\.tar was written or replaced"):
        read_contents(images)


def write_bitmaps(file: Path, names: list[str]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name in names:
            archive.add(file.parent / name, name)
    return file
