"""Read files of torch.save: tensors and plain values, bit for bit; nothing pickled is ever executed."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdclr.compute.process_state import silenced_warnings
from sdclr.errors import CheckpointError, MissingInputError

_BEGINNINGS = (b"PK", b"\x80")
"""The first bytes of an archive, and of the pickles of torch before 1.6."""
_PIECE = 2**20


def read_tensors_of_torch(path: Path) -> Mapping[str, Any]:
    """The mapping of tensors and plain values that torch.save wrote to ``path``.

    Raises MissingInputError where there is no file, and CheckpointError for one that is damaged, contains anything
    else, or was written by another program.
    """
    if not path.is_file():
        raise MissingInputError(f"checkpoint {path} does not exist or is not a file.")
    _refuse_other_formats(path)
    _refuse_unsound_archive(path)
    try:
        with silenced_warnings():  # torch's advice about a file that we refuse anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it holds more than tensors and plain values{_what(error)}."
        ) from None
    # a damaged or hostile file may raise any error, and it is always the file's fault
    except Exception as error:
        reason = (
            (str(error) or type(error).__name__).splitlines()[0].partition(". In PyTorch 2.6")[0]
        )
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {reason}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a checkpoint with a state_dict."
        )
    return content


def _what(error: Exception) -> str:
    """What the unpickler encountered, without torch's advice to load the file anyway."""
    met = re.search(r"GLOBAL ([\w.]{1,80})|Unsupported (?:class|operand) ([\w.]{1,80})", str(error))
    return f" ({met[1] or met[2]})" if met else ""


def _refuse_other_formats(path: Path) -> None:
    """Refuse safetensors, which newer versions of torch.load read without the metadata of sdclr's own backbones."""
    with path.open("rb") as file:
        head = file.read(9)
    size = path.stat().st_size
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise CheckpointError(
            f"{path} is a safetensors file, which torch.save has not written. A backbone written by sdclr is used as "
            "it is: --weights, --backbone or sdclr.load_backbone."
        )
    if not head.startswith(_BEGINNINGS):
        begins = f"it begins with {_in_words(head)}" if head else "it is empty"
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {begins}.")


def _in_words(head: bytes) -> str:
    """The text at the beginning of a file, in quotation marks, or its bytes as numbers."""
    text = head.decode("ascii", "replace")
    return f'"{text}"' if text.isprintable() and text.isascii() else f"the bytes {head.hex(' ')}"


def _refuse_unsound_archive(path: Path) -> None:
    """Refuse compressed records and wrong checksums: PyTorch stores records uncompressed, and loads them unchecked.

    A compressed record may be a thousand times as large as the file.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception:  # not a zip, or a damaged one: torch.load raises the error
        return
    with archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path} was refused: it is compressed ({record.filename[:80]!r}), which PyTorch files never are."
                )
            # 0 means no checksum: torch.serialization.set_crc32_options(False)
            if record.CRC and not _is_whole(archive, record):
                raise CheckpointError(
                    f"{path} is damaged: the checksum of {record.filename[:80]!r} does not agree. Copy it again."
                )


def _is_whole(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as stored:
            while stored.read(_PIECE):
                pass
    except Exception:  # zipfile's own errors, and others caused by odd headers
        return False
    return True
