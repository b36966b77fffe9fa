"""Readers of images in memory: digits, CIFAR, ``.npz``.

N images, C channels, H x W pixels. Everything is [N, C, H, W] uint8 in memory; where C is 3, grey images get three
equal channels.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.data.choices import MOST_CHANNELS
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.collections.images import Images, LabelledImages
from sdclr.data.decoding.decode import printable
from sdclr.data.decoding.npy_files import read_npz_arrays
from sdclr.errors import DataError, MissingInputError
from sdclr.planes import bits_for
from sdclr.stills import eight_bits
from sdclr.storage.durable_files import make_folder
from sdclr.storage.locks import writing


def read_digits(channels: int = 3) -> LabelledImages:
    """scikit-learn's 1,797 real 8 x 8 digits; a fixed 36 per class are the test set."""
    pixels, targets = _digits()
    images = _to_tensor((pixels * (255 / 16)).round().astype(np.uint8), "digits", channels)
    labels = targets.astype(np.int64)
    in_test = np.zeros(len(labels), dtype=bool)
    for c in range(10):
        members = np.flatnonzero(labels == c)
        in_test[members[permutation(derive(0, Stream.TEST_SET, c), len(members)).numpy()[:36]]] = (
            True
        )
    pool = ImageArrays(images, labels, probe_padding=1, probe_flip=False)
    train, test = pool.at(np.flatnonzero(~in_test)), pool.at(np.flatnonzero(in_test))
    return LabelledImages(train, test, [str(c) for c in range(10)])


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels in 0 ... 16 and labels, read once per process: they are numbers written as text."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


CIFAR = {"cifar10": ("CIFAR10", 10), "cifar100": ("CIFAR100", 100)}
"""Data set -> torchvision's reader, and the number of classes."""


def read_cifar(name: str, path: Path, *, download: bool = False) -> LabelledImages:
    """CIFAR-10 or CIFAR-100 from torchvision's layout below ``path``, or from a ``.npz`` of the same images.

    Downloads only with ``download``. Raises MissingInputError when there is nothing to read and DataError when the
    files fail torchvision's checksums or an array has another size.
    """
    reader_name, num_classes = CIFAR[name]
    if path.suffix == ".npz":
        data = read_npz(path)
        assert isinstance(data.train, ImageArrays)
        sizes = (len(data.train), len(data.test) if data.test else 0, len(data.class_names))
        if sizes != (50_000, 10_000, num_classes) or tuple(data.train.images.shape[2:]) != (32, 32):
            raise DataError(
                f"{path} is not {name}: it has {sizes[0]} training and {sizes[1]} test images of {sizes[2]} classes, "
                f"{tuple(data.train.images.shape[2:])} px. For other data use data.name=arrays."
            )
        return data
    from torchvision import datasets

    reader = getattr(datasets, reader_name)
    if not download and not (path / reader.base_folder).is_dir():
        raise MissingInputError(
            f"no {name} at {path}: it should hold {reader.base_folder}/ (torchvision's layout) or be a .npz of arrays. "
            "Add --download to fetch it there."
        )
    try:
        with _downloading(path / reader.base_folder) if download else contextlib.nullcontext():
            parts = [reader(path, train=train, download=download) for train in (True, False)]
    except RuntimeError:
        raise DataError(
            f"{name} at {path} fails torchvision's checksums: a file is missing, cut off or not the original. "
            "Remove it and add --download, or pass a .npz of arrays."
        ) from None
    except OSError as error:
        raise MissingInputError(
            f"{name} could not be read or downloaded to {path}: {error}"
        ) from None
    train, test = (
        ImageArrays(_to_tensor(p.data, name), np.array(p.targets, dtype=np.int64)) for p in parts
    )
    return LabelledImages(train, test, list(parts[0].classes))


@contextlib.contextmanager
def _downloading(folder: Path) -> Iterator[None]:
    """Lock the folder, as two downloads at once would overwrite each other's files; RunFolderError names the first."""
    make_folder(folder.parent)
    with writing(folder, "choose another --data"):
        yield


def with_classes_as_given(
    train: Images, test: Images | None, names: Sequence[str] | None, where: str
) -> LabelledImages:
    """A set from which no long tail is drawn: its classes are those with training images, renumbered without gaps.

    ``names``: the class names by their numbers; None: the numbers themselves. A remark names the classes without an
    image. Raises DataError for a test image of such a class, and for a number beyond the names.
    """
    if train.labels is None or not len(train.labels):
        return LabelledImages(train, test, [])
    present, numbered = np.unique(train.labels, return_inverse=True)
    highest = int(present[-1])
    if names is not None and highest >= len(names):
        raise DataError(
            f"{where}: class_names has {len(names)} entries, and there is a class {highest}."
        )

    def name(number: int) -> str:
        return str(number) if names is None else names[number]

    tested = None if test is None else test.labels
    if tested is not None and len(unknown := np.setdiff1d(tested, present)):
        known = [int(c) for c in unknown if names is None or c < len(names)]
        raise DataError(
            f"{where}: test_labels has a class that no training image has: "
            f"{_first(map(name, known)) or int(unknown[0])}. Take its images out, or add training images."
        )
    total = highest + 1 if names is None else len(names)
    remarks = []
    if num_empty := total - len(present):
        held = set(present.tolist())
        empty = itertools.islice((c for c in range(total) if c not in held), _NAMED + 1)
        remarks = [
            f"{where}: {num_empty} of {total} classes have no image: {_first(map(name, empty))}"
        ]
    train = train.with_labels(numbered.astype(np.int64))
    if test is not None and tested is not None:
        test = test.with_labels(np.searchsorted(present, tested).astype(np.int64))
    return LabelledImages(train, test, [name(int(c)) for c in present], remarks=tuple(remarks))


_NAMED = 5
"""How many classes a message names."""


def _first(names: Iterable[str]) -> str:
    shown = [printable(name) for name in itertools.islice(names, _NAMED + 1)]
    return ", ".join(shown[:_NAMED]) + ", ..." * (len(shown) > _NAMED)


_ARRAYS = (
    "train_images", "train_labels", "images", "labels", "test_images", "test_labels", "class_names",
)  # fmt: skip


def read_npz(
    path: Path, channels: int = 3, bits: int = 16, *, as_given: bool = False
) -> LabelledImages:
    """``.npz`` with ``train_images`` and, where known, ``train_labels``, ``test_images``, ``test_labels``.

    Images: uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W]; of other ``channels`` [N, H, W, C] or [N, C, H, W]. uint16
    becomes 8 bits, of the ``bits`` that it uses. ``images`` and ``labels`` are read as the training part.
    Optional ``class_names``. Pickled arrays are refused. ``as_given``: see :func:`with_classes_as_given`.
    """
    if not path.is_file():
        raise MissingInputError(f"array file {path} does not exist.")
    arrays, held = read_npz_arrays(path, _ARRAYS)
    return labelled_arrays(arrays, str(path), held, channels=channels, bits=bits, as_given=as_given)


def labelled_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
    where: str,
    held: Iterable[str] | None = None,
    *,
    channels: int = 3,
    bits: int = 16,
    as_given: bool = False,
) -> LabelledImages:
    """The arrays of :func:`read_npz` as images. ``where``, and the names it ``held``, are for errors."""
    path, held = where, arrays if held is None else held
    train = _npz_part(
        path,
        arrays,
        "train_images" if "train_images" in arrays else "images",
        "train_labels",
        "labels",
        channels=channels,
        bits=bits,
    )
    if train is None:
        raise DataError(
            f"{path} needs an array train_images; it has {', '.join(map(printable, held)) or 'none'}."
        )
    test = _npz_part(path, arrays, "test_images", "test_labels", channels=channels, bits=bits)
    named = arrays.get("class_names")
    if as_given and train.labels is not None:
        names_given = None if named is None else [str(one) for one in named.reshape(-1)]
        return with_classes_as_given(train, test, names_given, path)
    labels = [p.labels for p in (train, test) if p is not None and p.labels is not None]
    num_classes = 1 + max((int(one.max()) for one in labels), default=-1)
    num_labels = sum(len(one) for one in labels)
    if num_classes > max(num_labels, 1):
        raise DataError(
            f"{path}: labels go up to {num_classes - 1} for {num_labels} images; number classes 0 .. C - 1."
        )
    names = [str(n) for n in arrays.get("class_names", np.arange(num_classes)).reshape(-1)]
    if len(names) != num_classes:
        raise DataError(f"{path}: class_names has {len(names)} entries for {num_classes} classes.")
    return LabelledImages(train, test, names)


def _npz_part(
    path: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    images_key: str,
    *label_keys: str,
    channels: int,
    bits: int,
) -> ImageArrays | None:
    if images_key not in arrays:
        return None
    images = _to_tensor(arrays[images_key], f"{path}: {images_key}", channels, bits)
    key = next((k for k in label_keys if k in arrays), None)
    if key is None:
        return ImageArrays(images, None)
    labels = arrays[key]
    if (
        labels.shape != (len(images),)
        or labels.dtype.kind not in "iu"
        or (len(labels) and labels.min() < 0)
    ):
        raise DataError(
            f"{path}: {key} must hold one class id (0 or more) for each of the {len(images)} images, "
            f"got {labels.dtype} {labels.shape}."
        )
    return ImageArrays(images, labels.astype(np.int64))


def _to_tensor(images: npt.NDArray[Any], where: str, channels: int = 3, bits: int = 16) -> Tensor:
    """uint8 or uint16 [N, H, W], [N, H, W, 1 or C] -> uint8 [N, C, H, W]; of other than 3 also [N, C, H, W]."""
    planes = _channels_first(images, channels)
    if images.dtype not in (np.uint8, np.uint16) or planes is None:
        raise DataError(
            f"{where}: images must be uint8 {_shapes(channels)}, got {images.dtype} {images.shape}."
            f"{_other_channels(images, channels)}"
        )
    if 0 in images.shape:
        raise DataError(f"{where}: there are no images (shape {images.shape}).")
    if images.dtype == np.uint16:
        planes = _in_eight_bits(planes, where, bits)
    if planes.shape[1] == channels and planes.flags.c_contiguous and planes.flags.writeable:
        # the layout of read_npz: a second copy may not fit in memory
        return torch.from_numpy(planes)
    copy = np.empty((len(planes), channels, *planes.shape[2:]), np.uint8)
    np.copyto(copy, planes)
    return torch.from_numpy(copy)


def _channels_first(images: npt.NDArray[Any], channels: int) -> npt.NDArray[Any] | None:
    """[N, 1 or C, H, W]; None where the shape is another."""
    if images.ndim == 3 and channels in (1, 3):
        return images[:, None]
    if images.ndim != 4:
        return None
    if images.shape[3] == channels or (channels == 3 and images.shape[3] == 1):
        return images.transpose(0, 3, 1, 2)
    return images if images.shape[1] == channels != 3 else None


def _shapes(channels: int) -> str:
    if channels == 3:
        return "[N, H, W] or [N, H, W, 1 or 3]"
    return f"{'[N, H, W], ' if channels == 1 else ''}[N, H, W, {channels}] or [N, {channels}, H, W]"


def _other_channels(images: npt.NDArray[Any], channels: int) -> str:
    """Advice where the images have another number of channels than data.channels."""
    if images.ndim != 4 or images.shape[3] > MOST_CHANNELS or images.shape[3] == channels:
        return ""
    return f" For images of {images.shape[3]} channels set data.channels={images.shape[3]}."


def _in_eight_bits(planes: npt.NDArray[Any], where: str, bits: int) -> npt.NDArray[np.uint8]:
    largest = int(planes.max())
    if largest >= 1 << bits:
        raise DataError(
            f"{where}: holds levels up to {largest:,}, which {bits} bits cannot. Use "
            f"data.grey_bits={bits_for(largest)}."
        )
    if (used := bits_for(largest)) < bits:
        warnings.warn(
            f"{where}: has 16 bits and uses the lowest {used} of them only (largest level {largest:,}): the images "
            f"are almost black. Use data.grey_bits={used}.",
            stacklevel=4,
        )
    scaled = np.empty(planes.shape, np.uint8)
    # a 32-bit copy of all would be four times as large
    for image, target in zip(planes, scaled, strict=True):
        target[:] = eight_bits(image.astype(np.uint32), bits)
    return scaled
