"""NT-Xent of a batch spread over several processes: the same losses and gradients as on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdclr import nt_xent
from sdclr.batch import Share
from sdclr.methods import tiled_nt_xent
from sdclr.processes.world import World
from several_processes import on_each


def projections(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    z_a = torch.randn(batch, 6, generator=generator, dtype=torch.float64)
    return z_a, z_a + 0.3 * torch.randn(batch, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("size", "batch"), [(2, 7), (3, 8)])
@pytest.mark.processes
def test_shares_give_the_losses_and_gradients_of_the_whole_batch(
    tmp_path: Path, size: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_nt_xent, "ROWS", 3)  # more than one tile
    weights = torch.linspace(0.1, 1, batch, dtype=torch.float64)  # every image counts differently
    whole = [z.clone().requires_grad_() for z in projections(batch)]
    losses = nt_xent(*whole, 0.2)
    expected = torch.autograd.grad((losses * weights).sum(), whole)

    def compute(rank: int) -> tuple[Tensor, ...]:
        world = World(rank, size)
        share = world.share(batch)
        own = [world.shard(z).clone().requires_grad_() for z in projections(batch)]
        losses = nt_xent(*own, 0.2, share)
        return losses.detach(), *torch.autograd.grad((losses * world.shard(weights)).sum(), own)

    found = [torch.cat(parts) for parts in zip(*on_each(size, tmp_path, compute), strict=True)]
    for one, other in zip(found, (losses.detach(), *expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("total", [3, 8, 413])
def test_shares_are_consecutive_and_differ_by_one_image_at_most(total: int) -> None:
    worlds, batch = [World(rank, 3) for rank in range(3)], torch.arange(total)
    parts = [world.shard(batch) for world in worlds]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [world.share(total) for world in worlds] == [
        Share(int(part[0]), total) for part in parts
    ]
    assert World().share(total) is None
    assert World().shard(batch) is batch
