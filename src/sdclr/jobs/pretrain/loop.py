"""The epochs: when to refresh, save, log and stop. A single step is in step.py."""

from __future__ import annotations

import itertools
import time
import warnings
from contextlib import closing

import torch

from sdclr.compute.data_waits import DataWaits
from sdclr.errors import Preempted
from sdclr.jobs.pretrain import step
from sdclr.jobs.pretrain.checkpoint_schedule import CheckpointSchedule
from sdclr.jobs.pretrain.folder import save_backbone
from sdclr.jobs.pretrain.own_views import record_escapes
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods import ContrastiveMethod
from sdclr.methods.contract import StateGuard, measurements_of
from sdclr.observers import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.processes.signals import StopRequest
from sdclr.run import Run
from sdclr.run.next_step import next_command


def train(
    training: Training,
    state: TrainingState,
    run: Run,
    schedule: CheckpointSchedule,
    observer: Observer,
    label: str,
) -> None:
    """Train from the step of ``state`` to the last one; the host stays at most one step ahead of the device.

    Raises Preempted after a stop request, with everything saved.
    """
    config = training.config
    training.method.train()
    observer.on_begin(
        TrainingBegins(
            label,
            training.total_steps,
            state.step,
            config.epochs,
            config.to_dict(),
            str(run.folder),
        )
    )
    epochs = Epochs(training, state, run, schedule, observer)
    done, stop_requested = None, False
    for epoch in range(epochs.begun, config.epochs):
        clock = EpochClock(training.device)
        num_steps = epochs.steps(epoch, clock)
        done, stop_requested = epochs.end(epoch, num_steps, clock)
    assert done is not None
    schedule.wait()
    if training.world.is_first:
        run.require_in_place()
        save_backbone(training, state, run)
        _require_whole_metrics(run, config.epochs)
    observer.on_end(done)
    if stop_requested or (state.stop.signal_name and not training.world.several):
        raise Preempted(
            f"stopped by {_signal(state.stop)} after the last step: {run.folder} is finished."
        )


class Epochs:
    """The epochs of one session: the work before, between and after the steps of each."""

    def __init__(
        self,
        training: Training,
        state: TrainingState,
        run: Run,
        schedule: CheckpointSchedule,
        observer: Observer,
    ) -> None:
        self._training, self._state, self._run = training, state, run
        self._schedule, self._observer = schedule, observer
        self._guard = StateGuard(training.method)
        self.begun = state.step // training.steps_per_epoch
        """The first epoch of this session, which an earlier one may have started."""

    def steps(self, epoch: int, clock: EpochClock) -> int:
        """Run the remaining steps of an epoch; return how many there were."""
        training, state = self._training, self._state
        first = state.step % training.steps_per_epoch
        # the threads that decode ahead end with this block
        with closing(training.views(epoch, first)) as views_of_epoch:
            batches = clock.waits.of(self._schedule.before_errors(views_of_epoch, self._run))
            # before the epoch begins: if the data fail here, the end of the previous epoch is saved
            ahead = next(batches)
            if first == 0:
                self._begin(epoch)
            for views in itertools.chain([ahead], batches):
                step.train_step(training, state, views)
                self._after_step(epoch)
        return training.steps_per_epoch - first

    def _begin(self, epoch: int) -> None:
        method = self._training.method
        self._state.loss_sum.zero_()
        if isinstance(method, ContrastiveMethod):
            method.forget_records()
        method.on_epoch_start(epoch)
        self._guard.check("in on_epoch_start")

    def _after_step(self, epoch: int) -> None:
        """Report progress, save if overdue, and stop on request; at the end of an epoch :meth:`end` does so instead."""
        training, state, schedule = self._training, self._state, self._schedule
        # the short last batch compiles once more
        if training.compiled is None or epoch > self.begun:
            training.world.set_patience(training.config.patience_seconds)
        self._observer.on_step(StepDone(state.step))
        schedule.check()
        if state.step % training.steps_per_epoch == 0:
            return
        if state.is_to_stop(training.sharing):
            _stop(state, training, self._run, schedule)
        if training.world.is_first and schedule.overdue():
            schedule.save(self._run)

    def end(self, epoch: int, num_steps: int, clock: EpochClock) -> tuple[EpochDone, bool]:
        """Return the epoch's measurements and whether a stop was requested; save if a checkpoint is due."""
        training, state, schedule = self._training, self._state, self._schedule
        config, world = training.config, training.world
        self._guard.check("during an epoch")
        training.method.on_epoch_end(epoch)
        self._guard.check("in on_epoch_end")
        stop_requested = state.is_to_stop(training.sharing, now=True)
        step.require_finite(training, state)
        done = _measured(training, state, epoch, num_steps, clock)
        if world.is_first:
            self._run.require_in_place()
        self._observer.on_epoch(done)
        if world.is_first:
            _record_compiling(training, self._run)
            record_escapes(training, self._run)
        if stop_requested and epoch + 1 < config.epochs:
            _stop(state, training, self._run, schedule)
        is_last = epoch + 1 == config.epochs
        if is_last or (world.is_first and (schedule.due() or schedule.overdue())):
            schedule.save(self._run)
        return done, stop_requested


class EpochClock:
    """The duration of an epoch, and how much of it the steps waited for their views."""

    def __init__(self, device: torch.device) -> None:
        self.begun = time.perf_counter()
        self.waits = DataWaits(device)

    def seconds(self) -> float:
        return time.perf_counter() - self.begun


def _measured(
    training: Training, state: TrainingState, epoch: int, num_steps: int, clock: EpochClock
) -> EpochDone:
    """The measurements of an epoch; those of time only cover the steps of this session."""
    seconds = clock.seconds()
    num_views = 2 * len(training.images) * num_steps / training.steps_per_epoch
    measured = {
        "loss": state.mean_loss(training),
        "learning_rate": training.learning_rate(state.step),
        "views_per_second": num_views / seconds,
        "data_share": clock.waits.seconds() / seconds,
        "seconds": seconds,
        **measurements_of(training.method),
    }
    method = training.method
    records = method.epoch_records() if isinstance(method, ContrastiveMethod) else None
    return EpochDone(
        epoch + 1, training.config.epochs, state.step, measured, training.backbone, records
    )


def _record_compiling(training: Training, run: Run) -> None:
    """Record in environment.json if the method runs uncompiled because it does not compile."""
    if training.compiled is None or training.compiled.how == training.compile:
        return
    facts = run.read_json("environment.json")
    if facts.get("compile") != training.compiled.how:
        run.write_json("environment.json", facts | {"compile": training.compiled.how})


def _stop(state: TrainingState, training: Training, run: Run, schedule: CheckpointSchedule) -> None:
    schedule.save(run)
    schedule.wait()
    raise Preempted(
        f"stopped by {_signal(state.stop)} at step {state.step} of {training.total_steps}, everything saved. "
        f"Continue with: {next_command(run, 'preempted')}"
    )


def _signal(stop: StopRequest) -> str:
    return stop.signal_name or "a signal to another process"


def _require_whole_metrics(run: Run, epochs: int) -> None:
    """Warn if the metrics were removed or truncated while the run wrote them."""
    entries, damaged = run.metrics_file.sound()
    if len(entries) < epochs:
        warnings.warn(
            f"{run.metrics_path} holds {len(entries)} of {epochs} epochs"
            + (f" and {len(damaged)} damaged lines" if damaged else "")
            + ": it was removed or changed during the run. The curves of a report lack the rest.",
            stacklevel=3,
        )
