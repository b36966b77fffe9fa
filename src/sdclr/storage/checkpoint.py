"""Checkpoints that are whole or absent: safetensors with one sha256 over every byte, written by atomic rename.

A file holds tensors plus JSON facts; nothing is ever unpickled. Writing: temporary name, fsync, rename, fsync of the
folder. Reading: size, header, checksum, and only then tensors. Whatever touches the file system goes through ``files``,
so that tests can make every single operation fail. Does not know what a method or an optimiser is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdclr.errors import (
    CheckpointError,
    MissingInputError,
    RunFolderError,
    SdclrError,
    StorageError,
)
from sdclr.safe_text import shown
from sdclr.storage.documents import parse_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SUM_KEY = (
    b'"sha256":"'  # inside JSON strings the quotes are escaped, so this byte sequence is unique
)
_NO_SUM = "0" * 64
_LARGEST_HEADER = 16 * 1024 * 1024


@functools.cache
def _dtypes() -> dict[torch.dtype, str]:
    """What safetensors calls torch's types."""
    import torch

    return {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.bool: "BOOL",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.complex64: "C64",
        torch.uint64: "U64",
        torch.uint32: "U32",
        torch.uint16: "U16",
        torch.uint8: "U8",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
    }


def is_storable(tensor: Tensor) -> bool:
    """Whether a file can hold a tensor: a dense one of a type that safetensors has, with its numbers in memory."""
    import torch

    return tensor.dtype in _dtypes() and tensor.layout == torch.strided and not tensor.is_meta


class Files:
    """The few operations that durable files take; tests put another in its stead that fails, dies or forgets."""

    def open(self, path: Path) -> FileIO:
        """A new, empty, unbuffered file; FileExistsError where the name is taken, by a link for example."""
        return FileIO(path, "wb", opener=_open_new)

    def write(self, file: FileIO, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        while rest:  # one call writes 2 GB at most
            rest = rest[file.write(rest) :]

    def sync(self, file: FileIO) -> None:
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def list(self, folder: Path) -> list[str]:
        """Names, in no order; of a folder that is not there, none."""
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            return []

    def read(self, path: Path) -> bytes:
        """FileNotFoundError also for what is no regular file: to open a pipe may block for ever."""
        if not path.is_file():
            raise FileNotFoundError
        return path.read_bytes()


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` last, where the system lets a folder be opened for that (Windows does not)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_new(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)


def without_links(path: str, flags: int) -> int:
    """An opener for files of ours that grow: a link in place of one is an error."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


files = Files()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON ``facts`` to ``path``, atomically and durably.

    Raises StorageError when the disk fails or is full and RunFolderError when the folder is not writable; whatever
    stood at ``path`` before is then still there.
    """
    content, where = _packed(tensors, facts)
    content[where : where + 64] = _sum(content, where)
    write_atomically(path, content)


def _packed(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[memoryview, int]:
    """A safetensors file whose checksum is still zeros, and where that stands.

    Each tensor is copied once, by torch, which lets other threads run meanwhile: the step may be one. safetensors' own
    writer copies everything several times and lets nobody run.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(facts), "sha256": _NO_SUM}}
    end = 0
    # so that each is aligned
    in_order = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in in_order:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _dtypes()[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    file = torch.empty(first + end, dtype=torch.uint8)
    for name, tensor in in_order:
        begin, end = header[name]["data_offsets"]
        file[first + begin : first + end].view(tensor.dtype).view(tensor.shape).copy_(
            tensor.detach()
        )
    content = file.numpy().data
    content[:first] = len(text).to_bytes(8, "little") + text
    return content, content[:first].tobytes().index(_SUM_KEY) + len(_SUM_KEY)


def _sum(content: bytes | memoryview, where: int) -> bytes:
    """sha256 over every byte, zeros taken for the 64 digits that stand at ``where``."""
    digest = hashlib.sha256(memoryview(content)[:where])
    digest.update(_NO_SUM.encode())
    digest.update(memoryview(content)[where + 64 :])
    return digest.hexdigest().encode()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and facts of a file made by :func:`write_tensors`; every byte is checked first.

    Raises MissingInputError when there is no such file and CheckpointError when it is damaged or foreign.
    """
    import safetensors.torch

    try:
        content = files.read(path)
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist or is not a file.") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from None
    header_size = int.from_bytes(content[:8], "little") if len(content) >= 8 else -1
    if not 2 <= header_size <= min(_LARGEST_HEADER, len(content) - 8):
        if content[:4] == b"PK\x03\x04" or content[:2] in (
            b"\x80\x02",
            b"\x80\x03",
            b"\x80\x04",
            b"\x80\x05",
        ):
            raise CheckpointError(
                f"{path} is not a safetensors file: torch.save has written it (a pickle). {_FOREIGN_CURE}"
            )
        raise CheckpointError(f"{path} is cut off or not a safetensors file. {_CURE}")
    where = content.find(_SUM_KEY, 8, 8 + header_size) + len(_SUM_KEY)
    if where < len(_SUM_KEY):
        raise CheckpointError(
            f"{path} carries no sdclr checksum: it was not written by sdclr. {_CURE}"
        )
    if _sum(content, where) != content[where : where + 64]:
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match its content. {_CURE}"
        )
    try:
        header = json.loads(content[8 : 8 + header_size])
        tensors, facts = (
            safetensors.torch.load(content),
            json.loads(header["__metadata__"]["facts"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        what = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint of sdclr: {what}. {_CURE}") from None
    if not isinstance(facts, dict):
        raise CheckpointError(
            f"{path} is not a checkpoint of sdclr: its facts are no JSON object. {_CURE}"
        )
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a file made by :func:`write_tensors`, from its first bytes alone: its checksum is not verified.

    Raises MissingInputError when there is no such file and CheckpointError when its header is not ours.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist or is not a file.")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(size)) if size <= _LARGEST_HEADER else None
            facts = parse_json(header["__metadata__"]["facts"])  # type: ignore[index]
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        facts = None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} is not a file of sdclr, or its header is damaged. {_CURE}")
    return facts


_FOREIGN_CURE = (
    "Give a run folder or a backbone.safetensors. A checkpoint of the method's authors becomes one by `sdclr convert`; "
    "a network of torchvision or timm is the start with backbone.name=torchvision:NAME (or timm:NAME) "
    "backbone.pretrained=true."
)
_CURE = "Use another file, or copy it again from where it is intact."


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Replace ``path`` by ``content`` so that a crash leaves the old file or the new one, never a mixture."""
    raw = content.encode() if isinstance(content, str) else content
    temporary = temporary_name(path)
    try:
        with files.open(temporary) as file:
            files.write(file, raw)
            files.sync(file)
        files.replace(temporary, path)
        files.sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise explained(error, path) from None


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that nobody can have guessed and taken; :func:`is_leftover` knows it."""
    # a long name leaves no room for more
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed process has half written."""
    return _LEFTOVER.fullmatch(name) is not None


# the first as versions before random names left it
_LEFTOVER = re.compile(
    r"\.ckpt-[0-9]{12}\.safetensors\.tmp|\..{1,50}\.[0-9a-f]{16}\.tmp", re.DOTALL
)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and whatever is missing above it, so that a crash does not lose it with all it holds."""
    with storage_errors(folder):
        for missing in reversed([one for one in (folder, *folder.parents) if not one.is_dir()]):
            files.make_folder(missing)
            files.sync_folder(missing.parent)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into RunFolderError or StorageError, naming ``path``."""
    try:
        yield
    except OSError as error:
        raise explained(error, path) from None


def explained(error: OSError, path: Path, done: str = "written") -> SdclrError:
    """What the file system has refused, as an error that says what to do; ``done`` is what it would not have done."""
    what = error.strerror or str(error) or type(error).__name__
    place, advice = _ADVICE.get(
        error.errno or 0, (False, "Choose another place, or mend the storage.")
    )
    return (RunFolderError if place else StorageError)(f"{path} cannot be {done}: {what}. {advice}")


_ANOTHER = "Choose another --out."
_ADVICE: dict[int, tuple[bool, str]] = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        (True, _ANOTHER),
    ),
    errno.ENOENT: (True, "A folder on the way to it is missing; make it, or choose another --out."),
    errno.ENAMETOOLONG: (True, "Choose a shorter --out."),
    errno.ELOOP: (
        True,
        "A link on the way to it leads to itself or to nothing that may be followed; give the place.",
    ),
    errno.EXDEV: (True, "It lies on two file systems, by a link or a mount; give a place on one."),
    errno.ENOSPC: (False, "Free space, then run the command again."),
    errno.EDQUOT: (False, "Free space in your quota, then run the command again."),
    errno.EFBIG: (
        False,
        "Free space, or raise the limit on the size of files (ulimit -f), then run the command again.",
    ),
    errno.EIO: (
        False,
        "The storage itself fails; check the disk or the network, then run the command again.",
    ),
    errno.EMFILE: (False, "This process may open no more files (ulimit -n); raise the limit."),
    errno.ENFILE: (
        False,
        "This machine can open no more files; close other programs, then run the command again.",
    ),
    errno.ESTALE: (
        False,
        "The network file system has lost it; mount it again, then run the command again.",
    ),
}
"""Error number -> whether another place is the cure (RunFolderError, else StorageError), and what to do."""


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
            torn = [self.folder / name for name in files.list(self.folder) if is_leftover(name)]
            for old in [*torn, *self._newest_first()[self.keep :]]:
                files.unlink(old)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged ones are renamed ``*.corrupt`` and reported.

        None when there never was one. Raises CheckpointError when there were some and none verifies: starting afresh
        in silence would throw the run away.
        """
        paths = self._newest_first()
        unreadable: SdclrError | None = None
        for path in paths:
            try:
                return self._read(path)
            except CheckpointError as error:
                with storage_errors(path):
                    files.replace(path, path.with_name(path.name + ".corrupt"))
                what = str(error).removesuffix(f" {_CURE}")
                warnings.warn(f"{what} It was set aside as {path.name}.corrupt.", stacklevel=2)
                continue
            except (
                MissingInputError,
                StorageError,
            ) as error:  # a bad sector stays bad; the one before may be sound
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
        """The checkpoint of this step; MissingInputError or CheckpointError where there is no sound one."""
        return self._read(self._path(step))

    def _read(self, path: Path) -> Checkpoint:
        tensors, facts = read_tensors(path)
        step = facts.get("step")
        if type(step) is not int or path != self._path(step):
            raise CheckpointError(f"{path} is the checkpoint of step {step!r} under another name.")
        return Checkpoint(step, tensors, facts)

    def steps(self) -> list[int]:
        """The steps there are checkpoints of by name, the newest first; nothing is read."""
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
            return files.list(self.folder)


_NAME = re.compile(r"ckpt-[0-9]{12}\.safetensors")


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that holds a number that is not finite; a device is asked once for all of its own."""
    import torch

    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    for device in {tensor.device for tensor in floats.values()}:
        here = {
            name: tensor.isfinite().all()
            for name, tensor in floats.items()
            if tensor.device == device
        }
        if not torch.stack(list(here.values())).all():
            return next(name for name, finite in here.items() if not finite)
    return None


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state_dict whose names and shapes must match exactly; CheckpointError says what does not."""
    expected = module.state_dict()
    check_fit(expected, tensors, where)
    state = OrderedDict(tensors)
    # the versions of the layers, which files do not hold: torchvision's MNASNet refuses to load without
    state._metadata = getattr(expected, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=True)


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError unless ``tensors`` have the names, shapes and kinds of ``expected``, which may be on device meta.

    A kind is a floating-point, complex, boolean or whole number; precisions of one kind may differ.
    """
    common = {name: tensor for name, tensor in expected.items() if name in tensors}
    misshapen = [
        f"{shown(name)} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in common.items()
        if tensors[name].shape != tensor.shape
    ]
    mistyped = [
        f"{shown(name)} {tensors[name].dtype} instead of {tensor.dtype}"
        for name, tensor in common.items()
        if _kind(tensors[name]) != _kind(tensor)
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", [shown(name) for name in expected if name not in tensors]),
            ("unknown", [shown(name) for name in tensors if name not in expected]),
            ("of another shape", misshapen),
            ("of another type", mistyped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where} does not fit this network: {'; '.join(problems)}. Was it another architecture?"
        )


def _kind(tensor: Tensor) -> str:
    import torch

    if tensor.is_floating_point():
        return "floating"
    if tensor.is_complex():
        return "complex"
    return "boolean" if tensor.dtype == torch.bool else "whole"
