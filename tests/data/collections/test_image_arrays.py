"""Readers: what scikit-learn's digits become, every accepted .npz layout, and refusals that name file and cure."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from pretend_cuda import pretended_cuda
from sdclr.data import ViewsConfig
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.sources.arrays import read_cifar, read_digits, read_npz
from sdclr.errors import DataError, MissingInputError, RunFolderError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (6, 5, 7)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def save(folder: Path, **arrays: object) -> Path:
    path = folder / "my images.npz"
    np.savez(path, **arrays)
    return path


# ---- digits


def test_digits_are_split_into_1437_and_360_images() -> None:
    digits = read_digits()
    assert (len(digits.train), len(digits.test)) == (1_437, 360)
    assert np.bincount(digits.test.labels).tolist() == [36] * 10
    assert digits.class_names == list("0123456789")
    assert digits.train.images.shape == (1_437, 3, 8, 8)
    assert digits.train.images.dtype == torch.uint8


def test_digits_are_scikit_learns_pixels_stretched_to_255() -> None:
    digits, bunch = read_digits(), load_digits()
    ours = sorted(
        (int(label), image[0].numpy().tobytes())
        for part in (digits.train, digits.test)
        for image, label in zip(part.images, part.labels, strict=True)
    )
    # 0 .. 16 -> 0 .. 255
    levels = np.array([round(level * 255 / 16) for level in range(17)], dtype=np.uint8)
    theirs = sorted(
        (int(label), levels[image.astype(int)].tobytes())
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    assert ours == theirs, (
        "train and test together are the 1,797 digits: nothing lost, nothing twice"
    )
    assert len(set(theirs)) == 1_797


def test_no_digit_is_in_both_parts_and_the_parts_never_change() -> None:
    first, again = read_digits(), read_digits()
    parts = [
        {image.numpy().tobytes() for image in part.images} for part in (first.train, first.test)
    ]
    assert not parts[0] & parts[1]
    assert torch.equal(first.test.images, again.test.images)
    assert torch.equal(first.train.images[:, 0], first.train.images[:, 2]), (
        "grey: three equal channels"
    )


# ---- .npz


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (GREY, np.stack([GREY] * 3, axis=1)),
        (GREY[..., None], np.stack([GREY] * 3, axis=1)),
        (np.asfortranarray(COLOUR), COLOUR.transpose(0, 3, 1, 2)),
    ],
)
def test_every_layout_becomes_three_channels_of_uint8(
    tmp_path: Path, array: np.ndarray, expected: np.ndarray
) -> None:
    data = read_npz(save(tmp_path, train_images=array, train_labels=LABELS))
    assert data.train.images.dtype == torch.uint8
    np.testing.assert_array_equal(data.train.images.numpy(), expected)
    assert data.train.images.is_contiguous()
    assert data.test is None


def test_all_parts_of_an_archive_are_read(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        train_images=COLOUR,
        train_labels=LABELS.astype(np.uint8),
        test_images=COLOUR[:2],
        test_labels=np.array([3, 0]),
        class_names=np.array(["ant", "bee", "cat", "dog"]),
    )
    data = read_npz(path)
    assert data.train.labels is not None
    assert data.train.labels.dtype == np.int64
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.test is not None
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [3, 0]
    assert data.class_names == ["ant", "bee", "cat", "dog"]


def test_images_and_labels_are_names_for_the_training_part(tmp_path: Path) -> None:
    data = read_npz(save(tmp_path, images=GREY, labels=LABELS))
    assert data.train.labels is not None
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.class_names == ["0", "1", "2"]


def test_labels_are_optional(tmp_path: Path) -> None:
    data = read_npz(save(tmp_path, images=GREY))
    assert data.train.labels is None
    assert data.class_names == []


def test_arrays_are_verified_as_they_are() -> None:
    images = read_digits().train
    assert images.verified("skip", lambda done: None) == (images, [])


def test_at_selects_images_with_their_labels(tmp_path: Path) -> None:
    data = read_npz(save(tmp_path, images=COLOUR, labels=LABELS))
    chosen = data.train.at(np.array([4, 0, 4]))
    np.testing.assert_array_equal(chosen.images.numpy(), COLOUR.transpose(0, 3, 1, 2)[[4, 0, 4]])
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [1, 0, 1]
    assert len(chosen) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": COLOUR.astype(np.float32) / 255}, "must be uint8.*got float32"),
        ({"images": COLOUR.astype(np.int64)}, "must be uint8.*got int64"),
        ({"images": COLOUR.transpose(0, 3, 1, 2)}, r"must be uint8.*got uint8 \(6, 3, 5, 7\)"),
        ({"images": COLOUR[..., :2]}, "must be uint8"),
        ({"images": COLOUR[0, 0]}, "must be uint8"),
        ({"images": COLOUR[:0]}, "there are no images"),
        (
            {"train_images": COLOUR, "train_labels": LABELS[:-1]},
            "train_labels must hold one class id.*6 images",
        ),
        ({"images": COLOUR, "labels": LABELS * 1.0}, "labels must hold one class id.*got float64"),
        ({"images": COLOUR, "labels": LABELS - 1}, "labels must hold one class id"),
        ({"images": COLOUR, "labels": LABELS[:, None]}, "labels must hold one class id"),
        ({"images": COLOUR, "labels": np.array(list("abcabc"))}, "labels must hold one class id"),
        (
            {"images": COLOUR, "labels": LABELS, "class_names": np.array(["a", "b"])},
            "2 entries for 3 classes",
        ),
        (
            {"images": COLOUR, "test_images": COLOUR[:2], "test_labels": LABELS},
            "test_labels must hold one class id",
        ),
        ({"pixels": COLOUR, "y": LABELS}, "needs an array train_images; it has pixels, y"),
        ({}, "needs an array train_images; it has none"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, arrays: dict, message: str
) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(path)
    assert str(path) in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, images=COLOUR, labels=np.array([0, "1", None, 2, 1, 0], dtype=object))
    with pytest.raises(DataError, match=r"my images.npz is not a plain .npz archive"):
        read_npz(path)


def test_files_that_are_not_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "not.npz"
    for content in (b"", b"<html>404</html>", b"PK\x03\x04 but cut"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not.npz is not a plain .npz archive"):
            read_npz(path)


def test_a_single_npy_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", GREY)
    with pytest.raises(DataError, match=r"images.npy is not a plain .npz archive"):
        read_npz(tmp_path / "images.npy")


def test_a_damaged_archive_is_refused_or_read_whole(tmp_path: Path) -> None:
    """Whatever byte is hit: an error of ours that names the file, never a foreign one and never other pixels."""
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, images=GREY)
    good = path.read_bytes()
    outcomes = []
    for place in range(len(good)):
        for damage in (0xFF, 0x01, 0x20):
            path.write_bytes(good[:place] + bytes([good[place] ^ damage]) + good[place + 1 :])
            try:
                outcomes.append(np.array_equal(read_npz(path).train.images[:, 0].numpy(), GREY))
            except DataError as error:
                outcomes.append("damaged.npz" in str(error))
            except Exception as error:
                outcomes.append(f"byte {place}: {error!r}")
    assert set(outcomes) == {True}


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    for name in ("absent.npz", "folder.npz"):
        with pytest.raises(MissingInputError, match=f"{name} does not exist"):
            read_npz(tmp_path / name)


# ---- CIFAR


def test_an_archive_of_another_size_is_not_cifar(tmp_path: Path) -> None:
    path = save(tmp_path, train_images=COLOUR, train_labels=LABELS)
    with pytest.raises(
        DataError, match=r"is not cifar10: it has 6 training and 0 test images of 3 classes.*arrays"
    ):
        read_cifar("cifar10", path)


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_an_absent_cifar_folder_says_how_to_get_it(tmp_path: Path, name: str, folder: str) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingInputError, match=f"no {name} at .*{folder}.*--download"):
            read_cifar(name, path)
    with pytest.raises(MissingInputError, match=r"absent\.npz does not exist"):
        read_cifar(name, tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_cifar_files_that_fail_their_checksums_are_refused(
    tmp_path: Path, name: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=f"{name} at .*fails torchvision's checksums.*--download"):
        read_cifar(name, tmp_path)


def test_torchvisions_layout_and_an_npz_give_the_same_cifar10(
    cifar10_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # these files lack the list of file names
    sums = json.loads((cifar10_folder / "cifar_md5.json").read_text())
    base = datasets.CIFAR10

    class Unpacked(base):  # type: ignore[misc,valid-type]
        train_list: ClassVar = [
            [name, sums[f"{base.base_folder}/{name}"]] for name, _ in base.train_list
        ]
        test_list: ClassVar = [
            [name, sums[f"{base.base_folder}/{name}"]] for name, _ in base.test_list
        ]
        meta: ClassVar = {**base.meta, "md5": sums[f"{base.base_folder}/{base.meta['filename']}"]}

    with pytest.raises(DataError, match="fails torchvision's checksums"):
        read_cifar("cifar10", cifar10_folder)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Unpacked)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="dtype.*align", category=np.exceptions.VisibleDeprecationWarning
        )
        folder = read_cifar("cifar10", cifar10_folder)
    archive = read_cifar("cifar10", cifar10_folder / "cifar10.npz")
    assert folder.test is not None
    assert archive.test is not None
    for one, other in ((folder.train, archive.train), (folder.test, archive.test)):
        assert torch.equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)  # type: ignore[arg-type]
    assert folder.class_names[:2] == ["airplane", "automobile"]


def test_two_downloads_at_once_do_not_write_into_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Downloading:
        base_folder = "cifar-10-batches-py"

        def __init__(self, path: Path, *, train: bool, download: bool) -> None:
            with pytest.raises(
                RunFolderError, match=r"cifar-10-batches-py is in use by .*wait for it or .*--data"
            ):
                read_cifar("cifar10", tmp_path / "new", download=True)
            raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Downloading)
    with pytest.raises(MissingInputError, match="no network"):
        read_cifar("cifar10", tmp_path / "new", download=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_whoever_looks_at_arrays_sees_whole_pictures_beside_their_stills() -> None:
    pixels = torch.randint(0, 256, (5, 3, 8, 6), dtype=torch.uint8)
    images = ImageArrays(pixels, None)
    ((stills, seen),) = images.looked_at(4, lambda picture: picture.pixels(0, 0, *picture.size))
    assert torch.equal(stills, next(images.stills(4)))
    for shown, image in zip(seen, pixels, strict=True):
        assert torch.equal(torch.from_numpy(shown.copy()).permute(2, 0, 1), image)


def test_everything_made_of_images_on_a_device_is_made_there() -> None:
    with pretended_cuda() as cuda:
        images = ImageArrays(torch.zeros(40, 3, 32, 32, dtype=torch.uint8, device=cuda), None)
        batches = [torch.arange(16), torch.arange(16, 21)]
        for size in (32, 16):  # as they are, and resized
            spec = ViewsConfig(size=size, blur=0.5).spec()
            made = [
                *images.stills(size),
                *images.probe_crops(batches, size, seed=0, epoch=0),
                *(
                    view
                    for views in images.views(batches, spec, seed=0, epoch=0)
                    for view in views[:3]
                ),
            ]
            assert {tensor.device.type for tensor in made} == {"cuda"}
            assert len(made) == 1 + 2 + 6


@pytest.mark.parametrize("shape", [(12, 20), (21, 12), (12, 12)])
def test_stills_are_the_middle_square_and_not_distorted(shape: tuple[int, int]) -> None:
    """The authority: torchvision's crop of the middle, and its resize."""
    seeded = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8, generator=seeded)
    # in fp64: torchvision's way for bytes rounds its weights, and is off by up to 8
    middle = functional.center_crop(images, [12, 12]).double()
    for size in (12, 7):
        (found,) = ImageArrays(images, None).stills(size)
        expected = functional.resize(middle, [size, size], InterpolationMode.BICUBIC)
        assert (found - expected.clamp(0, 255).round()).abs().max() <= 1
        ((same, _),) = ImageArrays(images, None).looked_at(size, lambda picture: None)
        assert torch.equal(found, same)
        index = torch.arange(3)
        whole = ImageArrays(images, None, probe_padding=0, probe_flip=False)
        (crops,) = whole.probe_crops([index], size, seed=0, epoch=1)
        assert torch.equal(crops, found)
