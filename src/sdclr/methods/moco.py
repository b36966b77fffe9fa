"""MoCo v2 (Chen, Fan, Girshick, He, 2020): keys from a momentum copy, a queue of negatives.

B images of this process's shard of a batch, D projection dim, K keys in the queue.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.methods.config import MoCoConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.frozen_copy import FrozenCopy
from sdclr.methods.method import Parts
from sdclr.methods.nt_xent import checked_temperature
from sdclr.processes.exchange import gather_rows


class MoCo(ContrastiveMethod):
    """Queries of view a from ``network``, keys of view b from its momentum copy.

    The loss of an image is -log of the softmax probability of its own key among it and the K keys
    of the queue, the latest keys of earlier batches. The queue starts with random directions, contains
    the keys of all processes, and is saved in checkpoints, like the copy. In eval mode neither changes.
    """

    queue: Tensor
    """[K, D], of length 1."""
    oldest: Tensor
    """Scalar: which row of the queue the next key replaces."""

    def __init__(
        self,
        network: nn.Module,
        projection_dim: int,
        *,
        temperature: float = 0.2,
        key_momentum: float = 0.999,
        queue_size: int = 4096,
    ) -> None:
        super().__init__()
        self.network = network
        self.key_network = FrozenCopy(network)
        self.temperature = checked_temperature(temperature)
        self.key_momentum = key_momentum
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_config(cls, config: MoCoConfig, parts: Parts) -> Self:
        network = parts.network(config.projector_layers, config.projection_dim)
        names = {"temperature", "key_momentum", "queue_size"}
        return cls(network, config.projection_dim, **config.model_dump(include=names))

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        queries = self.network(views.a)
        if self.training:
            self.key_network.move_towards(self.network, keep=self.key_momentum)
        return queries, self.key_network(views.b)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        with torch.autocast(z_a.device.type, enabled=False):
            query, key = (F.normalize(z.to(self.queue.dtype), dim=1) for z in (z_a, z_b))
            key = key.detach()
            own = (query * key).sum(dim=1, keepdim=True)  # [B, 1]
            # a clone, since the queue changes before the backward pass
            others = query @ self.queue.T.clone()  # [B, K]
            logits = torch.cat([own, others], dim=1) / self.temperature
            losses = logits.logsumexp(dim=1) - logits[:, 0]
        if self.training:
            self._enqueue(key if views.share is None else gather_rows(key, views.share))
        return losses

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys with those of the whole batch."""
        size = len(self.queue)
        keys = keys[-size:]
        place = (self.oldest + torch.arange(len(keys), device=keys.device)) % size
        self.queue[place] = keys
        self.oldest.copy_((self.oldest + len(keys)) % size)
