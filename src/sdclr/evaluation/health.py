"""Measures of a contrastive training's health, from projections of two views and from features.

B images, D projection dim, N rows, F feature dim. Plain tensors in, numbers out. Where a measure has
a closed form for a collapsed network or for perfectly spread embeddings, it is here, too. Rank, LiDAR,
the power law, alignment and uniformity have no reference value: they compare runs of one method.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, require_finite
from sdclr.evaluation.representation import nearest, spectrum, view_distances

_WITHIN = 1e-4
"""LiDAR's delta, added to the covariance within images."""
_NEGLIGIBLE = 1e-8
"""Eigenvalues below this share of the largest are rounding errors and not part of a power law."""


def collapsed_loss(num_images: int) -> float:
    """NT-Xent of a network that gives all images the same projection: log(2B - 1), at any temperature.

    An anchor's 2B - 1 candidates are then equally similar (SimCLR, Chen et al., ICML 2020, Eq. 1).

    >>> round(collapsed_loss(512), 4)
    6.9305
    """
    return math.log(2 * _at_least_two(num_images) - 1)


def collapsed_top1(num_images: int) -> float:
    """Contrastive top-1 of such a network, and of chance: 1 / (2B - 1).

    >>> round(collapsed_top1(512), 6)
    0.000978
    """
    return 1 / (2 * _at_least_two(num_images) - 1)


def contrastive_top1(z_a: Tensor, z_b: Tensor) -> float:
    """Share of the 2B anchors whose positive is the most similar of their 2B - 1 candidates.

    Between 0 and 1. A tie of k candidates counts as 1/k, so that equal projections give exactly
    :func:`collapsed_top1`. The candidates are those of NT-Xent.

    >>> contrastive_top1(torch.eye(4), torch.eye(4))
    1.0
    >>> round(contrastive_top1(torch.ones(2, 3), torch.ones(2, 3)), 6), round(collapsed_top1(2), 6)
    (0.333333, 0.333333)
    """
    similarity, positive = _similarities(z_a, z_b)
    best = similarity.max(dim=1).values
    # a relative tolerance: equal vectors differ by rounding
    ties = (similarity >= best.unsqueeze(1) - 1e-9).sum(dim=1)
    return float(torch.where(positive >= best - 1e-9, 1 / ties.double(), 0.0).mean())


def positive_ranks(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Number of candidates that are more similar to each anchor than its positive, float [2B].

    0 if the positive is the nearest, 2B - 2 if it is the farthest; B - 1 on average by chance.
    Candidates as similar as the positive count half.

    >>> positive_ranks(torch.eye(2), torch.eye(2))
    tensor([0., 0., 0., 0.])
    """
    similarity, positive = _similarities(z_a, z_b)
    own = positive.unsqueeze(1)
    nearer = (similarity > own + 1e-9).sum(dim=1)
    equal = ((similarity - own).abs() <= 1e-9).sum(dim=1) - 1
    return (nearer + equal / 2).float()


def embedding_std(z: Tensor) -> float:
    """Mean over the D dimensions of the standard deviation of projections [N, D] at length 1.

    Between 0 (all equal) and :func:`largest_embedding_std` (centred and equally spread in all
    dimensions; SimSiam, Chen and He, CVPR 2021, Sec. 4.1). The population deviation, with 1/N.

    >>> round(embedding_std(torch.cat([torch.eye(4), -torch.eye(4)])), 4)
    0.5
    """
    require_finite(z)
    return float(F.normalize(z.double(), dim=1).std(dim=0, correction=0).mean())


def largest_embedding_std(dim: int) -> float:
    """1 / sqrt(D): the variances of vectors of length 1 add up to 1 - |mean|^2, at most 1.

    >>> largest_embedding_std(16)
    0.25
    """
    return 1 / math.sqrt(dim)


def alignment(z_a: Tensor, z_b: Tensor) -> float:
    """Mean squared distance of two views' projections at length 1 (Wang and Isola, ICML 2020, alpha = 2).

    Between 0 and 4; 0 if both views of every image agree, 2 if they are orthogonal.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
    2.0
    """
    return float(view_distances(z_a, z_b).double().mean())


def uniformity(z: Tensor) -> float:
    """Log of the mean of exp(-2 |x - y|^2) over all pairs of rows at length 1 (Wang and Isola, t = 2).

    0 if all are equal, and :func:`spread_uniformity` if they are spread evenly; lower is more
    spread. Far fewer points N than dimensions D can be farther apart: down to -4 - 4 / (N - 1) for a
    simplex, and lower only for two or three points.

    >>> abs(uniformity(torch.ones(3, 2))) < 1e-12
    True
    >>> round(uniformity(torch.eye(5)), 6)
    -4.0
    """
    require_finite(z)
    if len(z) < 2:
        raise DataError(f"uniformity is of pairs of rows, got {len(z)}.")
    x = F.normalize(z.double(), dim=1)
    return float(_exponents(x).logsumexp(dim=(0, 1)) - math.log(len(z) * (len(z) - 1)))


def _exponents(x: Tensor) -> Tensor:
    """-2 |x - y|^2 = 4 x.y - 4, and -inf on the diagonal."""
    return (4 * (x @ x.T) - 4).fill_diagonal_(-torch.inf)


def spread_uniformity(dim: int) -> float:
    """Uniformity of the uniform distribution on the sphere in D dimensions: -4 + log 0F1(; D/2; 4).

    |x - y|^2 = 2 - 2c with c the cosine of two independent points, so it is -4 + log E exp(4c).
    E exp(tc) = 0F1(; D/2; t^2/4), the sum over k of (t^2/4)^k / (k! (D/2)_k); with
    (D/2)_k >= (D/2)^k it is at most exp(t^2/(2D)), and at least 1 since E c = 0. With t = 4 the
    value is between -4 and -4 + 8/D, and approaches the upper end as D grows.

    >>> round(spread_uniformity(16), 4), -4 + 8 / 16
    (-3.513, -3.5)
    """
    from scipy.special import hyp0f1

    return -4 + math.log(float(hyp0f1(dim / 2, 4.0)))


def lidar(views: Tensor) -> float:
    """Number of directions that separate images rather than views: projections [N, q, D] of q views each.

    LiDAR (Thilak et al., ICLR 2024, Eq. 1-3): exp of the entropy of the eigenvalues of
    W^-1/2 B W^-1/2, with B the covariance of the images' means and W the mean covariance of an
    image's views plus 1e-4 on the diagonal. Between 1 and min(N - 1, D); 1.0 if all means are equal.

    >>> lidar(torch.cat([torch.eye(3), -torch.eye(3)]).unsqueeze(1).repeat(1, 2, 1))
    3.0
    """
    if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
        raise DataError(
            f"LiDAR needs at least 2 views of at least 2 images, [N, q, D]; got {list(views.shape)}."
        )
    require_finite(views.flatten(1), "image {}".format)
    x = views.double()
    num, num_views, dim = x.shape
    means = x.mean(dim=1)
    centred = means - means.mean(dim=0)
    between = centred.T @ centred / (num - 1)
    inner = (x - means.unsqueeze(1)).reshape(-1, dim)
    within = inner.T @ inner / (num * (num_views - 1))
    # by eigenvalues: this root exists for projections of any length, unlike a Cholesky factor
    spread, axes = torch.linalg.eigh(within)
    root = axes / (spread.clamp(min=0) + _WITHIN).sqrt()
    values = torch.linalg.eigvalsh(root.T @ between @ root).clamp(min=0)
    if float(values.sum()) <= 1e-12:
        return 1.0
    shares = values / values.sum()
    return round(float((-torch.xlogy(shares, shares).sum()).exp()), 6)


def alpha_req(features: Tensor) -> float | None:
    """Decay of the eigenvalues of the covariance of features [N, F]: alpha in lambda_j ~ j^-alpha.

    alpha-ReQ (Agrawal et al., NeurIPS 2022): least squares of log lambda on log j over all
    eigenvalues above 1e-8 of the largest. 0 is white, a large value means few directions. None if there are fewer
    than three.

    >>> torch.linalg.svdvals(torch.eye(4) - 0.25).round(decimals=3)[:3]
    tensor([1., 1., 1.])
    >>> round(abs(alpha_req(torch.eye(4))), 3)
    0.0
    """
    return power_law(spectrum(features).square())


def power_law(eigenvalues: Tensor) -> float | None:
    """alpha of eigenvalues [K] in descending order, by least squares in logarithms; see :func:`alpha_req`.

    >>> round(power_law(torch.arange(1, 9).double() ** -1.5), 6)
    1.5
    """
    kept = eigenvalues[eigenvalues > _NEGLIGIBLE * eigenvalues[0]].double().cpu()
    if len(kept) < 3:
        return None
    x = torch.arange(1, len(kept) + 1, dtype=torch.float64).log()
    x = x - x.mean()
    return -float((x * kept.log()).sum() / x.square().sum())


def knn_hits(features: Tensor, labels: Labels, k: int = 10) -> npt.NDArray[np.bool_]:
    """Whether each row of features [N, F] is classified correctly by its nearest other rows: [N].

    Leave-one-out, with the vote of :func:`~sdclr.evaluation.knn.knn_predict`.

    >>> knn_hits(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array([0, 0, 1]), k=1)
    array([ True,  True, False])
    """
    return _voted(*_neighbours(features, k), torch.from_numpy(labels)).numpy()


def deviations_from_chance(
    features: Tensor, labels: Labels, k: int = 10, num_orders: int = 40
) -> float:
    """How far the share of :func:`knn_hits` is above that of the same labels in a random order.

    In standard deviations over ``num_orders`` fixed random orders: about standard normal if labels are
    unrelated to the features. 0 if there is only one class.

    >>> labels = np.arange(40) % 2
    >>> features = torch.eye(2)[labels] + 0.01 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    >>> deviations_from_chance(features, labels) > 3
    True
    """
    positions, weights = _neighbours(features, k)
    given = torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor(
        [
            _voted(positions, weights, given[torch.randperm(len(given), generator=generator)])
            .double()
            .mean()
            for _ in range(num_orders)
        ]
    )
    above = float(_voted(positions, weights, given).double().mean() - shares.mean())
    return above / max(float(shares.std()), 1e-9) if above else 0.0


def _neighbours(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Positions of the nearest other rows and the weights of their votes, [N, k] each."""
    require_finite(features)
    positions, similarities = nearest(features, torch.arange(len(features)), k)
    return positions, ((similarities - similarities[:, :1]) / 0.1).exp()


def _voted(positions: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Whether the vote of the neighbours is each row's own label, bool [N]."""
    votes = torch.zeros(len(labels), int(labels.max()) + 1, dtype=weights.dtype)
    return votes.scatter_add_(1, labels[positions], weights).argmax(dim=1) == labels


class FittedTemperature(NamedTuple):
    """The NT-Xent closest to a loss."""

    temperature: float
    residual: float
    """Root mean square of the deviation from NT-Xent at this temperature, as a share of the losses' mean."""


def fitted_temperature(z_a: Tensor, z_b: Tensor, losses: Tensor) -> FittedTemperature:
    """The temperature at which NT-Xent of these projections [B, D] is closest to these losses [B].

    By least squares, between 1e-7 and 1e7; above about 1000 all losses are nearly equal. A small ``residual`` means
    that the losses are NT-Xent. The projections must differ from each other; use random ones to measure a loss.

    >>> a, b = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    >>> from sdclr import nt_xent
    >>> found = fitted_temperature(a, b, nt_xent(a, b, 0.2))
    >>> round(found.temperature, 4), found.residual < 1e-5
    (0.2, True)
    """
    similarity, positive = _similarities(z_a, z_b)
    target = losses.double().to(similarity.device)

    def off(logarithm: float) -> float:
        scale = math.exp(-logarithm)
        terms = (similarity * scale).logsumexp(dim=1) - positive * scale  # [2B]
        return float((terms.view(2, -1).mean(dim=0) - target).square().mean())

    step = math.log(10) / 5
    grid = [math.log(1e-7) + step * number for number in range(71)]
    best = min(grid, key=off)
    low, high = best - step, best + step
    for _ in range(40):  # golden section
        third = (high - low) * 0.381966
        if off(low + third) < off(high - third):
            high -= third
        else:
            low += third
    found = (low + high) / 2
    return FittedTemperature(
        math.exp(found), math.sqrt(off(found)) / max(float(target.abs().mean()), 1e-12)
    )


def _similarities(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of every anchor with every candidate [2B, 2B], -inf with itself; and with its positive [2B]."""
    if z_a.shape != z_b.shape or z_a.ndim != 2 or len(z_a) < 2:
        raise DataError(
            "contrasting needs projections [B, D] of two views of at least 2 images, got "
            f"{tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )
    require_finite(z_a, "view a of image {}".format)
    require_finite(z_b, "view b of image {}".format)
    z = F.normalize(torch.cat([z_a, z_b]).double(), dim=1)
    similarity = (z @ z.T).fill_diagonal_(-torch.inf)
    anchors = torch.arange(len(z), device=z.device)
    return similarity, similarity[anchors, anchors.roll(len(z_a))]


def _at_least_two(num_images: int) -> int:
    if num_images < 2:
        raise DataError(
            f"an image is contrasted with others, so at least 2 are needed, got {num_images}."
        )
    return num_images
