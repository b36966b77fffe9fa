"""RUN/metrics.jsonl: one line per epoch."""

from __future__ import annotations

from sdclr.observers.observer import EpochDone, Observer
from sdclr.run import Run


class MetricsFile(Observer):
    """Writes an epoch's measurements. A checkpoint records the length of the file, so it must be written."""

    required = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_epoch(self, done: EpochDone) -> None:
        self._run.metrics_file.append({"epoch": done.epoch, "step": done.step, **done.measured})
