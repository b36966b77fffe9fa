"""Images to features as a scikit-learn transformer: works in a Pipeline and cross_val_score, can be cloned and pickled.

N images, F feature dim. An image may be the path of a file, a PIL image or an array [H, W] or [H, W, 3] of 8 bits; all
three of the same picture give the same features. It does not use labels.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sdclr.backbones.backbone import Backbone, measure_feature_dim
from sdclr.backbones.encoder import open_encoder
from sdclr.compute.device import resolve_device
from sdclr.data.decoding.decode import open_picture
from sdclr.errors import ConfigError, DataError, MissingInputError, Preempted
from sdclr.evaluation.features import require_finite
from sdclr.jobs.pretrain import pretrain
from sdclr.recipes.own_images import FEWEST_IMAGES
from sdclr.run import Run
from sdclr.safe_text import shown
from sdclr.storage.durable_files import (
    make_folder,
    storage_errors,
    temporary_name,
    write_atomically,
)
from sdclr.workflows.own_images import own_config

Images = Sequence[Any] | npt.NDArray[Any]
LIST_FILE = "images.csv"
"""In OUT-images: the path of every image."""


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn images into features [N, F] with a trained network, or with one that ``fit`` trains on them.

    Parameters
    ----------
    source : str, path or Run, default None
        A run folder, a backbone.safetensors, ``timm:NAME`` or ``torchvision:NAME`` (with ImageNet's weights). Then
        ``fit`` only opens it. None: ``fit`` pre-trains on the images that it receives, as ``sdclr pretrain`` does.
    batch_size : int, default 64
        Images that are embedded at once; it changes the memory needed, but features only by rounding.
    device : str, default "auto"
        cpu, cuda, cuda:N, mps or auto.
    image_size : int, default None
        Side in pixels of the network's input; None: as it was trained. The middle of an image is taken.
    pretrain : mapping, default None
        Settings for the pre-training by dotted name, such as ``{"epochs": 20, "method.name": "simclr"}``.
    out : path, default None
        Run folder of the pre-training, which resumes there after an interruption; images that are not files are
        kept next to it, in OUT-images. None: a temporary one, and only the network is kept, in this object.

    Attributes
    ----------
    backbone_ : Backbone
        The network, on the CPU, in eval mode.
    image_size_ : int
        Side in pixels of its input.

    Examples
    --------
    >>> import numpy as np
    >>> from sdclr.sklearn import Embedder
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    >>> settings = {"backbone.name": "resnet10", "backbone.width": 4, "views.size": 8, "epochs": 1}
    >>> embedder = Embedder(pretrain=settings, device="cpu").fit(images)
    >>> embedder.transform(images[:3]).shape
    (3, 32)
    """

    def __init__(
        self,
        source: Path | str | None = None,
        *,
        batch_size: int = 64,
        device: str = "auto",
        image_size: int | None = None,
        pretrain: Mapping[str, Any] | None = None,
        out: Path | str | None = None,
    ) -> None:
        self.source = source
        self.batch_size = batch_size
        self.device = device
        self.image_size = image_size
        self.pretrain = pretrain
        self.out = out

    def fit(self, X: Images, y: object = None) -> Self:
        """Open the network, or pre-train one on the images ``X`` where there is no source. ``y`` is ignored."""
        self._check_parameters()
        num_images = _number_of(X)
        self._reading: dict[str, Any] = {"exif_rotation": True, "grey_bits": 16}
        if self.source is not None:
            source = self.source if isinstance(self.source, str) else Path(self.source)
            encoder = open_encoder(source, image_size=self.image_size)
            self._take(encoder.backbone, encoder.image_size)
            if (run := Run(Path(source))).exists:
                data = run.settings().get("data") or {}
                self._reading |= {key: data[key] for key in self._reading if key in data}
            return self
        _require_enough(num_images)
        with self._place() as out, _as_files(X, out) as (listed, root):
            config, choices = own_config(
                listed,
                {"device": self.device, "data.root": root, **(self.pretrain or {})},
                out,
                Console(file=io.StringIO()),
            )
            run = pretrain(config, out, choices=choices)
            encoder = open_encoder(run.folder, image_size=self.image_size)
            # transform reads a file as the training did
            self._reading = {key: getattr(config.data, key) for key in self._reading}
        self._take(encoder.backbone, encoder.image_size)
        return self

    def transform(self, X: Images) -> npt.NDArray[np.float32]:
        """The features [N, F] of the images ``X``, float32.

        Raises DataError, with the position, for anything that is not an image.
        """
        check_is_fitted(self, "backbone_")
        _number_of(X)
        where = resolve_device(self.device)
        parts = []
        backbone = self.backbone_.to(where)
        try:
            for first in range(0, len(X), self.batch_size):
                part = X[first : first + self.batch_size]
                batch = torch.stack([self._seen(one, first + row) for row, one in enumerate(part)])
                with torch.no_grad():
                    features = backbone(batch).float().cpu()
                require_finite(features, lambda row, first=first: f"image {first + row}")  # type: ignore[misc]
                parts.append(features.numpy())
        finally:
            self.backbone_.to("cpu")  # so that it can be pickled for a machine without this device
        return np.concatenate(parts)

    @property
    def _n_features_out(self) -> int:
        """For get_feature_names_out: embedder0, embedder1, ..."""
        return int(self.backbone_.feature_dim or 0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []  # float32, whatever the images are
        return tags

    def _take(self, backbone: Backbone, image_size: int) -> None:
        self.backbone_, self.image_size_ = backbone.eval(), image_size
        if backbone.feature_dim is None:
            backbone.feature_dim = measure_feature_dim(backbone, image_size)

    def _check_parameters(self) -> None:
        for name, least in (("batch_size", 1), ("image_size", 4)):
            value = getattr(self, name)
            is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is None and name == "image_size":
                continue
            if not is_count or value < least:
                raise ConfigError(
                    f"{name} of Embedder must be a whole number of at least {least}, got {value!r}."
                )
        for name in ("source", "out"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | os.PathLike):
                raise ConfigError(
                    f"{name} of Embedder must be a path, got {shown(repr(value))}; leave it out, or give a str or a "
                    "Path."
                )
        if self.pretrain is not None:
            _require_settings(self.pretrain)
        if self.source is not None:
            for name in ("pretrain", "out"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} is for an Embedder that trains its network; with source={shown(self.source)} "
                        "leave it out."
                    )

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        if self.out is not None:
            yield Path(self.out)
            return
        with tempfile.TemporaryDirectory(prefix="sdclr-") as folder:
            yield Path(folder) / "run"

    def _seen(self, image: Any, row: int) -> torch.Tensor:
        """[C, S, S] in [0, 1], on the network's device."""
        try:
            if isinstance(image, str | os.PathLike):
                if not Path(image).is_file():
                    raise MissingInputError(f"image {row}: there is no file {shown(image)}.")
                channels = self.backbone_.channels
                picture, _ = open_picture(Path(image), channels=channels, **self._reading)
                seen = picture.pixels(0, 0, *picture.size)
                return self.backbone_.preprocess(seen, self.image_size_)
            _require_pixels(image)
            if self.backbone_.channels == 3:
                image = _as_picture(image)
            return self.backbone_.preprocess(image, self.image_size_, **self._reading)
        except (DataError, OSError, ValueError, SyntaxError) as error:
            named = f" ({shown(image)})" if isinstance(image, str | os.PathLike) else ""
            raise DataError(f"image {row}{named} cannot be used: {shown(error, 300)}") from None


def _require_settings(values: Any) -> None:
    """ConfigError unless they are a mapping with dotted names."""
    example = '{"epochs": 20, "method.name": "simclr"}'
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"pretrain of Embedder must be a mapping of settings, such as {example}, got {shown(repr(values))}."
        )
    for name in values:
        if not isinstance(name, str):
            raise ConfigError(
                f"pretrain of Embedder must name its settings by strings, such as {example}, got {shown(repr(name))}."
            )


def _number_of(images: Images) -> int:
    is_one = isinstance(images, str | bytes | os.PathLike | Mapping)
    # sets have no order, so their features would have no rows
    if is_one or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise DataError(
            f"Embedder takes a list of paths, PIL images or arrays, or one array [N, H, W, 3]; got "
            f"{type(images).__name__}. A folder is embedded by `sdclr embed`, or give sorted(folder.glob('*'))."
        )
    if hasattr(images, "columns") and hasattr(images, "iloc"):
        raise DataError(
            "Embedder takes a list of images, and a table is one of columns: give the column of paths, as in "
            "list(table['path'])."
        )
    if isinstance(images, np.ndarray):
        _require_several(images)
    if len(images) == 0:
        raise DataError("Embedder was given no images.")
    return len(images)


def _require_several(images: npt.NDArray[Any]) -> None:
    """DataError for an array that is one image, or not of images; an array of paths may have one axis."""
    shape = list(images.shape)
    if images.ndim == 0 or (images.ndim < 3 and images.dtype.kind not in "OU"):
        raise DataError(
            f"an array {shape} of {images.dtype} is not an array of images: give [N, H, W] or [N, H, W, 3]; of one "
            "image [H, W] give [image]."
        )
    if images.ndim == 3 and images.shape[2] in (3, 4):
        raise DataError(f"an array {shape} is one image [height, width, channels]; give [image].")


def _as_picture(image: Any) -> Image.Image:
    """A PIL image from an array of 8 bits, [H, W] or [H, W, 3]; PIL images unchanged."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"it is a {type(image).__name__}; give the path of a file, a PIL image or an array."
        )
    if image.dtype != np.uint8:
        raise DataError(f"it is an array of {image.dtype}; give 8-bit numbers, uint8 of 0 to 255.")
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise DataError(
            f"it is an array {list(image.shape)}; give [height, width] or [height, width, 3]."
        )
    return Image.fromarray(np.ascontiguousarray(image))


def _require_pixels(image: Any) -> None:
    """DataError for a PIL image or an array without height or width."""
    if isinstance(image, Image.Image) and 0 in image.size:
        raise DataError(f"it has no pixels: its size is {image.width} x {image.height}.")
    if isinstance(image, np.ndarray) and image.size == 0:
        raise DataError(f"it has no pixels: it is an array {list(image.shape)}.")


def _require_enough(num_images: int) -> None:
    if num_images < FEWEST_IMAGES:
        raise DataError(
            f"fit was given {num_images} images; at least {FEWEST_IMAGES} are needed: contrastive learning compares "
            "the images of a batch with one another. Give more, or Embedder(source=...) a network that is trained "
            "already."
        )


@contextlib.contextmanager
def _as_files(images: Images, out: Path) -> Iterator[tuple[str, str]]:
    """A list of the images as files, for a pre-training in ``out``, and the folder that contains them all.

    Those that are not files become PNGs in OUT-images, which an interrupted run finds again. If the block fails, the
    folder is restored, so that a refusal leaves nothing behind.
    """
    folder = out.with_name(f"{out.name}-images")
    paths = _paths_of(images, folder)
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:
        raise DataError(
            "the images are on several drives, and a run reads those below one folder."
        ) from None
    is_new, had_run = not os.path.lexists(folder), Run(out).exists
    place = folder / LIST_FILE
    if is_new:
        _write_images(images, paths, folder)
    else:
        _require_same_pictures(images, paths, out, folder)
    before = place.read_bytes()
    listed = _list_of(paths)
    try:
        if before != listed:  # the files have moved, or are others, which the run checks
            write_atomically(place, listed)
        yield str(place.absolute()), root
    except Preempted:
        raise
    except BaseException:
        if is_new and (had_run or not Run(out).exists):
            shutil.rmtree(folder)
        elif before != listed:
            write_atomically(place, before)
        raise


def _paths_of(images: Images, folder: Path) -> list[str]:
    """The path of every image as a file, or its future path in ``folder``. DataError for a file that is given twice."""
    digits = len(str(len(images) - 1))
    paths = []
    row_of: dict[str, int] = {}
    for row, image in enumerate(images):
        if not isinstance(image, str | os.PathLike):
            paths.append(str((folder / f"{row:0{digits}d}.png").absolute()))
            continue
        path = os.path.abspath(image)
        if not os.path.isfile(path):
            raise MissingInputError(f"image {row}: there is no file {shown(image)}.")
        first = row_of.setdefault(path, row)
        if first != row:
            raise DataError(
                f"image {row} is image {first} again: {shown(image)}. Give every file once."
            )
        paths.append(path)
    return paths


def _list_of(paths: Sequence[str]) -> bytes:
    """The content of a list of files."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["path"], *([path] for path in paths)])
    return text.getvalue().encode()


def _pngs(images: Images) -> Iterator[tuple[int, bytes]]:
    """The images that are not files as PNGs, with their positions. DataError for anything that is not an image."""
    for row, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            continue
        try:
            _require_pixels(image)
            png = io.BytesIO()
            _as_picture(image).save(png, "PNG")
        except (DataError, OSError, ValueError) as error:
            raise DataError(f"image {row} cannot be used: {shown(error, 300)}") from None
        yield row, png.getvalue()


def _write_images(images: Images, paths: Sequence[str], folder: Path) -> None:
    """Write the folder with all its contents, or nothing."""
    make_folder(folder.parent)
    beside = temporary_name(folder)
    try:
        make_folder(beside)
        with storage_errors(folder):
            for row, png in _pngs(images):
                (beside / Path(paths[row]).name).write_bytes(png)
            (beside / LIST_FILE).write_bytes(_list_of(paths))
            os.replace(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _require_same_pictures(images: Images, paths: Sequence[str], out: Path, folder: Path) -> None:
    """ConfigError unless ``folder`` is from an earlier fit and holds the images that are not files."""
    if not (folder / LIST_FILE).is_file():
        raise ConfigError(
            f"{folder} exists and holds something else; Embedder keeps images there. Choose another out."
        )
    for row, png in _pngs(images):
        if not _holds(folder / Path(paths[row]).name, png):
            raise ConfigError(
                f"image {row} is not the one that {folder} has held since an earlier fit. Give the images of that fit "
                f"to continue with {out}, or choose another out."
            )


def _holds(path: Path, png: bytes) -> bool:
    """Whether a file holds these pixels; another version of Pillow may have compressed them differently."""
    try:
        if path.read_bytes() == png:
            return True
        with Image.open(path) as kept, Image.open(io.BytesIO(png)) as wanted:
            same_colours = (kept.mode, kept.getpalette()) == (wanted.mode, wanted.getpalette())
            return same_colours and np.array_equal(np.asarray(kept), np.asarray(wanted))
    except (OSError, ValueError, SyntaxError):
        return False
