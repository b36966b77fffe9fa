"""When a run's checkpoints are written, including before an error, so that no training is lost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

from sdclr.batch import Views
from sdclr.errors import DataError, MissingInputError, SdclrError, StorageError
from sdclr.jobs.pretrain.checkpoint_writer import CheckpointWriter
from sdclr.jobs.pretrain.state import to_checkpoint
from sdclr.jobs.pretrain.step import require_finite
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.run import Run
from sdclr.run.next_step import next_command

EPOCHS_BETWEEN_SAVES = 10
SAVING_SHARE = 0.02
"""The largest share of a run's time spent on saving if checkpoint_every_epochs is not set."""


class CheckpointSchedule:
    """When the checkpoints of one run are written. Only the first process writes, since all have the same state."""

    def __init__(self, training: Training, state: TrainingState, writer: CheckpointWriter) -> None:
        self.training, self.state, self._writer = training, state, writer
        # the last save: its step, when it was, and how long the loop waited for it
        self.last_saved_step, self.at_seconds, self.cost_seconds = 0, time.monotonic(), 0.0

    def save(self, run: Run, *, read_back: bool = False) -> None:
        """Write a checkpoint of the current step, or pass it to the writer thread."""
        begun = time.monotonic()
        require_finite(self.training, self.state)
        if not self.training.world.is_first:
            return
        run.require_in_place()
        checkpoint = to_checkpoint(self.training, self.state, run.metrics_file.size())
        self._writer.write(run.checkpoints, checkpoint, read_back=read_back)
        self.last_saved_step, self.at_seconds = self.state.step, time.monotonic()
        self.cost_seconds = self.at_seconds - begun

    def check(self) -> None:
        """Raise the error of a write in flight, if it has failed; does not wait for it."""
        self._writer.check()

    def wait(self) -> None:
        """Wait until every checkpoint is on the disk. Raises what CheckpointFolder.save does."""
        self._writer.wait()

    def due(self) -> bool:
        """At the end of an epoch: whether checkpoint_every_epochs is reached or, by default, ten epochs have passed and
        the cost of the last save is within SAVING_SHARE."""
        steps_per_epoch = self.training.steps_per_epoch
        epochs = self.state.step // steps_per_epoch
        every = self.training.config.checkpoint_every_epochs
        if every is not None:
            return epochs % every == 0
        paid_off = time.monotonic() - self.at_seconds >= self.cost_seconds / SAVING_SHARE
        return paid_off and epochs - self.last_saved_step // steps_per_epoch >= EPOCHS_BETWEEN_SAVES

    def overdue(self) -> bool:
        """After any step: whether the last save is longer ago than checkpoint_every_minutes."""
        return (
            time.monotonic() - self.at_seconds > 60 * self.training.config.checkpoint_every_minutes
        )

    def before_errors(self, batches: Iterator[Views], run: Run) -> Iterator[Views]:
        """The same batches; if the data fail (an image has vanished), a checkpoint is saved before the error."""
        try:
            yield from batches
        except (DataError, MissingInputError, StorageError, OSError) as error:
            # other processes write nothing; the first one is then in the middle of a step
            if self.training.world.is_first:
                self._save_before(error, run)
            raise

    def _save_before(self, error: Exception, run: Run) -> None:
        try:
            self.save(run)
            self.wait()
        except SdclrError as another:
            warnings.warn(
                f"what was trained since step {self.last_saved_step} is not saved: {another}",
                stacklevel=2,
            )
            return
        if isinstance(error, SdclrError):
            again = next_command(run, "preempted")
            up_to = f"Everything up to step {self.state.step} is saved; fix this, then continue with: {again}"
            error.args = (f"{error} {up_to}",)
