"""Which record of another tool belongs to a run: RUN/logs.json.

The identity is that of the run folder and not of its path: a run that moved continues its record, and a new run at
the place of a removed one gets a new record, as does a copy of a run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import write_atomically

LOGS_FILE = "logs.json"


def recorded_id(folder: str, tool: str) -> str | None:
    """The id that ``tool`` gave to this run; None for a run without one, or without a folder."""
    return _ids(folder).get(tool)


def record_id(folder: str, tool: str, number: str) -> None:
    """Keep the id of a run. Raises StorageError where its folder cannot be written."""
    if folder:
        ids = {**_ids(folder), tool: number}
        content = {"folder": os.path.abspath(folder), "ids": ids}
        write_atomically(Path(folder) / LOGS_FILE, json.dumps(content, indent=1) + "\n")


def _ids(folder: str) -> dict[str, str]:
    if not folder:
        return {}
    recorded, ids = _read(Path(folder))
    # a copy: the folder that the ids were recorded in is another one, and still has them
    is_copy = _is_another(recorded, folder) and ids.items() & _read(Path(recorded))[1].items()
    return {} if is_copy else ids


def _is_another(recorded: str, folder: str) -> bool:
    """Whether the recorded folder exists and is not this one; False where that cannot be known."""
    try:
        return not os.path.samefile(recorded, folder)
    except (OSError, ValueError):
        return False


def _read(folder: Path) -> tuple[str, dict[str, str]]:
    """The folder that ids were recorded in, and the ids."""
    # without a file, or with one that somebody has changed, the run gets a new record
    with contextlib.suppress(OSError, ValueError):
        content = read_json_file(folder / LOGS_FILE)
        if isinstance(content, Mapping) and isinstance(content.get("ids"), Mapping):
            ids = {str(tool): str(number) for tool, number in content["ids"].items()}
            return str(content.get("folder", "")), ids
    return "", {}
