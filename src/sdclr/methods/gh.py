"""GH, geometric harmonization (Zhou, Yao, Hong, Zhang, Wang, NeurIPS 2023): soft labels over a fixed
simplex of directions, balanced by how many images are nearest to each.

N training images, B images of this process's shard of a batch, K directions, D projection dim.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.batch import Share, Views
from sdclr.compute.stateless_random import Stream, derive
from sdclr.errors import ConfigError
from sdclr.methods.around import MethodAround, build_base, projection_dim_of
from sdclr.methods.config import GHConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.method import Parts
from sdclr.processes.exchange import gather_rows

Variant = Literal["cifar", "imagenet"]

_SOFTMAX_TEMPERATURE = 0.1
_EPSILON = 0.05
"""Divides scores before Sinkhorn's rounds."""
_ROUNDS = 300
_IMAGENET_COUNT = 100
"""Added to every direction's count in the ImageNet variant."""
_IMAGENET_MEMORY_EPOCH = 10
"""The epoch (from 1) in which the ImageNet variant's memory starts."""


def simplex(num: int, dim: int, seed: int) -> Tensor:
    """Directions [K, D] in float64 with a cosine of -1 / (K - 1) between any two; K <= D.

    >>> (simplex(3, 4, seed=0) @ simplex(3, 4, seed=0).T).round(decimals=6)
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    if not 2 <= num <= dim:
        raise ConfigError(
            f"method.num_directions must be from 2 to the projection's size {dim}, got {num}. Lower "
            "it, or raise method.base.projection_dim."
        )
    random = torch.Generator().manual_seed(derive(seed, Stream.DIRECTIONS))
    gaussian = torch.randn(num, dim, generator=random, dtype=torch.float64)
    left, _, right = torch.linalg.svd(gaussian, full_matrices=False)
    orthonormal = left @ right  # [K, D]
    centred = orthonormal - orthonormal.mean(dim=0)
    return math.sqrt(num / (num - 1)) * centred


def scores(z: Tensor, directions: Tensor) -> Tensor:
    """Products of projections [B, D] with the directions, normalised to length 1, [B, K]."""
    with torch.autocast(z.device.type, enabled=False):
        return F.normalize(z.to(directions.dtype) @ directions.T, dim=1)


@torch.library.custom_op("sdclr::sinkhorn", mutates_args=())
def sinkhorn(scores: Tensor, prior: Tensor, rounds: int) -> Tensor:
    """Soft labels [B, K] from scores [B, K]: each image's sum to 1, their mean tends to ``prior`` [K].

    A single operation for compilers, which would otherwise unroll every round.
    """
    kernel = (scores / _EPSILON).exp().T.contiguous()  # [K, B]
    target, share = prior / prior.sum(), 1 / len(scores)
    columns = kernel.new_full((len(scores),), share)
    rows = target
    for _ in range(rounds):
        rows = target / (kernel @ columns)
        columns = share / (kernel.T @ rows)
    return (len(scores) * rows[:, None] * kernel * columns).T.contiguous()


@sinkhorn.register_fake
def _(scores: Tensor, prior: Tensor, rounds: int) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


def gh_losses(
    scores_a: Tensor, scores_b: Tensor, prior: Tensor, share: Share | None = None, rounds: int = 300
) -> Tensor:
    """Cross-entropy of each view's scores [B, K] with the other's soft labels, summed over both ways, [B].

    The gradient flows through the scores but not through the labels, which are computed from the
    whole batch of all processes.
    """
    losses = scores_a.new_zeros(len(scores_a))
    for labelling, labelled in ((scores_a, scores_b), (scores_b, scores_a)):
        own = labelling.detach()
        if share is None:
            labels = sinkhorn(own, prior, rounds)
        else:
            labels = sinkhorn(gather_rows(own, share), prior, rounds)
            labels = labels[share.first : share.first + len(own)]
        log_likelihood = F.log_softmax(labelled / _SOFTMAX_TEMPERATURE, dim=1)
        losses = losses - (labels * log_likelihood).sum(dim=1)
    return losses


def nearest_share(memory: Tensor, added_count: int = 0) -> Tensor:
    """Share [K] of the images whose memory [N, K] is largest at each direction.

    Images with an empty memory do not count; if all are empty, all shares are equal.
    """
    met = memory.any(dim=1).to(memory.dtype)
    counts = memory.new_full((memory.shape[1],), float(added_count))
    counts = counts.scatter_add(0, memory.argmax(dim=1), met)
    return torch.where(counts.sum() > 0, counts / counts.sum(), 1 / len(counts))


class GH(MethodAround):
    """``base`` and GH's loss, which starts after ``warmup_epochs`` and reaches its weight 1
    ``ramp_epochs`` later.

    ``variant``: ``cifar`` updates its memory from the first epoch on, and recomputes the prior after
    every batch of every ``rebuild_every_epochs``-th epoch, starting with epoch ``warmup_epochs``;
    ``imagenet`` updates it from the tenth (or the first computation of the prior, if that is earlier),
    and recomputes the prior at the end of such epochs, starting one earlier, with 100 added to every
    count.
    """

    directions: Tensor
    """[K, D], never trained."""
    score_memory: Tensor
    """[N, K]: average of the scores of view a; zeros for an image that was not seen."""
    prior: Tensor
    """[K]."""
    weight: Tensor
    keep: Tensor
    """Share of an image's memory that is kept in an update."""
    remembers: Tensor
    """Scalar bool: whether this epoch's scores update the memory."""
    rebuilds: Tensor
    """Scalar bool: whether the prior is recomputed after every batch of this epoch."""
    num_batches: Tensor
    """Batches done in this epoch."""

    def __init__(
        self,
        base: ContrastiveMethod,
        directions: Tensor,
        num_images: int,
        *,
        warmup_epochs: int,
        ramp_epochs: int = 10,
        rebuild_every_epochs: int = 20,
        keep: float = 0.9,
        keep_after: float = 0.999,
        variant: Variant = "cifar",
    ) -> None:
        super().__init__(base)
        self.warmup_epochs, self.ramp_epochs = warmup_epochs, ramp_epochs
        self.num_epochs: int | None = None
        self.rebuild_every_epochs, self.variant = rebuild_every_epochs, variant
        self.keep_before, self.keep_after = keep, keep_after
        num = len(directions)
        self.register_buffer("directions", directions.to(torch.get_default_dtype()))
        self.register_per_image("score_memory", torch.zeros(num_images, num))
        self.register_buffer("prior", torch.full((num,), 1 / num))
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("keep", torch.tensor(keep))
        self.register_buffer("remembers", torch.zeros((), dtype=torch.bool))
        self.register_buffer("rebuilds", torch.zeros((), dtype=torch.bool))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_config(cls, config: GHConfig, parts: Parts) -> Self:
        warmup = max(config.earliest_warmup, round(config.warmup_share * parts.num_epochs))
        if warmup >= parts.num_epochs:
            raise ConfigError(
                f"GH's loss would set in after epoch {warmup}, and the run has {parts.num_epochs}. "
                "Lower method.warmup_share, or raise epochs."
            )
        dim = projection_dim_of(config.base)
        directions = simplex(config.num_directions, dim, parts.seed)
        names = {"ramp_epochs", "rebuild_every_epochs", "variant"}
        settings = config.model_dump(include=names)
        base = build_base(config.base, parts)
        made = cls(base, directions, parts.num_images, warmup_epochs=warmup, **settings)
        made.num_epochs = parts.num_epochs
        return made

    def on_epoch_start(self, epoch: int) -> None:
        super().on_epoch_start(epoch)
        number = epoch + 1
        late = number > self.warmup_epochs
        self.weight.fill_(min(max((number - self.warmup_epochs) / self.ramp_epochs, 0), 1))
        self.keep.fill_(self.keep_after if late else self.keep_before)
        first = 1 if self.variant == "cifar" else min(_IMAGENET_MEMORY_EPOCH, self._first_rebuild)
        self.remembers.fill_(number >= first)
        self.rebuilds.fill_(self.variant == "cifar" and self._is_rebuilt_in(number))
        self.num_batches.zero_()

    def on_epoch_end(self, epoch: int) -> None:
        super().on_epoch_end(epoch)
        if self._is_rebuilt_in(epoch + 1):
            self.prior.copy_(self._found_prior())

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        losses = super().losses(z_a, z_b, views)
        if self.variant == "cifar":
            # only now do all processes have the rows of the previous batch
            after_a_batch = self.rebuilds & (self.num_batches > 0)
            self.prior.copy_(torch.where(after_a_batch, self._found_prior(), self.prior))
        scores_a, scores_b = (scores(z, self.directions) for z in (z_a, z_b))
        self._remember(scores_a.detach(), views.index)
        self.num_batches += 1
        added = gh_losses(scores_a, scores_b, self.prior.clone(), views.share, _ROUNDS)
        return losses + self.weight.clone() * added

    def measurements(self) -> dict[str, Tensor]:
        """The weight of GH's loss in this epoch, and the largest share of the prior that the next one starts with."""
        own = {"gh_weight": self.weight, "largest_prior": self.prior.max()}
        return {**super().measurements(), **own}

    def describe(self, config: GHConfig) -> list[str]:
        line = (
            f"GH: its loss sets in after epoch {self.warmup_epochs} and has its whole weight "
            f"{self.ramp_epochs} epochs later"
        )
        left = self.ramp_epochs if self.num_epochs is None else self.num_epochs - self.warmup_epochs
        if left < self.ramp_epochs:
            line += f", which this run does not reach: {left / self.ramp_epochs:.2g} of it in the last epoch"
        return [*super().describe(config), line]

    @property
    def _first_rebuild(self) -> int:
        """The first epoch (from 1) in which the prior is computed."""
        return self.warmup_epochs - (self.variant == "imagenet")

    def _is_rebuilt_in(self, number: int) -> bool:
        since = number - self._first_rebuild
        return since >= 0 and since % self.rebuild_every_epochs == 0

    def _found_prior(self) -> Tensor:
        added = _IMAGENET_COUNT if self.variant == "imagenet" else 0
        return nearest_share(self.score_memory, added)

    @torch.no_grad()
    def _remember(self, own: Tensor, index: Tensor) -> None:
        before = self.score_memory[index]
        met = before.any(dim=1, keepdim=True)
        average = torch.where(met, self.keep * before + (1 - self.keep) * own, own)
        self.score_memory[index] = torch.where(self.remembers, average, before)
