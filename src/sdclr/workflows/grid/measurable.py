"""Check that the runs of a grid can be measured on the user's own images, before the first is trained."""

from __future__ import annotations

from sdclr.compute.process_state import silenced_warnings
from sdclr.data import Data, build_data
from sdclr.errors import ConfigError, DataError, NoLabelsError
from sdclr.evaluation.probes import PROBES
from sdclr.jobs.evaluate.cross_validation import cross_validated_rows
from sdclr.jobs.evaluate.untested import rows_with_enough_images, untested_classes
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.matrix import Cell


def require_measurable(cells: GridCells, cell: Cell) -> None:
    """Raise an error if no run of the grid could be evaluated on these images after its training, using one ``cell``.

    NoLabelsError without labels, ConfigError if there are too few for a probe, and DataError for classes that
    cannot be measured, unless the file has ``untested: leave_out``.
    """
    grid = cells.grid
    with silenced_warnings():  # the runs give the same warnings
        data = build_data(cell.config.data, exclude=[cells.out])
        _require_labels(data)
        rows = [PROBES[name] for name in grid.probes]
        try:
            if data.test is None:
                rows = cross_validated_rows(rows, grid.protocol, named=True)
            rows_with_enough_images(rows, data, named=True)
        except ConfigError as error:
            raise ConfigError(
                f"{error} No run was started: choose other probes or another protocol in the grid file."
            ) from None
        parts = ("folds",) if data.test is None else ("test", "train")
        untested_classes(
            data, parts, grid.file.untested, remedy="untested: leave_out in the grid file"
        )


def _require_labels(data: Data) -> None:
    if data.split is None or data.train.labels is None:
        raise NoLabelsError(
            "a grid compares accuracies, and the images have no labels; no run was started. Set data.labels=folders "
            "where the sub-folders are the classes, or let data.path be a table with the columns path and label."
        )
    if data.test is not None and data.test.labels is None:
        raise DataError(
            "a grid compares accuracies, and the test images have no labels; no run was started. Give them, or leave "
            "the test set out."
        )
