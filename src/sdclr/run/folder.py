"""A run folder: the settings, their environment and the results. Its name carries no facts; its files do.

config.yaml         can be run again as is              checkpoints/          the newest two moments of the run
environment.json    versions, device, command           backbone.safetensors  the trained target backbone
split.json          data set, counts, fingerprint       evaluation/*.json     one file per protocol
metrics.jsonl       one line per epoch                  report.html
images.json         which files cannot be decoded, and which are copies, for images on disk
images.tsv.gz       a digest of each of them
image_records.f32   loss, hardest mass and disagreement of each image by epoch, with record_images=true;
images.parquet      the same as a table, once the run is finished
against.json        what `sdclr evaluate --against` has found
few_labels.json     accuracy with few labels: `sdclr evaluate --few-shot`, `--labels-per-class`, `--label-share`
choices.json        settings that were chosen for somebody's own images, each with its reason
to_label.csv        images whose labels would settle whether training paid off, for a person to fill in
logs.json           the ids of this run in other tools: --log mlflow,wandb
log.txt             what the run printed
examination/        measurements of a run without labels, for its report
features.npz        what `sdclr embed RUN` writes by default
status.json         running, done, preempted or failed and why; see sdclr status
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sdclr.errors import DataError, MissingInputError, RunFolderError
from sdclr.run.files import (
    EXAMINATION_FOLDER,
    FINETUNE_FILE,
    IMAGES_FILE,
    LOCK_FILE,
    MINE_FILE,
    STATUS_FILE,
    remedy,
)
from sdclr.run.metrics import MetricsFile
from sdclr.run.records import KINDS, check, sound_evaluation
from sdclr.safe_text import first_of, shown
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.documents import read_json_file, read_yaml_file
from sdclr.storage.durable_files import make_folder, write_atomically
from sdclr.storage.locks import Lock, remove_leftovers


def why_no_run(folder: Path, lack: str) -> str:
    """What is wrong with a folder that is not a run; ``lack``: what it lacks, where there is no better reason."""
    if not os.path.lexists(folder):
        return f"run folder {shown(folder)} does not exist."
    if not folder.is_dir():
        return f"{shown(folder)} is a file, and not a run folder. Leave it out."
    with contextlib.suppress(OSError):
        runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
        if runs:
            names = first_of([shown(run) for run in runs], 1)
            return f"{shown(folder)} is not a run folder, but holds runs: give {names} by name."
    others = (FINETUNE_FILE, MINE_FILE)  # their folders have locks, too
    if (folder / LOCK_FILE).is_file() and not any((folder / name).exists() for name in others):
        return (
            f"{shown(folder)} holds no run yet: one was started there, but its settings are not written. It was "
            "stopped early, or is still starting. Give its command again."
        )
    return f"{shown(folder)} is not a run folder: {lack}."


class Run:
    """One run folder. Reading needs no lock; use it as a context manager to write.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> run.backbone_path.name, len(run.metrics()), sorted(run.metrics()[0])[:2]
    ('backbone.safetensors', 1, ['data_share', 'epoch'])
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints")
        self.metrics_file = MetricsFile(self.folder / "metrics.jsonl")
        # what is to be read from this run lies in no other folder
        advice = None if self.exists else "choose another --out"
        self._lock = Lock(self.folder / LOCK_FILE, str(self.folder), advice=advice)
        self._place = self.folder
        self._identity: tuple[int, int] | None = None

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def backbone_path(self) -> Path:
        return self.folder / "backbone.safetensors"

    @property
    def metrics_path(self) -> Path:
        return self.metrics_file.path

    def evaluation_path(self, protocol: str) -> Path:
        return self.folder / "evaluation" / f"{protocol}.json"

    def backbone_identity(self) -> str:
        """16 hex digits over the trained backbone, to which an evaluation belongs."""
        return hashlib.sha256(self.backbone_path.read_bytes()).hexdigest()[:16]

    def read_evaluation(self, protocol: str) -> dict[str, Any]:
        """evaluation/<protocol>.json; DataError when it is damaged. A damaged probe is left out with a warning."""
        path = self.evaluation_path(protocol)
        return sound_evaluation(self.read_json(str(path.relative_to(self.folder))), str(path))

    @property
    def exists(self) -> bool:
        return self.config_path.is_file()

    def evaluated_protocols(self) -> set[str]:
        """The protocols under which the run was evaluated."""
        return {file.stem for file in (self.folder / "evaluation").glob("*.json") if file.is_file()}

    def skipped_images(self) -> set[str]:
        """The files that pre-training has left out, by their names in the collection."""
        if not (self.folder / IMAGES_FILE).is_file():
            return set()
        return {path for path, _ in self.read_json(IMAGES_FILE, "skipped")["skipped"]}

    def require(self) -> Self:
        """Itself, if this is a run folder; MissingInputError otherwise."""
        if not self.exists:
            raise MissingInputError(
                why_no_run(self.folder, "it has no config.yaml (sdclr pretrain makes one)")
            )
        return self

    def __enter__(self) -> Self:
        make_folder(self.folder)
        self._lock.__enter__()
        self._place = self.folder.absolute()
        self._identity = _identity(self.folder)
        for folder in (self.folder, self.folder / "evaluation", self.folder / EXAMINATION_FOLDER):
            remove_leftovers(folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, tb)

    def require_in_place(self) -> None:
        """RunFolderError unless the path still leads to the folder that this process has locked.

        Otherwise files would go into another folder, perhaps that of another run, whose lock another process may hold.
        """
        if self._identity is not None and _identity(self.folder) != self._identity:
            raise RunFolderError(
                f"{shown(self.folder)} is no longer the folder in which this run began to write, "
                f"{shown(self._place)}: it was moved or removed, a link on the way leads elsewhere, or the current "
                "folder has changed. "
                "Nothing was written there. If it was moved, continue at its new place (sdclr resume NEW_PLACE)."
            )

    def in_use(self) -> bool:
        """Whether another process (or another Run object here) is writing to this folder now."""
        return self._lock.held_elsewhere()

    def write_text(self, name: str, content: str) -> None:
        write_atomically(self.folder / name, content)

    def __fspath__(self) -> str:
        """Lets a run be used wherever its folder can."""
        return str(self.folder)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.folder / name
        make_folder(path.parent)
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    def read_json(self, name: str, *required: str) -> dict[str, Any]:
        """A JSON object of this folder that has the ``required`` keys; DataError when it is damaged."""
        path, cure = self.folder / name, remedy(name)
        try:
            content = read_json_file(path)
        except FileNotFoundError:
            raise MissingInputError(
                f"{path} does not exist; a complete run folder has it. {cure}"
            ) from None
        except (ValueError, OSError) as error:
            raise DataError(
                f"{path} is damaged, it cannot be read as JSON: {error}. {cure}"
            ) from None
        if not isinstance(content, dict):
            raise DataError(
                f"{path} is damaged: it must hold a JSON object, got {type(content).__name__}. {cure}"
            )
        if missing := [key for key in required if key not in content]:
            raise DataError(f"{path} is damaged: it has no {', '.join(missing)}. {cure}")
        if name in KINDS:
            try:
                check(KINDS[name], content, str(path))
            except DataError as error:
                raise DataError(f"{error} {cure}") from None
        return content

    def read_side_file(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        """:meth:`read_json` for readers that can do without the file: empty, with a warning, where it cannot be read.

        ``optional``: runs need not have it, and its absence causes no warning.
        """
        if optional and not os.path.lexists(self.folder / name):
            return {}
        try:
            return self.read_json(name)
        except (DataError, MissingInputError) as error:
            # always from this line, so that several readers of a file cause one warning
            warnings.warn(f"{error} Until then this continues without it.", stacklevel=1)
            return {}

    def read_status(self) -> dict[str, Any]:
        """status.json; empty for a run of a version without one. DataError when it is damaged."""
        return self.read_json(STATUS_FILE, "state") if (self.folder / STATUS_FILE).is_file() else {}

    def settings(self) -> dict[str, Any]:
        """config.yaml as nested plain values, not validated."""
        try:
            content = read_yaml_file(self.config_path)
        except (ValueError, OSError) as error:
            raise DataError(
                f"{self.config_path} is damaged, it cannot be read as YAML: {error}. {remedy('config.yaml')}"
            ) from None
        if not isinstance(content, dict):
            raise DataError(
                f"{self.config_path} is damaged: it must hold settings, got {type(content).__name__}. "
                f"{remedy('config.yaml')}"
            )
        return content

    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl, one entry per epoch, in order; for an epoch that was repeated after a crash, the last.

        A damaged line is left out with a warning, and so is a whole file that cannot be read. MissingInputError where
        there is no run.
        """
        if not self.metrics_path.exists():  # a run that has not finished its first epoch has none
            self.require()
        return self.metrics_file.entries()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Device and number of a folder, whatever its name; None where there is none."""
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        return status.st_dev, status.st_ino
    return None
