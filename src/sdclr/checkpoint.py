"""Checkpoints that are whole or absent: safetensors with one sha256 over every byte, written by atomic rename.

A file holds tensors plus JSON facts; nothing is ever unpickled. Writing: temporary name, fsync, rename, fsync of the
folder. Reading: size, header, checksum, and only then tensors. Does not know what a method or an optimiser is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sdclr.errors import CheckpointError, MissingInputError, RunFolderError, SdclrError, StorageError

_SUM_KEY = b'"sha256":"'  # inside JSON strings the quotes are escaped, so this byte sequence is unique
_NO_SUM = "0" * 64
_LARGEST_HEADER = 16 * 1024 * 1024


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON ``facts`` to ``path``, atomically and durably.

    Raises StorageError when the disk fails or is full and RunFolderError when the folder is not writable; whatever
    stood at ``path`` before is then still there.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts), "sha256": _NO_SUM}
    content = bytearray(safetensors.torch.save(plain, metadata))
    where = content.index(_SUM_KEY) + len(_SUM_KEY)
    content[where : where + 64] = hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and facts of a file made by :func:`write_tensors`; every byte is checked first.

    Raises MissingInputError when there is no such file and CheckpointError when it is damaged or foreign.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist or is not a file.")
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from None
    header_size = int.from_bytes(content[:8], "little") if len(content) >= 8 else -1
    if not 2 <= header_size <= min(_LARGEST_HEADER, len(content) - 8):
        raise CheckpointError(f"{path} is cut off or not a safetensors file. {_CURE}")
    where = content.find(_SUM_KEY, 8, 8 + header_size) + len(_SUM_KEY)
    if where < len(_SUM_KEY):
        raise CheckpointError(f"{path} carries no sdclr checksum: it was not written by sdclr. {_CURE}")
    stated = bytes(content[where : where + 64])
    content[where : where + 64] = _NO_SUM.encode()
    if hashlib.sha256(content).hexdigest().encode() != stated:
        raise CheckpointError(f"{path} is damaged: its checksum does not match its content. {_CURE}")
    try:
        header = json.loads(content[8 : 8 + header_size])
        return safetensors.torch.load(bytes(content)), json.loads(header["__metadata__"]["facts"])
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of sdclr: {error}. {_CURE}") from None


_CURE = "Use another file, or copy it again from where it is intact."


def write_atomically(path: Path, content: bytes | bytearray | str) -> None:
    """Replace ``path`` by ``content`` so that a crash leaves the old file or the new one, never a mixture."""
    raw = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _explained(error, path) from None


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into RunFolderError or StorageError, naming ``path``."""
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from None


def _explained(error: OSError, path: Path) -> SdclrError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return RunFolderError(f"{path} cannot be written: {error.strerror}. Choose another --out.")
    return StorageError(f"{path} cannot be written: {error.strerror}. Free space, then run the command again.")


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class CheckpointFolder:
    """``checkpoints/ckpt-<step>.safetensors``: keeps the newest ``keep``, falls back when one does not verify."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def __bool__(self) -> bool:
        """Whether there is any checkpoint, good or bad."""
        return bool(self._newest_first())

    def save(self, checkpoint: Checkpoint) -> None:
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        facts = checkpoint.facts | {"step": checkpoint.step}
        write_tensors(self.folder / f"ckpt-{checkpoint.step:012d}.safetensors", checkpoint.tensors, facts)
        for old in self._newest_first()[self.keep :]:
            old.unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged ones are renamed ``*.corrupt`` and reported.

        None when there never was one. Raises CheckpointError when there were some and none verifies: starting afresh
        in silence would throw the run away.
        """
        paths = self._newest_first()
        for path in paths:
            try:
                tensors, facts = read_tensors(path)
            except CheckpointError as error:
                path.rename(path.with_name(path.name + ".corrupt"))
                warnings.warn(f"{error} It was set aside as {path.name}.corrupt.", stacklevel=2)
                continue
            return Checkpoint(int(facts["step"]), tensors, facts)
        if paths or any(self.folder.glob("*.corrupt")):
            raise CheckpointError(
                f"no checkpoint in {self.folder} is intact. Restore one from a backup, or start again in another --out."
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("ckpt-*.safetensors"), reverse=True)


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state_dict whose names and shapes must match exactly; CheckpointError says what does not."""
    expected = module.state_dict()
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where} does not fit this network: {'; '.join(problems)}. Was it another architecture?")
    module.load_state_dict(dict(tensors), strict=True)
