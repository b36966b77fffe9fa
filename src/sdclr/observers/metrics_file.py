"""RUN/metrics.jsonl: one line an epoch."""

from __future__ import annotations

from sdclr.observers.observer import EpochDone, Observer
from sdclr.run import Run


class MetricsFile(Observer):
    """Writes what an epoch measured. A checkpoint remembers how long the file was, so it must be written."""

    required = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_epoch(self, done: EpochDone) -> None:
        self._run.metrics_file.append({"epoch": done.epoch, "step": done.step, **done.measured})
