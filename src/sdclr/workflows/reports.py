"""A report of any runs: those on images of one's own, or without an evaluation, are examined first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdclr.errors import SdclrError
from sdclr.jobs.report import has_own_images, is_examined, write_report
from sdclr.presentation.progress import AnyProgress
from sdclr.run import Run


def report(
    runs: Sequence[Path],
    formats: set[str],
    *,
    data_path: str | None = None,
    progress: AnyProgress,
    **options: Any,
) -> None:
    """As :func:`write_report`, with ``options`` handed on; ``data_path``: where the images of the runs are now.

    Examined are runs without an evaluation, and evaluated ones on somebody's own images, of which a table of numbers
    alone (CSV) shows nothing. An examination that cannot be made is a warning: the report shows the rest.
    """
    folders = [Run(run) for run in runs]
    are_evaluated = options.get("protocol") is not None or any(
        run.evaluated_protocols() for run in folders
    )
    for run in folders:
        is_shown = has_own_images(run) and formats != {"csv"} if are_evaluated else True
        if is_shown and run.backbone_path.is_file() and not is_examined(run):
            _examine(run, data_path, progress)
    write_report(runs, formats, **options)


def _examine(run: Run, data_path: str | None, progress: AnyProgress) -> None:
    from sdclr.jobs.examine import examine  # torch, which a report of examined runs does without

    try:
        examine(run, data_path=data_path, progress=progress)
    except SdclrError as error:
        warnings.warn(f"{run.folder} is reported without measurements: {error}", stacklevel=3)
