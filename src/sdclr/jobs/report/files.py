"""Deliver a report: to the terminal, standard output, or a file for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console
from rich.text import Text

from sdclr.errors import ConfigError, InUseError, RunFolderError, StorageError
from sdclr.safe_text import shown
from sdclr.storage.durable_files import make_folder, storage_errors, write_atomically
from sdclr.storage.locks import writing
from sdclr.storage.output_files import begins_with, require_free

R = TypeVar("R")
SUFFIXES = (".md", ".csv", ".html", ".json", ".tex")
"""Suffixes of the formats that can be a file."""


@dataclass(frozen=True)
class FileFormat(Generic[R]):
    """A format that can be a file."""

    suffix: str
    render: Callable[[R], str]
    mark: str
    """The first characters of our files of this format; prepended if ``render`` has not written them."""
    default: Path | None = None
    """The target if no place is given; None is standard output."""


def check_formats(wanted: set[str], known: Mapping[str, object]) -> None:
    """Raise ConfigError for an unknown format, or if none is given, before any work."""
    choice = f"choose from terminal, {', '.join(known)}."
    if isinstance(wanted, str):  # a set of it would consist of its letters
        raise ConfigError(
            f"formats are a set of names, such as {{'html'}}, got {wanted!r}; {choice}"
        )
    if not wanted:
        raise ConfigError(f"no report format is given; {choice}")
    if unknown := wanted - {"terminal", *known}:
        raise ConfigError(f"unknown report format {min(unknown)!r}; {choice}")


def places(
    wanted: set[str],
    formats: Mapping[str, FileFormat[R]],
    out: Path | None,
    stem: str,
    *,
    overwrite: bool,
    ours: bool,
) -> dict[str, Path | None]:
    """The target of each requested file format, checked to be free before any work; None is standard output.

    ``out`` may be a folder, in which files are named ``stem``; with several file formats it gives the name and each
    format the suffix. An existing file is replaced with ``overwrite``, or if its name is not the user's choice (a
    default, in a run folder, or with ``ours`` one that a workflow has chosen) and its first characters show that it is
    ours; otherwise it is a ConfigError. Raises StorageError if a target cannot be written.
    """
    try:
        return _places(wanted, formats, out, stem, overwrite=overwrite, ours=ours)
    except (StorageError, RunFolderError) as error:
        raise StorageError(f"cannot write the report: {error}") from None


def _places(
    wanted: set[str],
    formats: Mapping[str, FileFormat[R]],
    out: Path | None,
    stem: str,
    *,
    overwrite: bool,
    ours: bool,
) -> dict[str, Path | None]:
    files = {name: found for name, found in formats.items() if name in wanted}
    targets: dict[str, Path | None] = {}
    for name, found in files.items():
        target = found.default
        if out is not None:
            with storage_errors(out):
                if out.is_dir():
                    target = out / f"{stem}{found.suffix}"
                else:
                    target = out if len(files) == 1 else _with_suffix(out, found.suffix)
        targets[name] = target
        if target is None:
            continue
        if not overwrite and not _may_be_replaced(
            target, found, named=out is not None and not ours
        ):
            require_free(target, overwrite=False)
        with storage_errors(target):
            if target.is_dir():
                raise ConfigError(f"{shown(target)} is a folder; choose another --out.")
    return targets


def _with_suffix(out: Path, suffix: str) -> Path:
    """Replace the suffix of another format; any other ending, as in abl_0.5, is part of the name."""
    if out.suffix.lower() in SUFFIXES:
        return out.with_suffix(suffix)
    return out.with_name(f"{out.name}{suffix}")


def _may_be_replaced(target: Path, found: FileFormat[R], *, named: bool) -> bool:
    in_a_run = (target.parent / "config.yaml").is_file()
    return (in_a_run or not named) and may_be_replaced(target, found)


def may_be_replaced(target: Path, found: FileFormat[R]) -> bool:
    """Whether a file is ours, by its first characters, or empty."""
    return begins_with(target, found.mark) or _is_empty(target)


def _is_empty(target: Path) -> bool:
    """Whether a file is empty, as a full disk leaves a report; replacing it loses nothing."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == 0


def build_and_deliver(
    build: Callable[[], R],
    wanted: set[str],
    show: Callable[[R, Console], None],
    formats: Mapping[str, FileFormat[R]],
    out: Path | None,
    console: Console | None,
    *,
    overwrite: bool,
    ours: bool,
) -> R:
    """Build the report and deliver it in each of the ``wanted`` formats; all targets are claimed before it is built.

    Raises InUseError where another process is making one of them.
    """
    check_formats(wanted, formats)
    targets = places(wanted, formats, out, "report", overwrite=overwrite, ours=ours)
    with claimed(targets):
        # again, now that no other process writes them
        places(wanted, formats, out, "report", overwrite=overwrite, ours=ours)
        report = build()
        deliver(report, wanted, show, formats, targets, console)
    return report


@contextmanager
def claimed(targets: Mapping[str, Path | None]) -> Iterator[None]:
    """Hold all targets that are files for the block; InUseError where another process does.

    Raises StorageError if one cannot be written. Folders that are made for them and stay empty are removed.
    """
    made: set[Path] = set()
    try:
        with ExitStack() as held:
            for target in sorted({target for target in targets.values() if target is not None}):
                try:
                    made |= {folder for folder in target.parents if not folder.is_dir()}
                    make_folder(target.parent)
                    held.enter_context(writing(target))
                except InUseError:
                    raise
                except (StorageError, RunFolderError) as error:
                    raise StorageError(f"cannot write the report: {error}") from None
            yield
    finally:
        for folder in sorted(made, reverse=True):  # those inside first
            with suppress(OSError):  # it has a report
                folder.rmdir()


def deliver(
    report: R,
    wanted: set[str],
    show: Callable[[R, Console], None],
    formats: Mapping[str, FileFormat[R]],
    targets: Mapping[str, Path | None],
    console: Console | None,
) -> None:
    """Write the file formats to their ``targets``, which are claimed, and show the report if "terminal" is wanted.

    Files come first: an error of the terminal loses nothing. Raises StorageError if a file cannot be written.
    """
    console = console or Console()
    for name, target in targets.items():
        if target is not None:
            text, mark = formats[name].render(report), formats[name].mark
            _write(target, text if text.startswith(mark) else f"{mark}\n\n{text}")
    if "terminal" in wanted:
        show(report, console)
    for name, target in targets.items():
        if target is None:
            console.file.write(formats[name].render(report))
        else:
            console.print(Text(f"{name} report: {shown(target)}"), soft_wrap=True)


def _write(target: Path, text: str) -> None:
    try:
        write_atomically(target, text)
    except (StorageError, RunFolderError) as error:
        raise StorageError(f"cannot write the report: {error}") from None
