"""Limits of a machine that reads shards from others: settings of the machine, not of a run.

SDCLR_CACHE            folder of indices and of bytes that were read; ~/.cache/sdclr
SDCLR_CACHE_GB         how much of what was read is kept there; 10; 0: nothing
SDCLR_REMOTE_RETRIES   how often a failed request is repeated; 6, which takes half a minute
SDCLR_REMOTE_SECONDS   how long a server may be silent; 60
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from sdclr.errors import ConfigError

CONNECTIONS = 16
"""Images that are read at once by default: latency takes longer than the transfer."""
INDEX_CONNECTIONS = 64
"""Shards whose headers are read at once: each waits for one small answer after another."""


def cache_folder() -> Path:
    """The folder of indices and of bytes that were read."""
    if given := os.environ.get("SDCLR_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdclr"


def cache_bytes() -> int:
    """How many bytes of what was read are kept."""
    return int(1e9 * _number("SDCLR_CACHE_GB", 10.0))


def num_retries() -> int:
    """How often a request is repeated after a failure."""
    return int(_number("SDCLR_REMOTE_RETRIES", 6.0))


def patience_seconds() -> float:
    """How long a server may be silent."""
    return max(_number("SDCLR_REMOTE_SECONDS", 60.0), 0.1)


def require_valid() -> None:
    """ConfigError for a limit that is not a number, before anything is read, so that no image is blamed for it."""
    for ask in (cache_bytes, num_retries, patience_seconds):
        ask()


def _number(name: str, usual: float) -> float:
    text = os.environ.get(name, "")
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e9:
        raise ConfigError(f"{name} must be a number of at least 0, got {text[:40]!r}.")
    return value
