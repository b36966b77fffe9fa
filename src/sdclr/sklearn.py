"""Images to features as a transformer of scikit-learn: in a Pipeline, in cross_val_score, cloned and pickled.

N images, F feature dim. An image may be the path of a file, a PIL image or an array [H, W] or [H, W, 3] of 8 bits; all
three of the same picture give the same features. It knows nothing of labels.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
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
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation.features import require_finite
from sdclr.jobs.pretrain import pretrain
from sdclr.run import Run
from sdclr.safe_text import shown
from sdclr.storage.durable_files import make_folder
from sdclr.workflows.own_images import own_config

Images = Sequence[Any] | npt.NDArray[Any]


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn images into features [N, F] with a trained network, or with one that ``fit`` trains on them.

    Parameters
    ----------
    source : str, path or Run, default None
        A run folder, a backbone.safetensors, ``timm:NAME`` or ``torchvision:NAME`` (with ImageNet's weights). Then
        ``fit`` only opens it. None: ``fit`` pre-trains on the images that it is given, as ``sdclr pretrain`` does.
    batch_size : int, default 64
        Images that are embedded at once; it changes the memory that is needed, and no feature but for rounding.
    device : str, default "auto"
        cpu, cuda, cuda:N, mps or auto.
    image_size : int, default None
        Side in pixels of what the network sees; None: as it was trained. The middle of an image is taken.
    pretrain : mapping, default None
        Settings for the pre-training by dotted name, such as ``{"epochs": 20, "method.name": "simclr"}``.
    out : path, default None
        Run folder of the pre-training, which goes on there after an interruption; images that are no files are
        kept beside it, in OUT-images. None: a temporary one, and only the network is kept, in this object.

    Attributes
    ----------
    backbone_ : Backbone
        The network, on the CPU, in eval mode.
    image_size_ : int
        Side in pixels of what it sees.

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
        """Open the network, or pre-train one on the images ``X`` where there is no source. ``y`` is not looked at."""
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
        with self._place() as out:
            listed, root = _as_files(X, num_images, out.with_name(f"{out.name}-images"))
            config, choices = own_config(
                listed,
                {"device": self.device, "data.root": root, **(self.pretrain or {})},
                out,
                Console(file=io.StringIO()),
            )
            run = pretrain(config, out, choices=choices)
            encoder = open_encoder(run.folder, image_size=self.image_size)
            # transform sees a file as the training saw it
            self._reading = {key: getattr(config.data, key) for key in self._reading}
        self._take(encoder.backbone, encoder.image_size)
        return self

    def transform(self, X: Images) -> npt.NDArray[np.float32]:
        """The features [N, F] of the images ``X``, float32.

        Raises DataError, with the position, for what is no image.
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
        for name in ("batch_size", "image_size"):
            value = getattr(self, name)
            is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is None and name == "image_size":
                continue
            if not is_count or value < 1:
                raise ConfigError(
                    f"{name} of Embedder must be a whole number of at least 1, got {value!r}."
                )
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
        """[3, S, S] in [0, 1], on the network's device."""
        try:
            if isinstance(image, str | os.PathLike):
                if not Path(image).is_file():
                    raise MissingInputError(f"image {row}: there is no file {shown(image)}.")
                channels = self.backbone_.channels
                picture, _ = open_picture(Path(image), channels=channels, **self._reading)
                seen = picture.pixels(0, 0, *picture.size)
                return self.backbone_.preprocess(seen, self.image_size_)
            if self.backbone_.channels == 3:
                image = _as_picture(image)
            return self.backbone_.preprocess(image, self.image_size_, **self._reading)
        except (DataError, OSError, ValueError, SyntaxError) as error:
            named = f" ({shown(image)})" if isinstance(image, str | os.PathLike) else ""
            raise DataError(f"image {row}{named} cannot be used: {shown(error, 300)}") from None


def _number_of(images: Images) -> int:
    if isinstance(images, str | bytes | os.PathLike | Mapping) or not hasattr(images, "__len__"):
        raise DataError(
            f"Embedder takes a list of paths, PIL images or arrays, or one array [N, H, W, 3]; got "
            f"{type(images).__name__}. A folder is embedded by `sdclr embed`, or give sorted(folder.glob('*'))."
        )
    if len(images) == 0:
        raise DataError("Embedder was given no images.")
    return len(images)


def _as_picture(image: Any) -> Image.Image:
    """A PIL image of an array of 8 bits, [H, W] or [H, W, 3]; PIL images as they are."""
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


def _as_files(images: Images, num_images: int, folder: Path) -> tuple[str, str]:
    """A list of the images as files, for the pre-training, and the folder that they all lie below.

    Those that are no files become PNGs in ``folder``.
    """
    make_folder(folder)
    digits = len(str(num_images - 1))
    lines = []
    for row, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            lines.append(os.path.abspath(image))
            continue
        path = folder / f"{row:0{digits}d}.png"
        try:
            _as_picture(image).save(path)
        except (DataError, OSError, ValueError) as error:
            raise DataError(f"image {row} cannot be used: {shown(error, 300)}") from None
        lines.append(str(path.absolute()))
    place = folder / "images.csv"
    with place.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path"], *([line] for line in lines)])
    try:
        return str(place.absolute()), os.path.commonpath([os.path.dirname(line) for line in lines])
    except ValueError:
        raise DataError(
            "the images lie on several drives, and a run reads those below one folder."
        ) from None
