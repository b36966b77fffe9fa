"""What a run's networks make of its own images: losses, masses and projections over several views.

The runs are made without record_images; these are made again from the newest checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarebench.encoders import trained
from rarebench.sets import Collection
from sdclr import PretrainConfig, nt_xent
from sdclr.compute.stateless_random import permutation
from sdclr.evaluation.rarity import Evidence
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.state import restore
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.hardest_mass import hardest_mass
from sdclr.presentation.progress import NoProgress
from sdclr.storage.checkpoint import CheckpointFolder

ROUNDS = 4
"""Pairs of views of each image, every time in other batches."""
BATCH = 128
TEMPERATURE = 0.2


def records_of(method: str, collection: Collection) -> Evidence:
    """Evidence without features; a method without a competitor lacks some."""
    training = _restored(method, collection)
    competitor = getattr(training.method, "competitor", None)
    networks = {"": training.method.network, "competitor_": competitor}
    found: dict[str, list[Tensor]] = {}
    for prefix, network in networks.items():
        if network is not None:
            network.eval()
            for key in range(ROUNDS):
                for name, values in _round(training, network, key).items():
                    found.setdefault(prefix + name, []).append(values)
    stacked = {name: torch.stack(values) for name, values in found.items()}
    records = {
        "losses": stacked["view_losses"],
        "masses": stacked["masses"],
        "projections": stacked["projections"],
    }
    if competitor is not None:
        records["competitor_projections"] = stacked["competitor_projections"]
        records["view_losses"] = stacked["view_losses"]
        records["competitor_view_losses"] = stacked["competitor_view_losses"]
    return Evidence(**records)  # type: ignore[arg-type]


def _restored(method: str, collection: Collection) -> Training:
    run = trained(method, collection)
    training = build(PretrainConfig.from_yaml(run.config_path), show=NoProgress(), run=run)
    checkpoint = CheckpointFolder(run.folder / "checkpoints").newest()
    assert checkpoint is not None, f"{run.folder} has no checkpoint"
    restore(training, TrainingState.begin(training.device), checkpoint, str(run.folder))
    return training


@torch.no_grad()
def _round(training: Training, network: torch.nn.Module, key: int) -> dict[str, Tensor]:
    """One pair of views of every image, each [N] or [N, D]."""
    n = len(training.images)
    batches = [batch for batch in permutation(key, n).split(BATCH) if len(batch) > 1]
    loss, mass = torch.full((n,), torch.nan), torch.full((n,), torch.nan)
    projections: Tensor | None = None
    for views in training.images.views(
        batches, training.config.views.spec(), seed=1, epoch=10_000 + key
    ):
        z_a, z_b = network(views.a), network(views.b)
        if projections is None:
            projections = torch.zeros(n, z_a.shape[1])
        loss[views.index] = nt_xent(z_a, z_b, TEMPERATURE)
        mass[views.index] = hardest_mass(z_a, z_b, TEMPERATURE)
        projections[views.index] = z_a
    assert projections is not None
    return {"view_losses": loss, "masses": mass, "projections": projections}
