"""A report of any runs: analyses of their networks or images are made first; failed analyses do not prevent it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sdclr.errors import DataError, InUseError, MissingInputError, SdclrError
from sdclr.jobs.report import (
    WrittenFigures,
    has_own_images,
    is_analysed,
    is_examined,
    write_figures,
    write_report,
)
from sdclr.methods.table import competitor_settings
from sdclr.presentation.progress import AnyProgress
from sdclr.run import Run
from sdclr.run.files import GROUPS_FILE, LAYERS_FILE, RECORDS_FILE


class Analysis(NamedTuple):
    """One analysis of a run that is made before it is reported."""

    is_wanted: Callable[[Run], bool]
    """Whether the run has its inputs, but not its result yet."""
    make: Callable[[Run, str | None, AnyProgress], object]
    """Takes a run, and the current place of its data."""
    brings: tuple[str, ...]
    """The sections of the page that are missing without it."""


def _layers(run: Run, _: str | None, __: AnyProgress) -> None:
    # imports torch, which a report of examined runs does not need
    from sdclr.jobs.examine import layer_densities

    layer_densities(run)


def _groups(run: Run, data_path: str | None, _: AnyProgress) -> None:
    from sdclr.jobs.examine import group_records

    group_records(run, data_path)


def _examined(run: Run, data_path: str | None, progress: AnyProgress) -> None:
    from sdclr.jobs.examine import examine

    examine(run, data_path=data_path, progress=progress)


def _wants_groups(run: Run) -> bool:
    return (run.folder / RECORDS_FILE).is_file() and not is_analysed(run, GROUPS_FILE)


def _wants_layers(run: Run) -> bool:
    try:
        has_competitor = competitor_settings(run.settings()) is not None
    except DataError:  # reported where the settings are read
        return False
    return has_competitor and not is_analysed(run, LAYERS_FILE)


ANALYSES: Mapping[str, Analysis] = {
    "layers": Analysis(_wants_layers, _layers, ("competitor",)),
    "groups": Analysis(_wants_groups, _groups, ("groups",)),
    "examination": Analysis(
        lambda run: not is_examined(run), _examined, ("neighbours", "map", "views")
    ),
}
"""Name -> analysis; they are independent: a failed one does not affect the others."""


def report(
    runs: Sequence[Path],
    formats: set[str],
    *,
    data_path: str | None = None,
    progress: AnyProgress,
    **options: Any,
) -> None:
    """Like :func:`write_report`, which gets ``options``; ``data_path``: the current place of the runs' images.

    Runs without an evaluation are examined, a single run that gets a page, and evaluated ones on the user's own images
    unless only a table of numbers (CSV) is written. An examination that fails is a warning: the
    report shows the rest, with what is missing and why.
    """
    folders = [Run(run) for run in runs]
    are_evaluated = options.get("protocol") is not None or any(
        run.evaluated_protocols() for run in folders
    )
    has_page = "html" in formats

    def analyses() -> dict[str, dict[str, str]]:
        why_missing: dict[str, dict[str, str]] = {}
        for place, run in zip(runs, folders, strict=True):
            if not run.backbone_path.is_file() or not run.exists:
                continue
            is_shown = has_own_images(run) and formats != {"csv"} if are_evaluated else True
            wanted = {"examination"} if is_shown or (has_page and len(folders) == 1) else set()
            if has_page:
                wanted |= {"groups", "layers"}
            why_missing[str(place)] = analyse(run, wanted, data_path, progress)
        return why_missing

    write_report(runs, formats, why_missing=analyses, **options)


def figures(
    runs: Sequence[Path],
    out: Path,
    *,
    data_path: str | None = None,
    progress: AnyProgress,
    **options: Any,
) -> WrittenFigures:
    """Like :func:`write_figures`; analyses of weights and records are made first, and a failed one is a warning."""
    for run in map(Run, runs):
        if run.exists and run.backbone_path.is_file():
            analyse(run, {"groups", "layers"}, data_path, progress)
    return write_figures(runs, out, **options)


def analyse(
    run: Run, wanted: set[str], data_path: str | None, progress: AnyProgress
) -> dict[str, str]:
    """Make the ``wanted`` analyses that do not exist yet; return section of the page -> why it will be missing."""
    why: dict[str, str] = {}
    for name, analysis in ANALYSES.items():
        if name not in wanted or not analysis.is_wanted(run):
            continue
        try:
            analysis.make(run, data_path, progress)
        except SdclrError as error:
            if not isinstance(error, InUseError):  # then the same command makes it later
                why |= dict.fromkeys(analysis.brings, str(error))
            if name == "examination":
                warnings.warn(
                    f"{run.folder} is reported without measurements: {error}", stacklevel=3
                )
            elif not isinstance(error, MissingInputError):
                warnings.warn(f"{run.folder} is reported without {name}: {error}", stacklevel=3)
    return why
