"""Checkpoints of a run, whole or absent: the newest few, verified when they are read.

Does not know what a method or an optimiser is.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdclr.errors import CheckpointError, MissingInputError, SdclrError, StorageError
from sdclr.storage import durable_files
from sdclr.storage.durable_files import is_leftover, make_folder, storage_errors
from sdclr.storage.tensor_files import CURE, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class CheckpointFolder:
    """``checkpoints/ckpt-<step>.safetensors``: keeps the newest ``keep``, falls back when one is damaged."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def __bool__(self) -> bool:
        """Whether there is any checkpoint, good or bad."""
        return bool(self._newest_first())

    def save(self, checkpoint: Checkpoint, *, read_back: bool = False) -> None:
        """Write a checkpoint and remove those that are no longer kept.

        ``read_back``: verify what was written; StorageError when the storage gives something else back.
        """
        make_folder(self.folder)
        path = self._path(checkpoint.step)
        write_tensors(path, checkpoint.tensors, checkpoint.facts | {"step": checkpoint.step})
        if read_back:
            try:
                read_tensors(path)
            except CheckpointError as error:
                raise StorageError(
                    f"the storage does not give back what was written: {error}"
                ) from None
        with storage_errors(self.folder):
            torn = [
                self.folder / name
                for name in durable_files.files.list(self.folder)
                if is_leftover(name)
            ]
            for old in [*torn, *self._newest_first()[self.keep :]]:
                durable_files.files.unlink(old)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged ones are renamed ``*.corrupt`` and reported.

        None when there never was one. Raises CheckpointError when there were some and none verifies: silently starting
        afresh would discard the run.
        """
        paths = self._newest_first()
        unreadable: SdclrError | None = None
        for path in paths:
            try:
                return self._read(path)
            except CheckpointError as error:
                with storage_errors(path):
                    durable_files.files.replace(path, path.with_name(path.name + ".corrupt"))
                what = str(error).removesuffix(f" {CURE}")
                warnings.warn(f"{what} It was set aside as {path.name}.corrupt.", stacklevel=2)
                continue
            except (
                MissingInputError,
                StorageError,
            ) as error:  # a bad sector stays bad; the previous checkpoint may be intact
                unreadable = unreadable or error
                warnings.warn(f"{error} The checkpoint before it is tried.", stacklevel=2)
                continue
        if unreadable is not None:
            raise unreadable
        if paths or any(name.endswith(".corrupt") for name in self._names()):
            raise CheckpointError(
                f"no checkpoint in {self.folder} is intact. Restore one from a backup, or start again in another --out."
            )
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of this step; MissingInputError or CheckpointError where there is no intact one."""
        return self._read(self._path(step))

    def _read(self, path: Path) -> Checkpoint:
        tensors, facts = read_tensors(path)
        step = facts.get("step")
        if type(step) is not int or path != self._path(step):
            raise CheckpointError(f"{path} is the checkpoint of step {step!r} under another name.")
        return Checkpoint(step, tensors, facts)

    def steps(self) -> list[int]:
        """The steps of the checkpoints by name, newest first; nothing is read."""
        return [int(path.name[5:17]) for path in self._newest_first()]

    def _path(self, step: int) -> Path:
        return self.folder / f"ckpt-{step:012d}.safetensors"

    def _newest_first(self) -> list[Path]:
        return [
            self.folder / name
            for name in sorted(filter(_NAME.fullmatch, self._names()), reverse=True)
        ]

    def _names(self) -> list[str]:
        with storage_errors(self.folder):
            return durable_files.files.list(self.folder)


_NAME = re.compile(r"ckpt-[0-9]{12}\.safetensors")
