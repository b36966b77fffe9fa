"""Frozen features and per-class accuracy: what every probe needs.

N images, B images per batch, S image size, F feature dim, C classes. Images are uint8; the backbone's input is [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.compute.device import autocast
from sdclr.compute.device_choices import Precision
from sdclr.errors import DataError, NonFiniteError
from sdclr.safe_text import first_of

Labels = npt.NDArray[np.int64]


@torch.no_grad()  # not inference_mode: its tensors cannot be used in training
def extract_features(
    backbone: nn.Module,
    images: Tensor | Iterable[Tensor],
    advance: Callable[[int], None] | None = None,
    name: Callable[[int], str] = "image {}".format,
    precision: Precision = "fp32",
) -> Tensor:
    """Features [N, F] on the CPU in the backbone's dtype, with the backbone in eval mode.

    ``precision``: bf16 computes them under autocast, as in bf16 training.

    ``images``: uint8 [N, C, S, S], or numbers in [0, 1], or batches [B, C, S, S] of either. ``advance`` is called with
    the number of images done; ``name`` maps the position of an image to its name in errors. Raises NonFiniteError for
    a feature that is not finite.
    """
    backbone.eval()
    weight = next(backbone.parameters())
    parts: list[Tensor] = []
    done = 0
    for batch in images.split(512) if isinstance(images, Tensor) else images:
        pixels = batch.to(weight.device).to(weight.dtype)
        with autocast(weight.device, precision):
            features = backbone(pixels / 255 if batch.dtype == torch.uint8 else pixels)
        features = features.to(weight.dtype).cpu()
        require_finite(features, lambda row, first=done: name(first + row))  # type: ignore[misc]
        parts.append(features)
        done += len(batch)
        if advance:
            advance(len(batch))
    return torch.cat(parts)


def of_length_one(features: Tensor) -> Tensor:
    """Rows [N, F] of any magnitude scaled to length one, in fp32, or in fp64 if they are fp64; zero rows stay zero.

    >>> of_length_one(torch.tensor([[3e25, 4e25], [3e-25, 4e-25], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows = features if features.dtype == torch.float64 else features.float()
    if not rows.shape[1]:
        return rows
    # first scaled by a power of two, which is exact, so that squares neither overflow nor underflow
    _, exponent = torch.frexp(rows.abs().amax(dim=1, keepdim=True))
    largest = 1000 if rows.dtype == torch.float64 else 120  # within the range of the type
    return F.normalize(torch.ldexp(rows, -exponent.clamp(-largest, largest)), dim=1)


def require_finite(features: Tensor, name: Callable[[int], str] = "row {}".format) -> None:
    """Raise NonFiniteError, naming the rows of features [N, F] with a number that is not finite."""
    finite = features.isfinite().all(dim=1)
    if finite.all():
        return
    rows = (~finite).nonzero().flatten().tolist()
    names = first_of(list(map(name, rows)), 3)
    raise NonFiniteError(
        f"{len(rows)} of {len(features)} features are not finite numbers: {names}. No probe can "
        "use them. Look at these images, and use weights from before a training diverged."
    )


def per_class_accuracy(
    predictions: Labels, labels: Labels, num_classes: int, untested: Collection[int] = ()
) -> list[float | None]:
    """Share of each class's test images that are predicted correctly, [C] in [0, 1]; None for classes in ``untested``.

    Raises DataError for any other class without test images: silently leaving it out would change every mean.
    """
    totals = np.bincount(labels, minlength=num_classes)
    if missing := [c for c in np.flatnonzero(totals == 0).tolist() if c not in untested]:
        raise DataError(f"class {missing[0]} has no test image, so its accuracy is unknown.")
    right = np.bincount(labels[predictions == labels], minlength=num_classes)
    return [None if c in untested else float(right[c] / totals[c]) for c in range(num_classes)]
