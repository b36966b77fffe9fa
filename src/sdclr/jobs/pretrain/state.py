"""Convert a training to a checkpoint and back: weights, norms, masks, optimiser moments, the epoch's loss so far."""

from __future__ import annotations

from torch import Tensor

from sdclr.compute.optim import restore_state, state_names, state_of
from sdclr.errors import CheckpointError, ConfigError, NonFiniteError
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.storage.checkpoint import Checkpoint
from sdclr.storage.named_tensors import first_not_finite, load_strictly


def to_checkpoint(training: Training, state: TrainingState, metrics_size: int) -> Checkpoint:
    """``metrics_size``: bytes of metrics.jsonl that belong to it. Raises NonFiniteError for a state with non-finite
    numbers, from which no run can resume."""
    tensors = {f"method.{name}": tensor for name, tensor in training.method.state_dict().items()}
    moments = state_of(training.optimizer)
    tensors |= {
        f"optimizer.{name}": value for name, value in moments.items() if isinstance(value, Tensor)
    }
    tensors["loss_sum"] = state.loss_sum
    numbers = {name: value for name, value in moments.items() if not isinstance(value, Tensor)}
    if name := first_not_finite(tensors):
        raise _not_finite(training, state, name)
    facts = {
        "config": training.config.to_dict(),
        "optimizer": numbers,
        "metrics_size": metrics_size,
    }
    return Checkpoint(state.step, tensors, facts)


def _not_finite(training: Training, state: TrainingState, name: str) -> NonFiniteError:
    if state.step == 0:
        return NonFiniteError(
            f"{name} holds a number that is not finite before the first step: the network cannot be trained from "
            "there. Start from other weights."
        )
    return NonFiniteError(
        f"{name} holds a number that is not finite at step {state.step} (learning rate "
        f"{training.learning_rate(state.step):.3g}), though the loss was finite; nothing of it was saved. Lower "
        "optimizer.learning_rate or lengthen optimizer.warmup_epochs, in a new --out."
    )


def restore(training: Training, state: TrainingState, checkpoint: Checkpoint, where: str) -> None:
    """Load a checkpoint into the parts of a training; ``where`` names it in errors.

    Raises CheckpointError if it is not from such a run, and ConfigError if it was made with other settings.
    """
    if missing := {"config", "optimizer", "metrics_size"} - checkpoint.facts.keys():
        raise CheckpointError(f"{where} is not of a run: it has no {', '.join(sorted(missing))}.")
    parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimizer": {}, "loss_sum": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    if differences := training.config.differences(checkpoint.facts["config"]):
        raise ConfigError(
            f"{where} was made with other settings (made with -> now):\n  "
            + "\n  ".join(differences)
            + "\nPut the settings back in config.yaml, or start a new run in another --out."
        )
    load_strictly(training.method, parts["method"], where)
    optimizer = training.config.optimizer
    # there are none before the first step
    names = state_names(optimizer.name, optimizer.momentum) if checkpoint.step else ()
    restore_state(
        training.optimizer, parts["optimizer"] | checkpoint.facts["optimizer"], names, where
    )
    if "" not in parts["loss_sum"] or parts["loss_sum"][""].shape != ():
        raise CheckpointError(f"{where} has no loss_sum.")
    state.loss_sum.copy_(parts["loss_sum"][""])
    state.step = checkpoint.step
