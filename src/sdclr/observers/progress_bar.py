"""Show the progress of a training."""

from __future__ import annotations

from sdclr.any_progress import AnyProgress
from sdclr.observers.observer import EpochDone, Observer, StepDone, TrainingBegins


class ProgressBar(Observer):
    """One task of ``show``, advanced with every step; its note is the last epoch's loss."""

    required = True  # a user who waits for a run must see it

    def __init__(self, show: AnyProgress) -> None:
        self._show = show
        self._task = 0

    def on_begin(self, begins: TrainingBegins) -> None:
        self._task = self._show.add(
            begins.label, total=begins.total_steps, unit="steps", done=begins.step
        )

    def on_step(self, done: StepDone) -> None:
        self._show.advance(self._task)

    def on_epoch(self, done: EpochDone) -> None:
        note = f"loss {done.measured['loss']:.3f}, epoch {done.epoch}/{done.num_epochs}"
        self._show.advance(
            self._task, 0, note=f"{note}, data {done.measured['data_share']:.0%} of the time"
        )

    def on_end(self, done: EpochDone) -> None:
        self._show.finish(self._task, f"loss {done.measured['loss']:.3f}")
