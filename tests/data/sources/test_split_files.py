"""The authors' lists: all thirty CIFAR lists as published, image lists, and every way in which a list can be bad."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sdclr.data.sources.split_files import read_authors_cifar_split, read_image_list, read_positions
from sdclr.data.splits import draw_long_tail
from sdclr.errors import DataError, MissingInputError

DATASETS = ("cifar10", "cifar100")
SIZES = {
    "cifar10": (11_165, 11_160, 450, 45_000, 5_000),
    "cifar100": (9_754, 9_700, 400, 40_000, 5_000),
}
SHARED = {"cifar10": 5_699, "cifar100": 5_204}
CIFAR10_HEAD_TO_TAIL = ["6841703259", "3974012685", "0428567193", "4706198325", "2481039765"]


def cifar_labels(folder: Path, dataset: str) -> np.ndarray:
    with np.load(folder / "cifar10" / "cifar_labels.npz") as archive:
        return archive[dataset][:50_000].astype(np.int64)


# ---- the authors' lists as they are


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_authors_lists_have_the_structure_of_ours(
    sdclr_data: Path, dataset: str, number: int
) -> None:
    labels = cifar_labels(sdclr_data, dataset)
    num_classes = labels.max() + 1
    theirs = read_authors_cifar_split(sdclr_data / "splits", dataset, number)
    ours = draw_long_tail(
        labels, imbalance_ratio=100, validation_per_class=5_000 // num_classes, seed=number
    )
    assert theirs.source == "authors' lists"
    names = ("long_tail", "balanced", "few_shot", "train", "validation")
    assert tuple(len(theirs.subset(name)) for name in names) == SIZES[dataset]
    for name in ("long_tail", "balanced", "few_shot"):
        assert len(ours.subset(name)) == len(theirs.subset(name))
        counts = [sorted(split.counts(name, labels, num_classes)) for split in (ours, theirs)]
        assert counts[0] == counts[1], name
        assert (np.diff(labels[theirs.subset(name)]) >= 0).all(), f"{name} runs by class id"
        assert not np.intersect1d(theirs.subset(name), theirs.validation).size
    assert len(np.intersect1d(theirs.long_tail, theirs.balanced)) == SHARED[dataset]
    assert len(np.intersect1d(ours.long_tail, ours.balanced)) == SHARED[dataset]
    for c in range(num_classes):
        lists = (theirs.long_tail, theirs.balanced, theirs.few_shot)
        lists = sorted((positions[labels[positions] == c].tolist() for positions in lists), key=len)
        assert lists[1][: len(lists[0])] == lists[0]
        assert lists[2][: len(lists[1])] == lists[1]


@pytest.mark.parametrize("number", range(1, 6))
def test_the_authors_cifar10_splits_have_the_published_class_orders(
    sdclr_data: Path, number: int
) -> None:
    labels = cifar_labels(sdclr_data, "cifar10")
    counts = read_authors_cifar_split(sdclr_data / "splits", "cifar10", number).counts(
        "long_tail", labels, 10
    )
    head_to_tail = "".join(map(str, np.argsort(counts)[::-1]))
    assert head_to_tail == CIFAR10_HEAD_TO_TAIL[number - 1]


def test_the_authors_cifar100_long_tail_is_drawn_from_more_than_the_training_list(
    sdclr_data: Path,
) -> None:
    for number in range(1, 6):
        split = read_authors_cifar_split(sdclr_data / "splits", "cifar100", number)
        assert 0.88 <= np.isin(split.long_tail, split.train).mean() <= 0.90
    split = read_authors_cifar_split(sdclr_data / "splits", "cifar10", 1)
    assert len(np.union1d(split.train, split.validation)) == 50_000


def test_every_published_list_at_hand_reads(sdclr_data: Path) -> None:
    files = sorted(path for path in (sdclr_data / "splits").rglob("*") if path.is_file())
    assert len(files) == 42
    for path in files:
        read = (
            read_positions(path, 50_000) if path.suffix == ".npy" else read_image_list(path).labels
        )
        assert len(read) >= 400, path


def test_the_authors_splits_differ_from_each_other(sdclr_data: Path) -> None:
    splits = [
        read_authors_cifar_split(sdclr_data / "splits", d, n) for d in DATASETS for n in range(1, 6)
    ]
    assert len({split.fingerprint for split in splits}) == 10


def test_a_split_that_the_authors_did_not_publish_is_named(sdclr_data: Path) -> None:
    with pytest.raises(MissingInputError, match=r"split6_D_i\.npy does not exist"):
        read_authors_cifar_split(sdclr_data / "splits", "cifar10", 6)


def test_the_imagenet_100_list_reads_whole(sdclr_data: Path) -> None:
    images = read_image_list(sdclr_data / "splits" / "imagenet-100" / "imageNet_100_LT_train.txt")
    counts = np.bincount(images.labels)
    assert len(images.paths) == len(set(images.paths)) == len(images.labels) == 12_205
    assert (len(counts), counts.max(), counts.min()) == (100, 1280, 6)
    assert images.paths[0] == "train/n02869837/n02869837_7193.JPEG"
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize(("part", "size"), [("train", 495), ("test", 68)])
def test_the_clothing_lists_name_files_that_exist(sdclr_data: Path, part: str, size: int) -> None:
    images = read_image_list(sdclr_data / "clothing_lt" / f"{part}.txt")
    assert len(images.paths) == size
    assert len(np.bincount(images.labels)) == 17
    assert all((sdclr_data / "clothing_lt" / path).is_file() for path in images.paths)
    if part == "train":
        counts = np.bincount(images.labels)
        assert (counts.max(), counts.min()) == (100, 2)


# ---- the authors' layout in miniature


def write_authors_folder(root: Path, **lists: list[int]) -> Path:
    (root / "cifar10").mkdir()
    (root / "cifar10_imbSub_with_subsets").mkdir()
    defaults = {
        "D_i": [0, 1, 2, 5],
        "D_b": [0, 1, 5, 6],
        "S_b": [0, 5],
        "train": [0, 1, 2, 5, 6],
        "val": [8, 9],
    }
    for name, positions in (defaults | lists).items():
        place = "cifar10" if name in ("train", "val") else "cifar10_imbSub_with_subsets"
        file = f"{name}IdxList.npy" if name in ("train", "val") else f"split2_{name}.npy"
        np.save(root / place / file, np.array(positions))
    return root


def test_every_list_lands_in_its_own_field(tmp_path: Path) -> None:
    split = read_authors_cifar_split(write_authors_folder(tmp_path), "cifar10", 2, num_images=10)
    assert split.long_tail.tolist() == [0, 1, 2, 5]
    assert split.balanced.tolist() == [0, 1, 5, 6]
    assert split.few_shot.tolist() == [0, 5]
    assert split.train.tolist() == [0, 1, 2, 5, 6]
    assert split.validation.tolist() == [8, 9]
    assert (split.number, split.seed, split.profile) == (2, None, None)


@pytest.mark.parametrize("tag", ["D_i", "D_b", "S_b", "train"])
def test_lists_that_hold_validation_images_are_refused(tmp_path: Path, tag: str) -> None:
    folder = write_authors_folder(tmp_path, **{tag: [0, 9]})
    with pytest.raises(DataError, match=r"1 validation images \(first: 9\)"):
        read_authors_cifar_split(folder, "cifar10", 2, num_images=10)


# ---- bad lists of positions


class Booby:
    """Unpickling this would create a file: nothing pickled may be loaded."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple:
        return (open, (str(self.trap), "w"))


def test_positions_of_any_integer_type_become_int64(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int32, ">i8", np.uint64):
        np.save(tmp_path / "list.npy", np.array([3, 0, 2], dtype=dtype))
        positions = read_positions(tmp_path / "list.npy", 4)
        assert positions.tolist() == [3, 0, 2], "order is kept"
        assert positions.dtype == np.int64


def test_a_pickled_list_is_refused_and_never_run(tmp_path: Path) -> None:
    path, trap = tmp_path / "list.npy", tmp_path / "sprung"
    np.save(path, np.array([Booby(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"list\.npy is not a plain \.npy array"):
        read_positions(path, 10)
    path.write_bytes(pickle.dumps(Booby(trap)))
    with pytest.raises(DataError, match=r"list\.npy is not a plain \.npy array"):
        read_positions(path, 10)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0.0, 1.0]), "one-dimensional integer array"),
        (np.array([True, False]), "one-dimensional integer array"),
        (np.array([[0, 1], [2, 3]]), "one-dimensional integer array"),
        (np.array(3), "one-dimensional integer array"),
        (np.array([], dtype=np.int64), "is empty"),
        (np.array([0, 10]), "entry 1 is 10, outside 0 .. 9"),
        (np.array([0, 3, -1]), "entry 2 is -1, outside 0 .. 9"),
        (np.array([2**63 + 5], dtype=np.uint64), "outside 0 .. 9"),
        (np.array([4, 5, 4]), "names some image twice"),
    ],
)
def test_a_list_that_is_not_distinct_positions_is_refused(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    path = tmp_path / "bad list.npy"
    np.save(path, array)
    with pytest.raises(DataError, match=message) as caught:
        read_positions(path, 10)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 40, 100, 135])
def test_a_truncated_list_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.npy"
    np.save(path, np.arange(50))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cut\.npy is not a plain \.npy array"):
        read_positions(path, 50)


def test_other_things_in_the_place_of_a_list_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "archive", positions=np.arange(3))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    with pytest.raises(DataError, match=r"archive\.npy"):
        read_positions(tmp_path / "archive.npy", 10)
    (tmp_path / "page.npy").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"page\.npy"):
        read_positions(tmp_path / "page.npy", 10)
    (tmp_path / "folder.npy").mkdir()
    for name in ("folder.npy", "absent.npy"):
        with pytest.raises(MissingInputError, match=f"{name} does not exist.*splits_dir"):
            read_positions(tmp_path / name, 10)


# ---- image lists


def write_list(folder: Path, content: bytes) -> Path:
    path = folder / "images.txt"
    path.write_bytes(content)
    return path


def test_names_with_spaces_quotes_and_dots_survive(tmp_path: Path) -> None:
    names = [
        "a b/c  d.jpg",
        'it\'s "one".png',
        "a..b/...jpg",
        "7 8 9.jpg",
        "$(rm -rf x);.jpg",
        "ünï/图.jpg",
        "-x.jpg",
    ]
    content = "\n".join(f"{name} {label}" for label, name in enumerate(names)) + "\n"
    images = read_image_list(write_list(tmp_path, content.encode()))
    assert images.paths == names
    assert images.labels.tolist() == list(range(len(names)))


def test_names_that_are_not_utf8_still_name_their_file(tmp_path: Path) -> None:
    raw = b"caf\xe9/\xff\xfe.jpg"
    images = read_image_list(write_list(tmp_path, raw + b" 4\n"))
    assert images.paths[0].encode("utf-8", "surrogateescape") == raw
    assert images.labels.tolist() == [4]


def test_windows_line_ends_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    images = read_image_list(write_list(tmp_path, b"\r\na.jpg 1\r\n\r\nb.jpg 0\r\n   \n"))
    assert images.paths == ["a.jpg", "b.jpg"]
    assert images.labels.tolist() == [1, 0]
    assert [images.where(row) for row in (0, 1)] == [
        f"{images.file}, line 2",
        f"{images.file}, line 4",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"/etc/passwd 1", "leaves the image folder"),
        (b"~/x.jpg 1", "leaves the image folder"),
        (b"../x.jpg 1", "leaves the image folder"),
        (b"a/../../x.jpg 1", "leaves the image folder"),
        (b"a/.. 1", "leaves the image folder"),
        (b"a\0b.jpg 1", r"a\\x00b.jpg"),
        (b"a.jpg", "expected 'relative/path label'"),
        (b"3", "expected 'relative/path label'"),
        (b"a.jpg -1", "expected 'relative/path label'"),
        (b"a.jpg +1", "expected 'relative/path label'"),
        (b"a.jpg 1.0", "expected 'relative/path label'"),
        (b"a.jpg cat", "expected 'relative/path label'"),
        (b"a.jpg 99999999999999999999", "expected 'relative/path label'"),
        (b"a.jpg 1_0", "expected 'relative/path label'"),
        (b"a.jpg\t1", "a tab; one space goes between path and label"),
        (b"a.jpg \t1", "a tab; one space goes between path and label"),
        (b"a\\b.jpg 1", "a backslash; / goes between folders"),
        (b"fine.jpg 0", "'fine.jpg' is listed already, in line 1"),
        (b"fine.jpg 1", "'fine.jpg' is listed already, in line 1"),
        ("a.jpg ²".encode(), "expected 'relative/path label'"),
        ("a.jpg ٣".encode(), "expected 'relative/path label'"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = write_list(tmp_path, b"fine.jpg 0\n\n" + line + b"\nalso_fine.jpg 1\n")
    with pytest.raises(DataError, match=message) as caught:
        read_image_list(path)
    assert f"{path}, line 3" in str(caught.value)


def test_an_empty_or_absent_image_list_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n \n"):
        with pytest.raises(DataError, match=r"images.txt is empty"):
            read_image_list(write_list(tmp_path, content))
    with pytest.raises(MissingInputError, match=r"nowhere.txt does not exist"):
        read_image_list(tmp_path / "nowhere.txt")
