"""Shared parts of methods that contrast two projections of every image, and their per-image records.

N training images, B images of this process's shard of a batch, D projection dim.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.errors import ConfigError
from sdclr.image_records import COLUMNS
from sdclr.methods.config import Passes
from sdclr.methods.hardest_mass import hardest_mass
from sdclr.methods.method import Method
from sdclr.processes.exchange import gather_rows

_MASS_TEMPERATURE = 0.2


def in_one_pass(network: nn.Module, views: Views) -> tuple[Tensor, Tensor]:
    """Projections of both views from one pass, so that batch norm sees both, as in the reference; [B, D] each."""
    z_a, z_b = require_projections(network(torch.cat([views.a, views.b]))).chunk(2)
    return z_a, z_b


def require_projections(z: object) -> Tensor:
    """The output of a network. Raises ConfigError unless it is a tensor."""
    if not isinstance(z, Tensor):
        raise ConfigError(
            f"a network must return projections [B, D] as one tensor, got {type(z).__name__}. Wrap it in a module that "
            "returns that tensor alone."
        )
    return z


def checked_passes(passes: Passes) -> Passes:
    """Return ``passes``; raises ConfigError for any other value."""
    if passes not in get_args(Passes):
        raise ConfigError(f"passes must be joint or separate, got {passes!r}.")
    return passes


def in_passes(network: nn.Module, views: Views, passes: Passes) -> tuple[Tensor, Tensor]:
    """Projections of both views, [B, D] each.

    ``joint``: from one pass, where batch norm sees 2B images. ``separate``: from one pass per view,
    where it sees B images of one view, as in each branch of SDCLR.
    """
    if passes == "separate":
        return network(views.a), network(views.b)
    return in_one_pass(network, views)


class ContrastiveMethod(Method):
    """Two projections of every image, then a loss of them: a subclass defines both.

    >>> from torch import nn
    >>> from sdclr import nt_xent
    >>> class Mine(ContrastiveMethod):
    ...     def __init__(self, network):
    ...         super().__init__()
    ...         self.network = network
    ...     def project(self, views):
    ...         return self.network(views.a), self.network(views.b)
    ...     def losses(self, z_a, z_b, views):
    ...         return nt_xent(z_a, z_b, 0.2, views.share)
    >>> a, b = torch.rand(2, 5, 3, 2, 2)
    >>> Mine(nn.Flatten())(Views(a, b, torch.arange(5))).shape
    torch.Size([5])
    """

    image_records: Tensor
    """[N, 4]: image_records.COLUMNS, and 1 if the image was seen in this epoch; exists after start_recording."""

    def __init__(self) -> None:
        super().__init__()
        self.records_images = False

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        """The projections of view a and of view b, [B, D] each."""
        raise NotImplementedError

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        """Loss per image [B]."""
        raise NotImplementedError

    def forward(self, views: Views) -> Tensor:
        if not isinstance(views, Views):
            raise ConfigError(
                f"a method takes sdclr.Views(a, b, index), got {type(views).__name__}."
            )
        if len(views.a) != len(views.b):
            raise ConfigError(
                f"views of the same images are needed, got {len(views.a)} and {len(views.b)}."
            )
        z_a, z_b = map(require_projections, self.project(views))
        losses = self.losses(z_a, z_b, views)
        if self.records_images:
            self._record(losses.detach(), z_a.detach(), z_b.detach(), views)
        return losses

    def start_recording(self, num_images: int) -> None:
        """Start recording each training image; call once, before the first step."""
        self.records_images = True
        self.register_per_image("image_records", torch.zeros(num_images, len(COLUMNS) + 1))

    def forget_records(self) -> None:
        """Clear the records when an epoch begins."""
        if self.records_images:
            self.image_records.zero_()

    def epoch_records(self) -> Tensor | None:
        """image_records.COLUMNS of this epoch, float32 [N, 3] on the CPU, NaN for images that were not seen.

        None if nothing is recorded.
        """
        if not self.records_images:
            return None
        rows = self.image_records.float().cpu()
        return rows[:, :-1].masked_fill(rows[:, -1:] == 0, torch.nan)

    @torch.no_grad()
    def _record(self, losses: Tensor, z_a: Tensor, z_b: Tensor, views: Views) -> None:
        with torch.autocast(z_a.device.type, enabled=False):
            mass = self._hardest_mass(z_a.float(), z_b.float(), views)
            disagreement = 1 - F.cosine_similarity(z_a.float(), z_b.float(), dim=1)
        rows = torch.stack([losses.float(), mass, disagreement, torch.ones_like(mass)], dim=1)
        self.image_records[views.index] = rows.to(self.image_records.dtype)

    def _hardest_mass(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        share = views.share
        if (share.total if share else len(z_a)) < 2:  # a last batch of one image has no negatives
            return z_a.new_zeros(len(z_a))
        if share is None:
            return hardest_mass(z_a, z_b, _MASS_TEMPERATURE)
        own = range(share.first, share.first + len(z_a))
        whole_a, whole_b = gather_rows(z_a, share), gather_rows(z_b, share)
        return hardest_mass(whole_a, whole_b, _MASS_TEMPERATURE, rows=own)
