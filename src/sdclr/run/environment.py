"""environment.json of a run folder: versions, device, command."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sdclr.addresses import redacted
from sdclr.safe_text import command


def environment(device: str, world_size: int = 1) -> dict[str, Any]:
    """environment.json: what a reader needs to trust or repeat the numbers."""
    return {
        "sdclr": own_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "python": platform.python_version(),
        "device": device,
        "world_size": world_size,
        "command": command(_program(), *map(redacted, sys.argv[1:])),
        "commit": _commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _program() -> str:
    """The command to type for this process's program."""
    name = Path(sys.argv[0]).name
    return "sdclr" if name == "__main__.py" else name  # python -m sdclr


def own_version() -> str:
    """The version of the running code, which need not be installed."""
    import sdclr

    return sdclr.__version__


@cache
def _version(package: str) -> str | None:
    """The version of a package; None for one without metadata."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache  # the running code was imported by then; the checkout may change later
def _commit() -> str | None:
    """The package's git commit when it runs from a checkout, with + when there are changes."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=5
        )
        if (
            top.returncode
            or not (Path(top.stdout.strip()) / "src" / "sdclr" / "run" / "environment.py").exists()
        ):
            return None
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5
        )
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=5)
        return commit.stdout.strip() + ("+" if dirty.returncode else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None
