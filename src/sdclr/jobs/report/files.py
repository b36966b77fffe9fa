"""Where a report goes: the terminal, standard output, or a file for each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from sdclr.checkpoint import write_atomically
from sdclr.errors import ConfigError, RunFolderError, StorageError

R = TypeVar("R")


@dataclass(frozen=True)
class FileFormat(Generic[R]):
    """A format that can be a file."""

    suffix: str
    render: Callable[[R], str]
    default: Path | None = None
    """Where it goes when no place is given; None is standard output."""


def check_formats(wanted: set[str], known: Mapping[str, object]) -> None:
    """Raise ConfigError for a format that does not exist, before any work."""
    if unknown := wanted - {"terminal", *known}:
        raise ConfigError(f"unknown report format {min(unknown)!r}; choose from terminal, {', '.join(known)}.")


def deliver(
    report: R,
    wanted: set[str],
    show: Callable[[R, Console], None],
    formats: Mapping[str, FileFormat[R]],
    out: Path | None,
    stem: str,
    console: Console | None,
) -> None:
    """Show the report where "terminal" is wanted, and write the other formats.

    ``out`` may be a folder, in which files are named ``stem``; with several file formats it lends its name and each
    format its suffix. Raises StorageError where a file cannot be written.
    """
    console = console or Console()
    if "terminal" in wanted:
        show(report, console)
    files = {name: found for name, found in formats.items() if name in wanted}
    for name, found in files.items():
        target = found.default
        if out is not None and out.is_dir():
            target = out / f"{stem}{found.suffix}"
        elif out is not None:
            target = out if len(files) == 1 else out.with_suffix(found.suffix)
        if target is None:
            console.file.write(found.render(report))
        else:
            _write(target, found.render(report))
            console.print(f"{name} report: {target}", markup=False, highlight=False, soft_wrap=True)


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
    except (OSError, RunFolderError) as error:
        raise StorageError(f"cannot write the report to {target}: {error}. Choose another place with --out.") from None
