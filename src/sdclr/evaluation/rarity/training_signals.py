"""Scores from training signals: losses, COLT's mass, disagreement of the two branches.

N images, B of them in a batch, E epochs, V views, D projection dim. The inputs were recorded by a
run or recomputed from its checkpoint; no network is evaluated here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import DataError
from sdclr.image_records import moving_average


def loss(losses: Tensor) -> Tensor:
    """The last loss of each image, [N]. ``losses`` [E, N]; NaN where an epoch left it out.

    >>> nan = float("nan")
    >>> loss(torch.tensor([[1.0, 2.0], [3.0, nan]])).tolist()
    [3.0, 2.0]
    """
    _require_met(losses)
    last = losses[0].double().clone()
    for epoch in losses[1:].double():
        last = torch.where(epoch.isnan(), last, epoch)
    return last


def loss_average(losses: Tensor, momentum: float = 0.97) -> Tensor:
    """Exponential moving average of each image's loss (BCL, Zhou et al., ICML 2022), [N].

    m = L when an image is first seen, later m <- (1 - momentum) L + momentum m.

    >>> loss_average(torch.tensor([[1.0], [2.0]]), momentum=0.5).tolist()
    [1.5]
    """
    _require_met(losses)
    return moving_average(losses, momentum)


def hardest_mass_average(masses: Tensor, momentum: float = 0.97) -> Tensor:
    """COLT's memory: the moving average of each image's mass by epoch, [N]; LOW = tail.

    >>> hardest_mass_average(torch.tensor([[0.5], [1.5]]), momentum=0.5).tolist()
    [1.0]
    """
    _require_met(masses)
    return moving_average(masses, momentum)


def disagreement_by_cosine(target: Tensor, competitor: Tensor) -> Tensor:
    """1 - cosine between the dense and the pruned branch's projections, mean over views, [N].

    ``target``, ``competitor``: [V, N, D] of the same views.

    >>> x, y = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> disagreement_by_cosine(x, y).tolist(), disagreement_by_cosine(x, x).tolist()
    ([1.0], [0.0])
    """
    _require_same_shape(target, competitor)
    cosine = F.cosine_similarity(target.double(), competitor.double(), dim=-1)
    return 1 - cosine.mean(dim=0)


def disagreement_by_loss(target: Tensor, competitor: Tensor) -> Tensor:
    """Loss of the pruned branch minus that of the dense one, mean over views, [N].

    The images that pruning made harder are those the network had memorised (Jiang et al., ICML 2021).
    ``target``, ``competitor``: losses [V, N] of the same views.

    >>> disagreement_by_loss(torch.tensor([[1.0]]), torch.tensor([[1.5]])).tolist()
    [0.5]
    """
    _require_same_shape(target, competitor)
    return (competitor.double() - target.double()).mean(dim=0)


def disagreement_by_rank(target: Tensor, competitor: Tensor) -> Tensor:
    """How many places an image moves up when images are sorted by the pruned branch's loss, [N].

    In shares of N, mean over views; ties share their mean place. Unlike the loss itself it does not
    depend on how far pruning shifts all losses.

    >>> target, competitor = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 3.0]])
    >>> disagreement_by_rank(target, competitor).tolist()
    [0.5, -0.5]
    """
    _require_same_shape(target, competitor)
    return (_places(competitor) - _places(target)).mean(dim=0) / target.shape[1]


def _places(values: Tensor) -> Tensor:
    """Places [V, N] in each row, smallest first; ties get their mean place."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(values.double().numpy(), axis=1))


def _require_same_shape(target: Tensor, competitor: Tensor) -> None:
    if target.shape != competitor.shape or target.ndim < 2 or not len(target):
        shapes = f"{tuple(target.shape)} and {tuple(competitor.shape)}"
        raise DataError(f"both branches need the same views of the same images, got {shapes}.")
    if not (target.isfinite().all() and competitor.isfinite().all()):
        raise DataError(
            "a branch gave numbers that are not finite. Use weights from before a training diverged."
        )


def _require_met(values: Tensor) -> None:
    if values.ndim != 2 or not values.numel():
        raise DataError(f"records must be [epochs, images], got {tuple(values.shape)}.")
    if values.isinf().any():
        raise DataError(
            "records hold infinite numbers. Use epochs from before a training diverged."
        )
    if (never := values.isnan().all(dim=0)).any():
        raise DataError(
            f"{int(never.sum())} of {values.shape[1]} images have no record in any epoch, the first "
            f"of them in column {int(never.nonzero()[0])}. Record at least one epoch of all images."
        )
