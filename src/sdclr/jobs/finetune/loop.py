"""The epochs of a fine-tuning: train, validate, keep the best, save, stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.any_progress import AnyProgress
from sdclr.data.splits import Positions
from sdclr.errors import NonFiniteError, Preempted
from sdclr.jobs.finetune.training import (
    WARMUP_SHARE,
    State,
    Training,
    to_checkpoint,
    train_step,
    weights_of,
)
from sdclr.processes.signals import StopRequest
from sdclr.run import Run
from sdclr.safe_text import command, shown

SMALLER_LOSS = 0.99
"""A validation loss below this share of the smallest so far resets the patience of early stopping."""


class Validated(NamedTuple):
    """One measurement on the validation images."""

    loss: float
    accuracy: float
    balanced_accuracy: float
    """Mean over the classes that have validation images."""


def train(
    training: Training,
    state: State,
    run: Run,
    stop: StopRequest,
    show: AnyProgress,
    validation_logits: Callable[[], Tensor] | None,
    validation_labels: Positions,
) -> None:
    """Train from the step of ``state`` to the last epoch, or until early stopping.

    Raises Preempted after a stop request, with everything saved.
    """
    config, per_epoch = training.config, training.steps_per_epoch
    state.stop = stop
    task = show.add(
        f"fine-tuning {run.folder}", total=training.total_steps, unit="steps", done=state.step
    )
    first_epoch = state.step // per_epoch
    for epoch in range(first_epoch, config.epochs):
        if is_to_stop_early(training, state):
            break
        began, first = time.perf_counter(), state.step % per_epoch
        if first == 0:
            state.loss_sum.zero_()
        training.to_train()
        with closing(training.inputs(epoch, first)) as inputs:
            for images, labels in inputs:
                train_step(training, state, images, labels)
                show.advance(task)
                if state.step % per_epoch and state.is_to_stop(training.sharing):
                    _require_finite(training, state, run.folder)
                    _save(training, state, run)
                    raise _stopped(training, state, run, stop)
        _require_finite(training, state, run.folder)
        validated = None
        if validation_logits is not None:
            validated = measured(validation_logits(), validation_labels)
        _keep_the_best(training, state, epoch + 1, validated)
        note = _record(training, state, run, epoch + 1, validated, time.perf_counter() - began)
        show.advance(task, 0, note=note)
        _save(training, state, run)
        if state.is_to_stop(training.sharing, now=True) and epoch + 1 < config.epochs:
            raise _stopped(training, state, run, stop)
        if not training.is_shared:
            training.world.messages.raise_failure()  # of processes that wait, or were stopped
    show.finish(task, f"epoch {state.best_epoch} kept")


def is_to_stop_early(training: Training, state: State) -> bool:
    """Whether the warm-up is over and too many epochs have passed without a better one or a clearly smaller loss."""
    longest = training.config.early_stop_epochs
    if longest == 0 or state.best_score is None:
        return False
    if state.step < WARMUP_SHARE * training.total_steps:
        return False
    epochs = state.step // training.steps_per_epoch
    return epochs - max(state.best_epoch, state.least_loss_epoch) >= longest


def measured(logits: Tensor, labels: Positions) -> Validated:
    """Loss and accuracies of logits [N, C] on the CPU."""
    truth = torch.from_numpy(labels)
    right = (logits.argmax(dim=1) == truth).numpy()
    totals = np.bincount(labels)
    per_class = np.bincount(labels, weights=right)[totals > 0] / totals[totals > 0]
    loss = float(F.cross_entropy(logits.double(), truth))
    return Validated(loss, float(right.mean()), float(per_class.mean()))


def _keep_the_best(
    training: Training, state: State, epoch: int, validated: Validated | None
) -> None:
    """Keep the best epoch by balanced accuracy, then by smaller loss; without validation images the last."""
    score = None if validated is None else (validated.balanced_accuracy, -validated.loss)
    if score is None or state.best_score is None or score > state.best_score:
        state.best = {name: one.detach().clone() for name, one in weights_of(training).items()}
        state.best_epoch, state.best_score = epoch, score
    if validated is None:
        return
    # with few validation images the accuracy moves in jumps, and a lucky epoch is not surpassed for long
    if state.least_loss is None or validated.loss < SMALLER_LOSS * state.least_loss:
        state.least_loss, state.least_loss_epoch = validated.loss, epoch


def _record(
    training: Training,
    state: State,
    run: Run,
    epoch: int,
    validated: Validated | None,
    seconds: float,
) -> str:
    loss = float(state.loss_sum) / len(training.labels)
    line = {"epoch": epoch, "step": state.step, "loss": loss}
    line |= {"learning_rate": training.optimizer.param_groups[0]["lr"], "seconds": seconds}
    note = f"loss {loss:.3f}, epoch {epoch}/{training.config.epochs}"
    if validated is not None:
        line |= {f"validation_{name}": value for name, value in validated._asdict().items()}
        note += f", validation {validated.balanced_accuracy:.1%} balanced"
    if training.world.is_first:
        run.require_in_place()
        run.metrics_file.append(line)
    return note


def _save(training: Training, state: State, run: Run) -> None:
    if training.world.is_first:  # it writes for all processes
        run.require_in_place()
        run.checkpoints.save(to_checkpoint(training, state, run.metrics_file.size()))


def _require_finite(training: Training, state: State, folder: Path) -> None:
    if bool(state.finite):
        return
    raise NonFiniteError(
        f"the loss is not a finite number in epoch {state.step // training.steps_per_epoch}; nothing of that epoch was "
        f"saved in {shown(folder)}. Lower --head-lr (and --backbone-lr), or use --precision fp32, in a new --out."
    )


def _stopped(training: Training, state: State, run: Run, stop: StopRequest) -> Preempted:
    signal = stop.signal_name or "a signal to another process"
    return Preempted(
        f"stopped by {signal} at step {state.step} of {training.total_steps}, everything saved. Give the "
        f"same command again to continue: sdclr finetune ... {command('--out', run.folder)}"
    )
