"""RUN/image_records.f32: what every epoch recorded of each image, and at the end the same as a table."""

from __future__ import annotations

from collections.abc import Sequence

from sdclr.image_records import append_records, write_table
from sdclr.observers.observer import EpochDone, Observer
from sdclr.run import Run


class ImageRecordsFile(Observer):
    """Writes the records of an epoch before its checkpoint, which depends on them."""

    required = True

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        """``names``: those of the N training images."""
        self._run, self._names = run, names

    def on_epoch(self, done: EpochDone) -> None:
        if done.image_records is not None:
            append_records(self._run.folder, done.image_records)

    def on_end(self, done: EpochDone) -> None:
        if done.image_records is not None:
            write_table(self._run.folder, self._names)
