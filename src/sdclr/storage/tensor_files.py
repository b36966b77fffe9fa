"""Tensors and JSON facts in one file: safetensors with one sha256 over every byte, written by atomic rename.

Nothing is ever unpickled. Reading: size, header, checksum, and only then tensors.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdclr.errors import CheckpointError, MissingInputError, StorageError
from sdclr.storage import durable_files
from sdclr.storage.documents import parse_json
from sdclr.storage.durable_files import write_atomically

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
    """safetensors' names of torch's types."""
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON ``facts`` to ``path``, atomically and durably.

    Raises StorageError when the disk fails or is full and RunFolderError when the folder is not writable; the previous
    file at ``path``, if any, is then still there.
    """
    content, where = _packed(tensors, facts)
    content[where : where + 64] = _sum(content, where)
    write_atomically(path, content)


def _packed(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[memoryview, int]:
    """A safetensors file whose checksum is still zeros, and the position of the checksum.

    Each tensor is copied once, by torch, which lets other threads run meanwhile, such as a training step. safetensors'
    own writer copies everything several times and blocks other threads.
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
    """sha256 over every byte, with zeros in place of the 64 digits at ``where``."""
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
        content = durable_files.files.read(path)
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
        raise CheckpointError(f"{path} is cut off or not a safetensors file. {CURE}")
    where = content.find(_SUM_KEY, 8, 8 + header_size) + len(_SUM_KEY)
    if where < len(_SUM_KEY):
        raise CheckpointError(
            f"{path} carries no sdclr checksum: it was not written by sdclr. {CURE}"
        )
    if _sum(content, where) != content[where : where + 64]:
        raise CheckpointError(f"{path} is damaged: its checksum does not match its content. {CURE}")
    try:
        header = json.loads(content[8 : 8 + header_size])
        tensors, facts = (
            safetensors.torch.load(content),
            json.loads(header["__metadata__"]["facts"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        what = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint of sdclr: {what}. {CURE}") from None
    if not isinstance(facts, dict):
        raise CheckpointError(
            f"{path} is not a checkpoint of sdclr: its facts are not a JSON object. {CURE}"
        )
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a file made by :func:`write_tensors`, from its first bytes only: its checksum is not verified.

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
        raise CheckpointError(f"{path} is not a file of sdclr, or its header is damaged. {CURE}")
    return facts


_FOREIGN_CURE = (
    "Give a run folder or a backbone.safetensors. A checkpoint of the method's authors becomes one by `sdclr convert`; "
    "a network of torchvision or timm is the start with backbone.name=torchvision:NAME (or timm:NAME) "
    "backbone.pretrained=true."
)
CURE = "Use another file, or copy it again from where it is intact."
