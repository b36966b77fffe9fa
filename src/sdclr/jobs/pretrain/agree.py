"""What several processes compare before the first step, and how they then train together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch

from sdclr.compute.device import autocast
from sdclr.config import differing_fields
from sdclr.errors import DistributedError
from sdclr.jobs.pretrain.step import laid_out
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.contract import require_use_of_share, unchanged_buffers
from sdclr.processes.exchange import averaging_gradients
from sdclr.processes.world import World
from sdclr.run.environment import own_version


def agree(training: Training, state: TrainingState) -> Training:
    """Join the other processes; raises DistributedError if versions, data or settings differ between them.

    Returns the training with a loss whose backward pass averages gradients; with one process, the same training.
    """
    world = training.world
    _require_the_same(training, state)
    # compiling takes minutes
    patience = world.start_seconds * (6 if training.compile else 1)
    world.connect(training.device, patience=patience)
    if not world.several:
        return training
    if training.compiled is not None:
        training.method.forward = training.compiled  # type: ignore[method-assign]
    together = training.with_loss(averaging_gradients(training.method))
    _rehearse(together, state)
    return together


def _require_the_same(training: Training, state: TrainingState) -> None:
    config = training.config
    facts = {
        "sdclr": own_version(),
        "torch": torch.__version__,
        "data": training.data.fingerprint,
        "images": len(training.images),
        "step": state.step,
        "precision": training.precision,
    }
    first = training.world.messages.broadcast("facts", facts | {"settings": config.to_dict()})
    differences = differing_fields({key: first[key] for key in facts}, facts)
    differences += config.differences(first["settings"])
    require_settings_of_first(training.world, differences)


def require_settings_of_first(world: World, differences: Sequence[str]) -> None:
    """DistributedError where there are ``differences`` from the first process, a line each."""
    if differences:
        raise DistributedError(
            f"process {world.rank} differs from process 0 (there -> here):\n  "
            + "\n  ".join(differences)
            + "\nEvery process needs the same package, settings and data, and the run folder on a shared file system."
        )


def _rehearse(training: Training, state: TrainingState) -> None:
    """One forward and backward pass that changes nothing.

    The gradient averaging rebuilds its buckets after its first pass, and their layout decides the order in which
    three or more processes are summed: a resumed run must use the layout it would have had.
    """
    method = training.method
    epoch, number = divmod(state.step, training.steps_per_epoch)
    method.train()
    with closing(training.views(epoch, number)) as batches:
        views = laid_out(training, next(batches))
    with unchanged_buffers(method):
        with autocast(training.device, training.precision):
            require_use_of_share(method, views)
            loss_per_image = training.loss_per_image(views)
        loss_per_image.sum().backward()
    training.optimizer.zero_grad(set_to_none=True)
