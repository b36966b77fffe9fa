"""What can be asked of a device, by name: precision, memory format, compiling."""

from __future__ import annotations

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp64"]
MemoryFormat = Literal["auto", "channels_last", "contiguous"]
Compile = bool | Literal["auto", "cuda-graphs"]
