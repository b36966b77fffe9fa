"""Images -> features, hashes and measures of junk: one pass, in which each picture is decoded once.

N images, F feature dim. Rows are stored part by part (storage/row_parts), so that a killed command
can resume. Memory does not depend on N.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sdclr.backbones.encoder import Encoder
from sdclr.data import Images
from sdclr.data.decoding.decode import printable
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.rarity import JunkMeasures, measure_junk, perceptual_hashes
from sdclr.planes import in_colours
from sdclr.presentation.progress import AnyProgress
from sdclr.stills import Picture
from sdclr.storage.row_parts import RowParts

BATCH = 32
"""Fixed batch size of the network, padded by repeating the last image if needed: features then do
not depend on which images share a batch, and new images get the same features as from scratch."""
SMALL_SIDE = 96
"""Hashes and junk are measured on pictures of at most 96 x 96, as they were calibrated."""
THUMBNAIL_SIDE = 128
LOOK = np.dtype([("hash", np.uint8, (8,)), ("junk", np.float64, (len(JunkMeasures._fields),))])

Looks = npt.NDArray[Any]
"""[N] of LOOK."""


def row_type(feature_dim: int) -> np.dtype[Any]:
    """The stored record of one image."""
    return np.dtype([("features", np.float32, (feature_dim,)), ("look", LOOK)])


def look_at(images: Images, encoder: Encoder, parts: RowParts, show: AnyProgress) -> None:
    """Append what is missing in ``parts``. Raises NonFiniteError, naming images without usable features."""

    def rows_of(places: npt.NDArray[np.int64], advance: Callable[[int], None]) -> npt.NDArray[Any]:
        part = images.at(places)
        rows: list[npt.NDArray[Any]] = []
        for pixels, looks in part.looked_at(encoder.image_size, look):
            before = sum(map(len, rows))
            rows.append(_rows(encoder, part, before, pixels, looks))
            advance(len(pixels))
        return np.concatenate(rows)

    parts.compute(len(images), f"features of {len(images)} images", rows_of, show)


def _rows(
    encoder: Encoder, images: Images, first: int, pixels: Tensor, looks: list[Looks]
) -> npt.NDArray[Any]:
    def name(row: int) -> str:
        # a repeated image is the last one
        return printable(images.names[first + min(row, len(pixels) - 1)])

    features = extract_features(encoder.backbone, _full_batches(pixels), name=name)
    rows = np.empty(len(pixels), dtype=row_type(features.shape[1]))
    rows["features"] = features[: len(pixels)].float().numpy()
    rows["look"] = np.stack(looks)
    return rows


def _full_batches(pixels: Tensor) -> Iterator[Tensor]:
    for batch in pixels.split(BATCH):
        missing = BATCH - len(batch)
        yield torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)]) if missing else batch


def features_of(encoder: Encoder, images: Images) -> Tensor:
    """float32 [N, F] of a few images."""
    batches = [
        batch for stills in images.stills(encoder.image_size) for batch in _full_batches(stills)
    ]
    return extract_features(encoder.backbone, batches)[: len(images)].float()


def look(picture: Picture) -> Looks:
    """Hash and junk measures of the whole picture, a scalar of LOOK."""
    width, height = picture.size
    image = Image.fromarray(in_colours(picture.pixels(0, 0, width, height)))
    if max(width, height) > SMALL_SIDE:
        smaller = min(width, SMALL_SIDE), min(height, SMALL_SIDE)
        image = image.resize(smaller, Image.Resampling.BILINEAR)
    seen = np.empty((), dtype=LOOK)
    seen["hash"] = perceptual_hashes([image])[0]
    seen["junk"] = measure_junk(np.asarray(image))
    return seen


def junk_measures(looks: Looks) -> list[JunkMeasures]:
    """The measures from which junk flags are derived, [N]."""
    return [JunkMeasures(*values) for values in looks["junk"].tolist()]


def thumbnails(images: Images, show: AnyProgress) -> list[bytes]:
    """A small JPEG of each image; decodes them a second time, so only for those that are shown."""
    task = show.add(f"pictures of {len(images)} images", total=len(images), unit="images")
    made: list[bytes] = []
    for _, small in images.looked_at(1, _thumbnail):
        made += small
        show.advance(task, len(small))
    show.finish(task)
    return made


def _thumbnail(picture: Picture) -> bytes:
    width, height = picture.size
    image = Image.fromarray(in_colours(picture.pixels(0, 0, width, height)))
    scale = THUMBNAIL_SIDE / max(width, height)
    small = image.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))),
        # enlarged pixels, as of digits, stay sharp
        Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR,
    )
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()
