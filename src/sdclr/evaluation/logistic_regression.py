"""Multinomial logistic regression with an L2 penalty: scikit-learn's objective, by L-BFGS in torch.

N rows, F features, C classes, K columns of weights: C, or 1 for two classes, whose first score is 0. The objective is
mean log loss + |weights|² / (2 c N); intercepts are not penalised.

Features of a network are strongly correlated, and the more they are, the more steps L-BFGS takes.
So it works in other coordinates: along the principal axes of the features, each stretched by the curvature of
the objective along it when all classes are equally likely. The minimum is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 2048
"""Rows whose scores are in memory at once."""
TOLERANCE = 1e-4
"""Converged if no entry of the gradient is larger in the stretched coordinates, where it shows how much
the loss can still decrease for any features: by about half its square for each entry."""
PLAIN_TOLERANCE = 1e-4
"""Also converged if no entry is larger in the features' own coordinates, scikit-learn's criterion and default."""
COARSE = 5e-4
"""A ``tolerance`` sufficient to compare strengths."""
_STALLED = 1e-12
"""A smaller change of the loss is rounding."""


@dataclass(frozen=True)
class Weights:
    """The linear map from features to scores, in fp64 on the device that computed it."""

    weight: Tensor
    """[F, K]."""
    intercept: Tensor
    """[K]."""

    def scores(self, features: Tensor) -> Tensor:
        """[N, C] of fp32 features [N, F]; softmax makes them probabilities."""
        scores = torch.addmm(self.intercept.float(), features, self.weight.float())
        return F.pad(scores, (1, 0)) if scores.shape[1] == 1 else scores


@dataclass(frozen=True)
class Fit:
    """The result of the search."""

    weights: Weights
    converged: bool


@dataclass(frozen=True)
class _Value:
    """The objective at one point, with its gradient."""

    loss: Tensor
    weight: Tensor
    """[F, K]."""
    intercept: Tensor
    """[K]."""


class LogisticRegression:
    """The regression of labels on features, which can be fitted at several strengths in turn."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        """``features`` fp32 [N, F], standardised; ``labels`` int64 [N] in 0 .. C - 1, on the same device."""
        self.num_rows, self.num_features = features.shape
        self.num_columns = 1 if num_classes == 2 else num_classes
        self._parts = list(zip(features.split(ROWS), labels.split(ROWS), strict=True))
        self._axes, self._variances = principal_axes(features)
        # p (1 - p) when all classes are equally likely
        self._curvature = (num_classes - 1) / num_classes**2

    @torch.no_grad()
    def fit(
        self,
        c: float,
        start: Weights | None = None,
        max_iterations: int = 500,
        tolerance: float = TOLERANCE,
    ) -> Fit:
        """Minimise at inverse strength ``c``, from ``start`` or from zero."""
        penalty = 1 / (c * self.num_rows)
        stretch = (self._curvature * self._variances + penalty).rsqrt()[:, None]
        stretch_intercept = self._curvature**-0.5
        if start is None:
            shape = (len(self._variances) + 1, self.num_columns)
            point = torch.zeros(shape, dtype=torch.float64, device=self._axes.device)
        else:
            along = (self._axes.T @ start.weight) / stretch
            point = torch.cat([along, start.intercept[None] / stretch_intercept])
        point.requires_grad_()
        search = torch.optim.LBFGS(
            [point],
            max_iter=max_iterations,
            max_eval=2 * max_iterations + 1,
            tolerance_grad=tolerance,
            tolerance_change=_STALLED,
            line_search_fn="strong_wolfe",
        )

        def weights() -> Weights:
            here = point.detach()
            return Weights(self._axes @ (stretch * here[:-1]), stretch_intercept * here[-1])

        def stretched(value: _Value) -> Tensor:
            along = stretch * (self._axes.T @ value.weight)
            return torch.cat([along, stretch_intercept * value.intercept[None]])

        @torch.no_grad()
        def objective() -> Tensor:
            value = self._value(weights(), penalty)
            point.grad = stretched(value)
            return value.loss

        search.step(objective)
        found = weights()
        end = self._value(found, penalty)
        plain = torch.cat([end.weight, end.intercept[None]])
        converged = stretched(end).abs().max() <= tolerance or plain.abs().max() <= PLAIN_TOLERANCE
        return Fit(found, bool(converged))

    def _value(self, at: Weights, penalty: float) -> _Value:
        """The objective; sums over rows are in fp64, so that the line search can distinguish neighbouring points."""
        loss = torch.zeros((), dtype=torch.float64, device=at.weight.device)
        weight, intercept = torch.zeros_like(at.weight), torch.zeros_like(at.intercept)
        for features, labels in self._parts:
            scores = at.scores(features)
            largest = scores.amax(dim=1, keepdim=True)
            right = scores.gather(1, labels[:, None])
            probabilities = scores.sub_(largest).exp_()
            total = probabilities.sum(dim=1, keepdim=True)
            loss += (total.log() + largest - right).sum(dtype=torch.float64)
            residual = probabilities.div_(total)
            residual.scatter_add_(1, labels[:, None], torch.full_like(right, -1))
            residual = residual[:, -self.num_columns :]
            weight += features.T @ residual
            intercept += residual.sum(dim=0)
        return _Value(
            loss / self.num_rows + penalty / 2 * at.weight.square().sum(),
            weight / self.num_rows + penalty * at.weight,
            intercept / self.num_rows,
        )


def principal_axes(features: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal axes [F, R] and the mean square of features [N, F] along each one [R], in fp64.

    R is F, or less if there are fewer rows: the best weights are in the span of the rows.
    """
    num, dims = features.shape
    if num < dims:
        rows = features.double()
        variances, mixtures = torch.linalg.eigh(rows @ rows.T / num)
        kept = variances > 1e-10 * variances[-1]
        variances = variances[kept]
        return rows.T @ mixtures[:, kept] / (num * variances).sqrt(), variances
    moments = torch.zeros(dims, dims, dtype=torch.float64, device=features.device)
    for part in features.split(ROWS):
        moments += part.T @ part
    variances, axes = torch.linalg.eigh(moments / num)
    return axes, variances.clamp(min=0)
