"""metrics.jsonl of a run folder: one line per epoch."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdclr.errors import DataError
from sdclr.run.records import Epoch, check
from sdclr.safe_text import shown
from sdclr.storage.documents import parse_json
from sdclr.storage.durable_files import append_line, storage_errors


@dataclass(frozen=True)
class MetricsFile:
    """The curves of a training, as stored on the disk."""

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """metrics.jsonl, one entry per epoch, in order; for an epoch that was repeated after a crash, the last.

        A damaged line is left out with a warning, and so is a whole file that cannot be read.
        """
        try:
            entries, damage = self.sound()
        except DataError as error:
            entries, damage = [], [str(error)]
        for line in damage[:3]:
            warnings.warn(f"{line} It is left out.", stacklevel=3)
        if len(damage) > 3:
            warnings.warn(f"{self.path}: {len(damage) - 3} more lines are damaged.", stacklevel=3)
        return entries

    def sound(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The entries of :meth:`entries`, and a sentence for each line that is damaged."""
        by_epoch: dict[int, dict[str, Any]] = {}
        damage: list[str] = []
        try:
            lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None
        for number, line in enumerate(lines, start=1):
            where = f"{self.path}, line {number},"
            try:
                entry = parse_json(line)
                check(Epoch, entry, where)
                by_epoch[entry["epoch"]] = entry
            except DataError as error:
                damage.append(str(error))
            except ValueError as error:
                damage.append(f"{where} is damaged: {shown(error)}.")
        return [by_epoch[epoch] for epoch in sorted(by_epoch)], damage

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is on the disk when this returns, as the next checkpoint relies on it."""
        append_line(self.path, json.dumps(line))

    def size(self) -> int:
        """The size of metrics.jsonl in bytes, which a checkpoint records."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Remove the lines written after the checkpoint that a run resumes from; warns when earlier lines are lost."""
        if (found := self.size()) < size:
            warnings.warn(
                f"{self.path} has {found} bytes, and had {size} when the checkpoint was written: the lines of "
                "some epochs are lost, and the curves of a report lack them. The weights are not affected.",
                stacklevel=3,
            )
        if self.path.exists():
            with storage_errors(self.path):
                os.truncate(self.path, min(size, found))
