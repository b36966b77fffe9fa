"""The choices for a device, by name: precision, memory format, compiling."""

from __future__ import annotations

import re
from typing import Literal

from sdclr.errors import ConfigError
from sdclr.safe_text import shown

Precision = Literal["auto", "fp32", "bf16", "fp64"]
MemoryFormat = Literal["auto", "channels_last", "contiguous"]
Compile = bool | Literal["auto", "cuda-graphs"]
_DEVICE = re.compile(r"auto|cpu|(cuda|mps)(:[0-9]+)?")


def require_device_name(name: str) -> None:
    """ConfigError for a name of no device; resolve_device checks, with torch, whether this machine has it."""
    if not _DEVICE.fullmatch(name):
        raise ConfigError(
            f"device must be auto, cpu, cuda, cuda:N or mps, got {shown(repr(name))}."
        )
