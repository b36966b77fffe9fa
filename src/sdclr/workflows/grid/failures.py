"""Why cells of a grid failed: one file each, until the cell is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import make_folder, write_atomically
from sdclr.workflows.matrix import Cell

LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Failures:
    """The files in ``folder``, by the name of the cell's run folder."""

    folder: Path
    sitting: str = ""
    """Identifies one start of the command: a cell that failed in it is not retried in it."""

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.run.folder.name}.json"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The record of the cell's last failure; None if it has not failed."""
        try:
            found = read_json_file(self._path(cell))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return {"message": f"its failure cannot be read: {error}", "sitting": None}
        return found if isinstance(found, dict) else {"message": "unknown", "sitting": None}

    def has(self, cell: Cell) -> bool:
        return self.read(cell) is not None

    def reason(self, cell: Cell) -> str:
        """The message of its last failure."""
        return str((self.read(cell) or {}).get("message", "unknown"))

    def has_now(self, cell: Cell) -> bool:
        """Whether it has failed since the command was started."""
        failure = self.read(cell)
        return failure is not None and failure.get("sitting") == self.sitting

    def record(self, cell: Cell, kind: str, message: str, detail: str = "") -> None:
        """Record why a cell failed."""
        content = {
            "arm": cell.arm,
            "split": str(cell.split),
            "seed": cell.config.seed,
            "error": kind,
            "message": message[:LONGEST_MESSAGE],
            "detail": detail[-LONGEST_MESSAGE:],
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "sitting": self.sitting,
        }
        make_folder(self.folder)
        write_atomically(self._path(cell), json.dumps(content, indent=1) + "\n")

    def forget(self, cell: Cell) -> None:
        self._path(cell).unlink(missing_ok=True)
