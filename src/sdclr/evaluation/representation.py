"""Measures of features without labels: how many directions they use, and whether views of one image agree.

N images, F feature dim. No number here shows by itself that a representation is good: compare it with
the same number for the untrained network, on the same images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import of_length_one, require_finite


def effective_rank(features: Tensor) -> float:
    """Number of directions that features [N, F] use: exp of the entropy of their singular values.

    RankMe (Garrido et al., ICML 2023, Eq. 1) on centred features; between 1 and min(N - 1, F). 1.0
    if all rows are equal. Raises NonFiniteError for numbers that are not finite.

    >>> effective_rank(torch.eye(4))
    3.0
    """
    return rank_of(spectrum(features))


def spectrum(features: Tensor) -> Tensor:
    """Singular values of centred features [N, F], float64, descending; NonFiniteError as above.

    >>> spectrum(torch.tensor([[3.0, 0.0], [-3.0, 0.0]])).round(decimals=3).tolist()
    [4.243, 0.0]
    """
    require_finite(features)
    return torch.linalg.svdvals(features.double() - features.double().mean(dim=0))


def rank_of(singular: Tensor) -> float:
    """exp of the entropy of singular values, divided by their sum; 1.0 if all are zero.

    >>> rank_of(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    if float(singular.sum()) <= 1e-12:
        return 1.0
    shares = singular / singular.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return round(float(entropy.exp()), 6)


def view_distances(views_a: Tensor, views_b: Tensor) -> Tensor:
    """Squared distance of the normalised features of two views of each image, [N] in [0, 4].

    Its mean is the alignment of Wang and Isola (ICML 2020); 2 if the views are orthogonal.

    >>> view_distances(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
    tensor([2.])
    """
    a, b = _normalised(views_a, views_b)
    return (a - b).square().sum(dim=1)


def views_that_find_their_partner(views_a: Tensor, views_b: Tensor) -> Tensor:
    """Whether, of all views b, the one of the same image is the nearest to view a: bool [N].

    By chance this holds for one image in N. If several are equally near, it does not hold.

    >>> views_that_find_their_partner(torch.eye(3), torch.eye(3)).tolist()
    [True, True, True]
    """
    a, b = _normalised(views_a, views_b)
    similarity = a @ b.T
    own = similarity.diagonal().clone()
    similarity.fill_diagonal_(-torch.inf)
    return own > similarity.max(dim=1).values


def nearest(features: Tensor, rows: Tensor, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """For each of ``rows``, the nearest other rows by cosine: positions and similarities.

    Both [len(rows), k] with k = ``num_neighbours``, nearest first.
    """
    normalised = of_length_one(features.double())
    similarity = normalised[rows] @ normalised.T
    similarity[torch.arange(len(rows)), rows] = -torch.inf
    values, positions = similarity.topk(min(num_neighbours, len(features) - 1), dim=1)
    return positions, values


def _normalised(views_a: Tensor, views_b: Tensor) -> tuple[Tensor, Tensor]:
    if views_a.shape != views_b.shape or views_a.ndim != 2 or not len(views_a):
        raise DataError(
            f"two views need features of one shape [N, F], got {tuple(views_a.shape)} and {tuple(views_b.shape)}."
        )
    require_finite(views_a, "view a of image {}".format)
    require_finite(views_b, "view b of image {}".format)
    return of_length_one(views_a), of_length_one(views_b)
