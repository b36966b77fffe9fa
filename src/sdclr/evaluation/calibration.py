"""Measure the calibration of confidences, and correct it by temperature scaling (Guo et al., ICML 2017).

N images, C classes. Dividing all logits by a temperature changes no prediction, only its confidence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import require_finite

BINS = 15
"""Number of bins, of equal width, as in the paper."""


class Temperature(NamedTuple):
    """The divisor of the logits."""

    value: float
    problem: str
    """Why there is no optimal temperature, in words; ``value`` is then 1. Empty if there is one."""


def fit_temperature(logits: Tensor, labels: Tensor) -> Temperature:
    """The temperature at which the mean negative log-likelihood is smallest.

    ``logits`` [N, C], ``labels`` int64 [N], of images that were not trained on. The negative log-likelihood is convex
    in 1 / T, and L-BFGS finds its minimum in fp64. There is no minimum in two cases, reported in ``problem``: if every
    image is predicted correctly (more confidence is always better), and if the logits carry no information about the
    labels (less confidence is always better). Raises DataError without images and NonFiniteError for logits that are
    not finite.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    >>> found = fit_temperature(logits, torch.tensor([0, 0, 1, 1]))     # right in 3 of 4
    >>> round(found.value, 3), round(float((logits / found.value).softmax(1).max()), 3)
    (1.82, 0.75)
    """
    if not len(logits):
        raise DataError("a temperature is fitted to validation images, and there are none.")
    require_finite(logits, "logits of image {}".format)
    logits, labels = logits.double(), labels.long()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    if (own - logits.mean(dim=1)).mean() <= 0:
        return Temperature(1.0, "the logits say nothing about the validation labels")
    if (own >= others).all():  # with a tie, too, the likelihood only grows as T falls
        tie = "" if (own > others).all() else ", but for ties"
        return Temperature(1.0, f"every validation image is predicted right{tie}")
    # rescaled, so that the search's tolerances hold for logits of any size
    scale = (logits - logits.mean(dim=1, keepdim=True)).abs().mean()
    logits = logits / scale
    log_inverse = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [log_inverse],
        max_iter=200,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(logits * log_inverse.exp(), labels)
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(objective)
    return Temperature(float(scale * (-log_inverse.detach()).exp()), "")


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy, over bins of the confidence, weighted by their images.

    ``probabilities`` [N, C], ``labels`` int64 [N]. Bins are (low, high], of equal width. In [0, 1], lower is better.
    Raises DataError without images, if the numbers of labels and probabilities differ, and for probabilities outside
    [0, 1].

    >>> round(expected_calibration_error(torch.tensor([[0.9, 0.1]] * 2), torch.tensor([0, 1])), 6)
    0.4
    """
    if not 0 < len(probabilities) == len(labels):
        raise DataError(
            f"each of at least one image needs probabilities and a label, got {len(probabilities)} and {len(labels)}."
        )
    if not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()):
        raise DataError("probabilities must be in [0, 1].")
    confidence, predicted = probabilities.double().max(dim=1)
    right = (predicted == labels).double()
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - right)
    return float(gaps.abs().sum() / len(labels))
