"""A store gives what its files give, to the bit; a killed build goes on; a stale or damaged store is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_folder_stand_in import make_folder
from sdclr.data import epoch_batches
from sdclr.data.collections import image_store, store_files
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store, open_store
from sdclr.data.collections.images import Images
from sdclr.data.decoding.decode import open_image
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ChangedDataError, DataError, MissingInputError, StorageError

SPEC = ViewSpec(size=24, blur=0.5)
NUM = 15


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """Images of 15 different sizes, among them one pixel and a strip, with labels."""
    paths = make_folder(tmp_path / "photos", {"cat": 7, "dog": 6})
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "photos" / "pixel.png")
    Image.new("RGB", (400, 2), (9, 8, 7)).save(tmp_path / "photos" / "strip.png")
    return ImageFiles(tmp_path / "photos", (*paths, "pixel.png", "strip.png"), np.arange(NUM) % 3)


@pytest.fixture(autouse=True)
def short_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_files, "IMAGES_PER_ENTRY", 4)


class Killed(Exception):
    """Stands in for the end of the process."""


def killed_build(files: ImageFiles, folder: Path, after: int) -> Path:
    """A build that ended once ``after`` images were written; returns the unfinished folder."""
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        if done >= after:
            raise Killed

    with pytest.raises(Killed):
        build_store(files, folder, advance)
    return folder.with_name(f"{folder.name}.partial")


def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from now on."""
    opened: list[str] = []
    real = ImageFiles.picture
    monkeypatch.setattr(
        ImageFiles, "picture", lambda self, i: (opened.append(self.paths[i]), real(self, i))[1]
    )
    return opened


def everything(images: Images) -> list[torch.Tensor]:
    batches = list(epoch_batches(len(images), 6, seed=3, epoch=2))
    views = [part for view in images.views(batches, SPEC, seed=3, epoch=2) for part in view[:3]]
    return [*views, *images.stills(24), *images.probe_crops(batches, 24, seed=3, epoch=2)]


def assert_equal(one: Images, two: Images) -> None:
    for a, b in zip(everything(one), everything(two), strict=True):
        assert torch.equal(a, b)
    assert b"".join(one.content()) == b"".join(two.content())
    assert one.labels.tolist() == two.labels.tolist()


# ---- what is stored


def test_pixels_of_every_shape_come_back_exactly(files: ImageFiles, tmp_path: Path) -> None:
    store = build_store(files, tmp_path / "store")
    assert len(store) == NUM
    for position, path in enumerate(files.paths):
        expected = np.asarray(open_image(files.root / path))
        np.testing.assert_array_equal(store.picture(position).whole, expected)
        assert store.sizes[position].tolist() == list(expected.shape[:2])
        whole = store.picture(position).pixels(0, 0, *store.picture(position).size)
        np.testing.assert_array_equal(np.asarray(whole), expected)
    assert not store.pixels.content.flags.writeable
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "manifest.json",
        "pixels.bin",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "store"]


def test_views_stills_and_crops_are_those_of_the_files_to_the_bit(
    files: ImageFiles, tmp_path: Path
) -> None:
    store = build_store(files, tmp_path / "store")
    assert_equal(store, files)
    chosen = np.array([14, 3, 8, 0, 13, 5, 6])
    assert_equal(store.at(chosen), files.at(chosen))
    assert_equal(store.to(torch.device("cpu")), files)


def test_rotation_by_exif_is_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.arange(90, dtype=np.uint8).reshape(5, 6, 3)).save(
        tmp_path / "photos" / "a.png", exif=exif
    )
    plain = ImageFiles(tmp_path / "photos", ("a.png",), None)
    turned = ImageFiles(tmp_path / "photos", ("a.png",), None, exif_rotation=True)
    assert build_store(turned, tmp_path / "turned").sizes.tolist() == [[6, 5]]
    assert build_store(plain, tmp_path / "plain").sizes.tolist() == [[5, 6]]
    with pytest.raises(DataError, match=r"exif_rotation=True; now 1, exif_rotation=False"):
        open_store(tmp_path / "turned", plain)


def test_a_finished_store_is_opened_without_decoding(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    build_store(files, tmp_path / "store", told.append)
    assert sum(told) == NUM
    opened = decodes(monkeypatch)
    told.clear()
    store = build_store(files, tmp_path / "store", told.append)
    assert (opened, sum(told)) == ([], NUM)
    everything(store)
    assert opened == []


def test_a_store_moves_with_its_images(files: ImageFiles, tmp_path: Path) -> None:
    build_store(files, tmp_path / "store")
    before = everything(files)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    files.root.rename(tmp_path / "moved")
    store = open_store(
        tmp_path / "elsewhere", ImageFiles(tmp_path / "moved", files.paths, files.labels)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, everything(store), strict=True))


# ---- builds that are killed


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_a_killed_build_leaves_no_store_and_goes_on(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    unfinished = killed_build(files, tmp_path / "store", after)
    assert not (tmp_path / "store").exists()
    assert not (unfinished / "manifest.json").exists()
    with pytest.raises(MissingInputError, match="holds no finished store"):
        open_store(tmp_path / "store", files)
    opened = decodes(monkeypatch)
    store = build_store(files, tmp_path / "store")
    kept = -(-after // 4) * 4  # whole entries of the journal
    assert sorted(opened) == sorted(files.paths[kept:])
    assert not unfinished.exists()
    assert_equal(store, files)
    assert store.verified("raise", lambda done: None)[1] == []


def test_what_was_spoilt_since_is_decoded_again(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = killed_build(files, tmp_path / "store", 12)
    starts, _ = store_files.layout(files.sizes)
    with (unfinished / "pixels.bin").open("r+b") as file:
        file.seek(starts[6] + 5)
        byte = file.read(1)[0]
        file.seek(starts[6] + 5)
        file.write(bytes([byte ^ 1]))
    opened = decodes(monkeypatch)
    assert_equal(build_store(files, tmp_path / "store"), files)
    assert sorted(set(opened)) == sorted(set(files.paths)), "views were compared"
    assert sorted(opened[: NUM - 6]) == sorted(files.paths[6:])


@pytest.mark.parametrize(
    "damage", ["half a line", "no journal", "no pixels", "empty pixels", "garbage", "too long"]
)
def test_a_journal_that_does_not_fit_is_not_trusted(
    files: ImageFiles, tmp_path: Path, damage: str
) -> None:
    unfinished = killed_build(files, tmp_path / "store", 8)
    journal, pixels = unfinished / "journal.jsonl", unfinished / "pixels.bin"
    if damage == "half a line":
        journal.write_text(journal.read_text()[:-9])
    elif damage == "garbage":
        journal.write_bytes(b"\xff\xfe\n[1")
    elif damage == "too long":
        journal.write_text(journal.read_text() + f"{json.dumps([7] * 30)}\n")
    elif damage == "empty pixels":
        pixels.write_bytes(b"")
    else:
        (journal if damage == "no journal" else pixels).unlink()
    assert_equal(build_store(files, tmp_path / "store"), files)


def test_an_unfinished_build_of_other_images_is_begun_anew(
    files: ImageFiles, tmp_path: Path
) -> None:
    killed_build(files, tmp_path / "store", 12)
    fewer = files.at(np.arange(2, NUM))
    assert_equal(build_store(fewer, tmp_path / "store"), fewer)


def test_an_image_that_changed_since_a_build_was_killed_is_stored_as_it_is_now(
    files: ImageFiles, tmp_path: Path
) -> None:
    killed_build(files, tmp_path / "store", 12)
    path = files.root / files.paths[2]
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (200, 10, 10)).save(path)  # as many bytes in the store as before
    assert_equal(build_store(files, tmp_path / "store"), files)


@pytest.mark.journeys
def test_two_builds_at_once_do_not_mix(files: ImageFiles, tmp_path: Path) -> None:
    def advance(number: int) -> None:
        with pytest.raises(
            DataError, match=r"another process is building the store .*store\.partial; wait for it"
        ):
            build_store(files, tmp_path / "store")

    assert_equal(build_store(files, tmp_path / "store", advance), files)


def test_an_image_that_cannot_be_decoded_ends_the_build_by_name(
    files: ImageFiles, tmp_path: Path
) -> None:
    content = (files.root / files.paths[5]).read_bytes()
    (files.root / files.paths[5]).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{files.paths[5]} is damaged"):
        build_store(files, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_disk_that_is_too_small_is_refused_before_decoding(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(store_files.shutil, "disk_usage", lambda folder: usage)
    opened = decodes(monkeypatch)
    with pytest.raises(
        StorageError,
        match=r"the decoded images take .* GB more in .*store\.partial, and 0\.0 GB are",
    ):
        build_store(files, tmp_path / "store")
    assert opened == []


def test_a_full_disk_is_a_storage_error(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_files.os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left on device"):
        build_store(files, tmp_path / "store")


# ---- stores that may not be used


@pytest.mark.parametrize("change", ["size", "time", "name", "number", "order"])
def test_a_store_of_other_sources_is_refused_with_the_cure(
    files: ImageFiles, tmp_path: Path, change: str
) -> None:
    build_store(files, tmp_path / "store")
    path = files.root / files.paths[3]
    changed = files
    if change == "size":
        state = path.stat()
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    elif change == "name":
        path.rename(files.root / "renamed.jpg")
        changed = ImageFiles(
            files.root, (*files.paths[:3], "renamed.jpg", *files.paths[4:]), files.labels
        )
    else:
        changed = files.at(
            np.arange(NUM - 1) if change == "number" else np.arange(NUM)[::-1].copy()
        )
    for use in (open_store, lambda folder, images: build_store(images, folder)):
        with pytest.raises(
            DataError, match=r"was made from other images .*remove the folder .*store"
        ):
            use(tmp_path / "store", changed)


def test_labels_are_not_in_a_store(files: ImageFiles, tmp_path: Path) -> None:
    build_store(files, tmp_path / "store")
    assert open_store(tmp_path / "store", ImageFiles(files.root, files.paths, None)).labels is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": 2}, "its format is 'decoded images of sdclr', version 2"),
        ({"format": "x"}, "its format is 'x'"),
        ({"shapes": []}, "its manifest.json is not whole"),
        ({"shapes": [[1, 1]] * NUM}, "pixels.bin has .* bytes instead of 45"),
        ({"crc32": [0]}, "its manifest.json is not whole"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    files: ImageFiles, tmp_path: Path, damage: dict, message: str
) -> None:
    build_store(files, tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | damage))
    with pytest.raises(
        DataError, match=rf"store cannot be used: {message}.*To decode again, remove the folder"
    ):
        open_store(tmp_path / "store", files)


@pytest.mark.parametrize("content", ["", "{", "[]", "\0"])
def test_a_manifest_that_is_none_is_refused(
    files: ImageFiles, tmp_path: Path, content: str
) -> None:
    build_store(files, tmp_path / "store")
    (tmp_path / "store" / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"its manifest\.json"):
        open_store(tmp_path / "store", files)


def test_pixels_that_were_cut_off_are_refused_when_the_store_is_opened(
    files: ImageFiles, tmp_path: Path
) -> None:
    build_store(files, tmp_path / "store")
    file = tmp_path / "store" / "pixels.bin"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(DataError, match=r"pixels\.bin has .* bytes instead of"):
        open_store(tmp_path / "store", files)


def test_pixels_that_changed_are_found_by_verifying_and_never_left_out(
    files: ImageFiles, tmp_path: Path
) -> None:
    store = build_store(files, tmp_path / "store")
    told: list[int] = []
    assert store.verified("raise", told.append) == (store, [])
    assert sum(told) == NUM
    with (tmp_path / "store" / "pixels.bin").open("r+b") as file:
        file.seek(int(store.starts[9]))
        file.write(b"other")
    store = open_store(tmp_path / "store", files)
    with pytest.raises(
        DataError, match=rf"the pixels of 1 images have changed \(first: {files.paths[9]}\)"
    ):
        store.verified("skip", told.append)
    assert store.at(np.arange(9)).verified("skip", told.append)[1] == []


def cut_short(file: Path) -> None:
    os.truncate(file, 10)


def written_in_place(file: Path) -> None:
    content = file.read_bytes()
    os.utime(file, ns=(0, 0))  # a clock that has moved on, whatever its step
    file.write_bytes(content[::-1])


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize("change", [cut_short, written_in_place])
def test_a_store_that_is_written_while_it_is_read_is_refused_before_its_bytes_are_used(
    change: Callable[[Path], None], moved: bool, files: ImageFiles, tmp_path: Path
) -> None:
    store = build_store(files, tmp_path / "store")
    folder = tmp_path / "store"
    if moved:
        folder = folder.rename(tmp_path / "elsewhere")
    change(folder / "pixels.bin")
    for read in (
        lambda: list(store.views(epoch_batches(NUM, 8, seed=0, epoch=0), SPEC, seed=0, epoch=0)),
        lambda: store.verified("skip", lambda done: None),
        lambda: store.picture(NUM - 1),
    ):
        with pytest.raises(ChangedDataError, match=r"pixels\.bin was written while it was read"):
            read()


def test_a_store_that_is_removed_or_replaced_while_it_is_read_stays_readable(
    files: ImageFiles, tmp_path: Path
) -> None:
    store = build_store(files, tmp_path / "store")
    before = everything(store)
    again = pickle.loads(pickle.dumps(store))
    assert all(map(torch.equal, before, everything(again)))
    assert again.pixels.descriptor != store.pixels.descriptor
    packed = pickle.dumps(store)
    (tmp_path / "other").write_bytes(b"short")
    (tmp_path / "other").replace(tmp_path / "store" / "pixels.bin")
    assert all(map(torch.equal, before, everything(store)))
    with pytest.raises(ChangedDataError, match="was written while it was read"):
        pickle.loads(packed)
    shutil.rmtree(tmp_path / "store")
    assert all(map(torch.equal, before, everything(store)))


def test_a_folder_that_is_no_store_is_left_alone(files: ImageFiles, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="store exists and is not a store"):
        build_store(files, tmp_path / "store")
    assert (tmp_path / "store" / "letter.txt").read_text() == "dear"
    assert image_store.MANIFEST == "manifest.json"
