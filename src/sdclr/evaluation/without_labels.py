"""Measure a network on a sample of images without labels: two views of each image, and the image itself.

N images, F feature dim. The numbers serve to compare networks on the same sample; none is a verdict by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binomtest
from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.representation import (
    effective_rank,
    view_distances,
    views_that_find_their_partner,
)

VIEWS_PER_CALL = 64


class SampleFeatures(NamedTuple):
    """The features of a sample, each [N, F]."""

    stills: Tensor
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class WithoutLabels:
    """One network on a sample."""

    effective_rank: float
    view_distance: float
    """Mean squared distance of two views of an image, features normalised: alignment."""
    view_distance_half_width: float
    """Half-width of its 95 % interval over the images."""
    found: float
    """Share of the images whose first view is nearer to their own second view than to any other image's."""
    found_half_width: float
    """The longer part of its 95 % interval (Wilson) over the images."""


def sample_features(
    backbone: nn.Module, pixels: Tensor, views: Views, advance: Callable[[int], None]
) -> SampleFeatures:
    """``pixels``: the stills, uint8 [N, C, S, S]; ``views`` of the same images, in the same order."""
    parts = (
        (views.a, "view a of image {}".format),
        (views.b, "view b of image {}".format),
    )
    stills = extract_features(backbone, pixels, advance).float()
    a, b = (
        extract_features(backbone, part.split(VIEWS_PER_CALL), advance, name_of).float()
        for part, name_of in parts
    )
    return SampleFeatures(stills, a, b)


def measure_without_labels(features: SampleFeatures) -> WithoutLabels:
    """Measure the features of a sample."""
    distances = view_distances(features.a, features.b)
    found = views_that_find_their_partner(features.a, features.b)
    return WithoutLabels(
        effective_rank=effective_rank(features.stills),
        view_distance=float(distances.mean()),
        view_distance_half_width=_half_width(distances),
        found=float(found.float().mean()),
        found_half_width=_wilson_half_width(found),
    )


def _half_width(values: Tensor) -> float:
    """Half-width of the 95 % interval of the mean over images."""
    return float(1.96 * values.double().std(unbiased=True) / len(values) ** 0.5)


def _wilson_half_width(hits: Tensor) -> float:
    """The longer part of the 95 % interval of a share; unlike the normal one it is not 0 for no hit or only hits."""
    test = binomtest(int(hits.sum()), len(hits))
    low, high = test.proportion_ci(method="wilson")
    return float(max(test.statistic - low, high - test.statistic))
