"""Images from Python: a torch or Hugging Face dataset, a list of PIL images, arrays or paths, an array, a table.

The object must have a length and be indexed by number; an item is an image, or a pair or mapping that contains one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdclr.data.collections.given_images import GivenImages
from sdclr.data.collections.images import LabelledImages
from sdclr.data.decoding.decode import (
    LEVELS_USED,
    OutOfRangeError,
    bits_used,
    open_picture,
    to_rgb,
)
from sdclr.data.look_ahead import in_pieces
from sdclr.data.splits import Positions
from sdclr.errors import DataError, MissingInputError
from sdclr.planes import ArrayPicture, ChannelsError, levels_of_array, levels_of_picture
from sdclr.safe_text import shown
from sdclr.stills import DecodedPicture, Picture, whole

IMAGE_COLUMNS = ("image", "img", "picture")
PATH_COLUMNS = ("path", "image_path", "file_path", "filepath", "file", "filename", "file_name")
LABEL_COLUMNS = ("label", "labels", "class", "target")
MOST_CLASSES = 1 << 63
"""Class numbers are below this."""
MOST_GUESSED = 16
"""The most channels that are inferred from a shape."""
_CURE = "Give PIL images, uint8 arrays [H, W, 3], uint8 or [0, 1] tensors [3, H, W], or paths."


def given_images(
    images: Any,
    labels: Sequence[Any] | None = None,
    *,
    channels: int | None = None,
    grey_bits: int = 16,
    num_workers: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> LabelledImages:
    """The images in a Python object, every one opened once, in its order.

    ``images``: a torch Dataset, a Hugging Face Dataset with a column of images, a sequence of PIL images, arrays,
    tensors or paths, one array [N, H, W, 3] or tensor [N, 3, H, W], or a pandas table with a column of paths.
    ``labels`` [N]: classes as numbers or words; by default those of a column of labels, or those next to the images in
    pairs and mappings, or else ``images.targets``, or none. ``channels``: of every image, by default those of the first
    one if it is an array or tensor of 2 or more than 3, else 3, to which greys are converted. ``grey_bits``: how many
    bits 16-bit images use.
    Raises DataError for items that are not images, counting from 0, and for labels that do not fit; MissingInputError
    for a path without a file.
    """
    items, in_table = _items(images)
    if isinstance(labels, Mapping | Set | str):
        raise DataError(f"labels are a list of one for each image, got a {type(labels).__name__}.")
    num, names = len(items), _known_names(images)
    if labels is None:
        labels = in_table
    looking = _Looking(items, channels, grey_bits)
    in_pieces(num, 8, looking.look, advance, num_workers=num_workers)
    if looking.errors:
        raise _summary(looking.errors, num)
    _warn_of_dark(looking.levels, grey_bits)
    if labels is None and num:
        labels, names = _labels_of(looking.labels, getattr(images, "targets", None), names)
    numbers, names = _classes(labels, num, names)
    collection = GivenImages(
        looking.picture,
        np.arange(num, dtype=np.int64),
        tuple(_name(items, place) for place in range(num)),
        looking.sizes,
        tuple(looking.digests),
        numbers,
        num_workers=num_workers,
        channels=looking.channels,
    )
    return LabelledImages(collection, None, names)


class _Looking:
    """Opens the given images, in any thread, and keeps the facts found when each is first opened."""

    def __init__(self, items: Any, channels: int | None, grey_bits: int) -> None:
        num = len(items)
        self._items, self._grey_bits = items, grey_bits
        # a dataset may not be safe to use from several threads at once
        several = isinstance(items, list | tuple | np.ndarray | torch.Tensor)
        self._turn = contextlib.nullcontext() if several else threading.Lock()
        self.sizes, self.digests = np.zeros((num, 2), np.int64), [b""] * num
        self.labels: list[Any] = [None] * num
        """The class next to each image in its item."""
        self.levels: dict[int, int] = {}
        """The largest level of every 16-bit image, by position."""
        self.errors: dict[int, Exception] = {}
        if channels is None:
            channels = _channels_of(self._item(0)) if num else 3
        self.channels = channels

    def picture(self, place: int) -> Picture:
        return self._opened(self._item(place))[0]

    def look(self, places: range) -> None:
        for place in places:
            try:
                item = self._item(place)
                picture, largest = self._opened(item)
            except Exception as error:  # a dataset may raise anything
                self.errors[place] = error
                continue
            width, height = picture.size
            if not width * height:
                self.errors[place] = DataError(f"it has no pixels: its size is {width} x {height}.")
                continue
            self.labels[place] = _label_of(item)
            if largest is not None:
                self.levels[place] = largest
            self.sizes[place] = height, width
            pixels = np.ascontiguousarray(whole(picture))
            self.digests[place] = hashlib.blake2b(pixels.data, digest_size=16).digest()

    def _item(self, place: int) -> Any:
        with self._turn:
            return self._items[place]

    def _opened(self, item: Any) -> tuple[Picture, int | None]:
        return _picture(_image_of(item), self.channels, self._grey_bits)


def _items(images: Any) -> tuple[Any, Sequence[Any] | None]:
    """The object that can be indexed by number, and the labels of a table or dataset's column."""
    if isinstance(images, str | Path):
        raise DataError(
            f"images={shown(str(images))} is a path: a folder, list or table of files is data.path. {_CURE}"
        )
    if hasattr(images, "columns") and hasattr(images, "iloc"):  # a table of pandas
        columns = {str(name).lower(): name for name in images.columns}
        return list(_column(images, columns, PATH_COLUMNS)), _labels_in(images, columns)
    if hasattr(images, "column_names"):  # a dataset of Hugging Face
        columns = {str(name).lower(): name for name in images.column_names}
        _require_column(columns, (*IMAGE_COLUMNS, *PATH_COLUMNS))
        return images, _labels_in(images, columns)
    if hasattr(images, "iloc"):  # a column of pandas, which is indexed by its own labels
        return list(images), None
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise DataError(
            f"images must have a length and be indexed by number, got {type(images).__name__}. Put it into a list "
            "first."
        )
    if isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OU":
        return images.tolist(), None  # of paths or pictures
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim not in (3, 4):
        raise DataError(
            f"one array of images has 3 or 4 dimensions, got {list(images.shape)}. {_CURE}"
        )
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] in (3, 4):
        raise DataError(
            f"images is one image, {list(images.shape)}, and not several. Put it into a list, or give [N, H, W, 3]."
        )
    return images, None


def _column(table: Any, columns: Mapping[str, Any], wanted: Sequence[str]) -> Any:
    return table[_require_column(columns, wanted)]


def _require_column(columns: Mapping[str, Any], wanted: Sequence[str]) -> Any:
    for name in wanted:
        if name in columns:
            return columns[name]
    held = ", ".join(shown(name) for name in columns) or "none"
    raise DataError(f"the table needs a column {' or '.join(wanted)}; it has {held}.")


def _labels_in(table: Any, columns: Mapping[str, Any]) -> list[Any] | None:
    name = next((columns[one] for one in LABEL_COLUMNS if one in columns), None)
    return None if name is None else list(table[name])


def _image_of(item: Any) -> Any:
    """The image in an item: itself, the first of a pair, or a mapping's entry of that name."""
    if isinstance(item, Mapping):
        names = {str(name).lower(): name for name in item}
        return item[_require_column(names, (*IMAGE_COLUMNS, *PATH_COLUMNS))]
    return item[0] if isinstance(item, tuple | list) and item else item


def _label_of(item: Any) -> Any:
    """The label next to an image: the second of a pair, or a column of a mapping; None where there is none."""
    if isinstance(item, Mapping):
        names = {str(name).lower(): name for name in item}
        name = next((names[one] for one in LABEL_COLUMNS if one in names), None)
        return None if name is None else _scalar(item[name])
    return _scalar(item[1]) if isinstance(item, tuple | list) and len(item) > 1 else None


def _scalar(value: Any) -> Any:
    """The number in an array or tensor with one element; everything else as it is."""
    if isinstance(value, np.ndarray | np.generic | torch.Tensor) and math.prod(value.shape) == 1:
        return value.item()
    return value


def _labels_of(
    beside: Sequence[Any], targets: Sequence[Any] | None, names: Sequence[str] | None
) -> tuple[Sequence[Any] | None, Sequence[str] | None]:
    """The classes next to the images, else those of ``targets``; and their names, if known.

    Where neither are classes, None, with a warning unless there are none at all: training needs no labels.
    """
    there = None if targets is None else [_scalar(one) for one in targets]
    if all(one is None for one in beside):
        return there, names
    why = _why_no_classes(beside)
    if there is not None and (len(there) != len(beside) or _why_no_classes(there) is not None):
        there = None  # boxes, attributes and the like
    if why is None:
        if there is None or list(beside) in (there, _named(there, names)):
            return beside, names
        warnings.warn(
            "the classes beside the images are not those of images.targets: the former are used, without the "
            "names of the latter (a target_transform?).",
            stacklevel=4,
        )
        return beside, None
    if there is not None:
        return there, names
    if not all(_is_missing(one) for one in beside):
        warnings.warn(
            f"the images are taken without labels: {why}. Classes are whole numbers from 0 on or words, one for every "
            "image; labels=... gives them apart.",
            stacklevel=4,
        )
    return None, names


def _named(classes: Sequence[Any], names: Sequence[str] | None) -> list[str] | None:
    """Class numbers as words, where each has one."""
    if names is None or not all(isinstance(one, int) and one < len(names) for one in classes):
        return None
    return [str(names[one]) for one in classes]


def _is_missing(label: Any) -> bool:
    """Whether there is no label; sets without labels write -1."""
    return label is None or (isinstance(label, int) and label == -1)


def _why_no_classes(labels: Sequence[Any]) -> str | None:
    """What is wrong with labels as classes, if anything."""
    if missing := [place for place, one in enumerate(labels) if _is_missing(one)]:
        return f"{len(missing)} of {len(labels)} images have no label (the first is image {missing[0]})"
    if odd := [one for one in labels if not isinstance(one, int | str)]:
        return f"what is beside them is not a class ({type(odd[0]).__name__})"
    if len({isinstance(one, str) for one in labels}) > 1:
        return "some have a number beside them and others a word"
    if odd := [one for one in labels if not isinstance(one, str) and not 0 <= one < MOST_CLASSES]:
        return f"what is beside them is not a class ({odd[0]})"
    return None


def _name(items: Any, place: int) -> str:
    """The path of an image that is given as one; else its position."""
    item = items[place] if isinstance(items, list | tuple) else None
    item = _image_of(item) if isinstance(item, tuple | list | Mapping) else item
    return str(item) if isinstance(item, str | Path) else str(place)


def _channels_of(item: Any) -> int:
    """The channels of the first image, where its shape is unambiguous; else 3."""
    image = _image_of(item)
    shape = tuple(image.shape) if isinstance(image, torch.Tensor | np.ndarray) else ()
    if len(shape) != 3:
        return 3
    channels = shape[0] if isinstance(image, torch.Tensor) else shape[2]
    return channels if 1 < channels <= MOST_GUESSED else 3


def _picture(image: Any, channels: int, bits: int) -> tuple[Picture, int | None]:
    """The picture, not rotated by EXIF, as a program's images are as it sees them; its largest level if 16-bit."""
    if isinstance(image, str | Path):
        return open_picture(str(image), channels=channels, grey_bits=bits)
    try:
        if isinstance(image, torch.Tensor):
            image = _channels_last(image.detach().cpu(), channels)
        if isinstance(image, np.ndarray):
            levels = levels_of_array(image, channels, bits)
            return ArrayPicture(levels.pixels), levels.largest
        if not isinstance(image, Image.Image):
            raise DataError(f"a {type(image).__name__} is not an image. {_CURE}")
        if channels != 3:
            levels = levels_of_picture(image, channels, bits)
            return ArrayPicture(levels.pixels), levels.largest
        if image.mode == "RGB":
            return DecodedPicture(image), None
        # a copy, as the conversion drops the transparency in its info
        rgb = to_rgb(image.copy(), bits)
        return DecodedPicture(rgb), rgb.info.get(LEVELS_USED)
    except ChannelsError as error:
        raise DataError(f"it {error}") from None
    except OutOfRangeError as error:
        raise DataError(f"it {error}") from None
    except ValueError as error:
        raise DataError(f"it is {error}.") from None


def _channels_last(tensor: torch.Tensor, channels: int) -> np.ndarray[Any, Any]:
    if tensor.ndim == 3 and tensor.shape[0] in {1, 3, channels}:
        tensor = tensor.permute(1, 2, 0)
    return tensor.contiguous().numpy()


def _warn_of_dark(levels: Mapping[int, int], grey_bits: int) -> None:
    """Warn of images of 16 bits that are almost black, since their data use fewer bits than their type."""
    if not levels or (bits := bits_used(list(levels.values()))) >= grey_bits:
        return
    warnings.warn(
        f"{len(levels)} images have 16 bits and use the lowest {bits} of them only (largest level "
        f"{max(levels.values()):,}): they are almost black. Use data.grey_bits={bits} in the config.",
        stacklevel=3,
    )


def _known_names(images: Any) -> Sequence[str] | None:
    """The class names: ``classes`` of torchvision's datasets, or those of the label column of Hugging Face's."""
    features = getattr(images, "features", None)
    if isinstance(features, Mapping):
        columns = {str(name).lower(): name for name in features}
        name = next((columns[one] for one in LABEL_COLUMNS if one in columns), None)
        if names := getattr(features.get(name), "names", None):
            return list(names)
    return getattr(images, "classes", None)


def _classes(
    labels: Sequence[Any] | None, num: int, names: Sequence[str] | None
) -> tuple[Positions | None, list[str]]:
    if labels is None:
        return None, []
    values = [_scalar(value) for value in labels]
    if len(values) != num:
        raise DataError(f"there are {len(values)} labels for {num} images.")
    if several := [value for value in values if hasattr(value, "shape")]:
        raise DataError(
            f"a label is one number or word, got an array of shape {list(several[0].shape)}. Give class numbers, "
            "such as one_hot.argmax(1)."
        )
    if all(isinstance(value, int) for value in values):
        if odd := [value for value in values if not 0 <= value < MOST_CLASSES]:
            raise DataError(f"labels are numbers from 0 on or words, got {odd[0]}.")
        if names is not None and len(names) > max(values, default=-1):
            return np.array(values, np.int64), list(map(str, names))
        present, numbers = np.unique(np.array(values, np.int64), return_inverse=True)
        return numbers.astype(np.int64), [str(number) for number in present]
    if not all(isinstance(value, str) for value in values):
        raise DataError("labels are numbers from 0 on or words, one kind for all images.")
    words = sorted(set(values))
    number_of = {word: number for number, word in enumerate(words)}
    return np.array([number_of[value] for value in values], np.int64), words


def _summary(errors: Mapping[int, Exception], num: int) -> Exception:
    first = min(errors)
    error = errors[first]
    kind = MissingInputError if isinstance(error, MissingInputError) else DataError
    first_error = (
        str(error)
        if isinstance(error, DataError | MissingInputError)
        else f"{type(error).__name__}: {error}"
    )
    return kind(
        f"{len(errors)} of {num} images cannot be used; the first is image {first}: {first_error}"
    )
