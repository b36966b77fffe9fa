"""JOB run folders -> the figures of an analysis as files: SVG, PNG and the numbers as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdclr.errors import ConfigError, MissingInputError, RunFolderError, StorageError
from sdclr.evaluation.balancedness import GroupConvention
from sdclr.jobs.report.evaluated import build_report
from sdclr.jobs.report.unlabelled import read_without_labels
from sdclr.presentation.drawings import Figure
from sdclr.presentation.figure_files import figure_files, file_names
from sdclr.presentation.figures import all_figures, missing_figures
from sdclr.presentation.html import material_of
from sdclr.presentation.report import Report
from sdclr.presentation.unlabelled import UnlabelledRun
from sdclr.run import Run
from sdclr.safe_text import shown
from sdclr.storage.durable_files import make_folder, write_atomically


@dataclass(frozen=True)
class WrittenFigures:
    """The written files, and the figures that could not be drawn."""

    files: Sequence[Path]
    missing: dict[str, str]
    """Title of a figure -> what it needs, with the command that creates it."""


def write_figures(
    runs: Sequence[Path | str],
    out: Path | str = "figures",
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    *,
    overwrite: bool = False,
) -> WrittenFigures:
    """Draw each figure that the runs allow: NAME.svg, NAME.png and NAME.csv in ``out``.

    Figures of accuracies need evaluated runs, those of training any run. Raises ConfigError
    if a file of that name exists, unless ``overwrite``; and what :func:`build_report` raises.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> written = sdclr.write_figures([run], "figures", overwrite=True)
    >>> [path.name for path in written.files if path.name.startswith("loss")]
    ['loss.svg', 'loss.png', 'loss.csv']
    """
    if not runs:
        raise ConfigError("figures needs at least one run folder.")
    folders = [Run(run).require() for run in runs]
    report: Report | None = None
    if all(run.evaluated_protocols() for run in folders):
        report = build_report(runs, protocol, groups)
    elif any(run.evaluated_protocols() for run in folders):
        without = next(run for run in folders if not run.evaluated_protocols())
        raise MissingInputError(
            f"{shown(without.folder)} has no evaluation and others have; evaluate it, or draw its figures alone."
        )
    elif len(folders) > 1:
        raise ConfigError("runs without an evaluation are drawn one at a time; give one of them.")
    labels = {record.folder: record.arm for record in report.runs} if report is not None else {}
    shown_protocol = report.protocol if report is not None else None
    parts: list[UnlabelledRun] = [
        read_without_labels(run, protocol=shown_protocol, label=labels.get(str(run.folder)))
        for run in folders
        if run.backbone_path.is_file()
    ]
    arms = report.arms if report is not None else [part.record.arm for part in parts]
    material = material_of(report, parts, arms)
    figures = all_figures(material)
    if not overwrite:
        _require_free(Path(out), figures)
    files = _write(Path(out), figure_files(figures))
    return WrittenFigures(files, missing_figures(material))


def _require_free(out: Path, figures: Sequence[Figure]) -> None:
    """Raise ConfigError for a file that exists, before anything is drawn."""
    for name in (name for figure in figures for name in file_names(figure)):
        if (out / name).exists():
            raise ConfigError(
                f"{shown(out / name)} exists; give --overwrite to replace it, or another --out."
            )


def _write(out: Path, content: dict[str, bytes]) -> list[Path]:
    try:
        make_folder(out)
        for name, data in content.items():
            write_atomically(out / name, data)
    except (StorageError, RunFolderError) as error:
        raise StorageError(f"cannot write the figures: {error}") from None
    return [out / name for name in content]
