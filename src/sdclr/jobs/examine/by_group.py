"""A run's records of its images, by group of classes and epoch: RUN/examination/groups.json.

E epochs, N training images. Labels identify the images of rare classes; training did not see them.
Without labels, all images form one group.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sdclr.data.trained_images import trained_images
from sdclr.errors import ConfigError, DataError, MissingInputError, SdclrError
from sdclr.evaluation.balancedness import OF_DATA, class_groups
from sdclr.image_records import BYTES_EACH, COLUMNS, ImageRecords, read_records
from sdclr.run import Run
from sdclr.run.files import GROUPS_FILE, RECORDS_FILE
from sdclr.run.next_step import report_command
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig

MINED_SHARES = {"1": 0.01, "10": 0.1}
"""Percent, as in the name of a measure -> share of the images that disagree most."""
BINS = 30

Membership = npt.NDArray[np.bool_]


def group_records(run: Run, data_path: str | None = None) -> dict[str, Any]:
    """Means of loss and disagreement in each group, and its share of the images that disagree most, by epoch.

    ``data_path`` replaces the config's if the data have moved. If the images of rare classes are unknown, because
    there are no labels or the data cannot be read, all images form one group, and the result gives the reason.
    Raises MissingInputError if the run kept no records, and DataError if they are damaged.
    """
    run.require()
    epochs, path = len(run.metrics()), run.folder / RECORDS_FILE
    num_images = path.stat().st_size // (epochs * BYTES_EACH) if path.is_file() and epochs else 0
    records = read_records(run.folder, num_images)
    why: str | None = None
    try:
        members = _members(run, num_images, data_path)
    except SdclrError as error:
        members, why = {"all": np.ones(num_images, dtype=np.bool_)}, str(error)
    content = {
        "why_no_groups": why,
        "num_images": {name: int(rows.sum()) for name, rows in members.items()},
        "epochs": by_epoch(records, members),
        "disagreement": _distribution(records, members),
    }
    with run:
        run.write_json(GROUPS_FILE, content)
    return content


def _members(run: Run, num_images: int, data_path: str | None) -> dict[str, Membership]:
    """Group -> mask of the recorded images in it; raises an SdclrError that explains why groups are unknown."""
    config = PretrainConfig.from_yaml(run.config_path, foreign=True)
    data = trained_images(run, config.data.with_values({"path": data_path} if data_path else {}))
    images = data.pretraining_images(config.data.subset)
    if data.fingerprint != run.read_json("split.json", "fingerprint")["fingerprint"]:
        raise ConfigError(
            f"the data are not those that {shown(run.folder)} was trained on: their fingerprints differ. "
            f"Where these are: {report_command(run, more=['--data'])} PATH"
        )
    if images.labels is None:
        raise MissingInputError(
            "the images have no labels: which are of rare classes cannot be known."
        )
    if skipped := run.skipped_images():
        kept = [row for row, name in enumerate(images.names) if name not in skipped]
        images = images.at(np.array(kept, dtype=np.int64))
    if len(images) != num_images:
        raise DataError(f"{RECORDS_FILE} is of {num_images} images, and there are {len(images)}.")
    assert images.labels is not None
    groups = class_groups(data.long_tail_counts(), OF_DATA[data.conventions])
    return {name: np.isin(images.labels, classes) for name, classes in groups.items()}


def _distribution(records: ImageRecords, members: dict[str, Membership]) -> dict[str, Any]:
    """A histogram of each group's disagreement in the last epoch, in bins of equal width."""
    column = np.asarray(records.values[-1][:, COLUMNS.index("disagreement")], dtype=np.float64)
    known = column[np.isfinite(column)]
    if not len(known) or np.ptp(known) == 0:
        return {"edges": [], "counts": {}}
    edges = np.histogram_bin_edges(known, bins=BINS)
    counts = {
        name: np.histogram(column[rows & np.isfinite(column)], edges)[0].tolist()
        for name, rows in members.items()
    }
    return {"edges": edges.tolist(), "counts": counts}


def by_epoch(records: ImageRecords, members: dict[str, Membership]) -> list[dict[str, float]]:
    """One entry per epoch: record_loss_few, record_disagreement_few, mined_1_few and so on, where they are known.

    Images that an epoch left out are not counted for that epoch.
    """
    entries = []
    for number, values in enumerate(records.values, start=1):
        entry: dict[str, float] = {"epoch": number}
        for name in ("loss", "disagreement"):
            column = np.asarray(values[:, COLUMNS.index(name)], dtype=np.float64)
            for group, rows in members.items():
                met = column[rows & np.isfinite(column)]
                if len(met):
                    entry[f"record_{name}_{group}"] = float(met.mean())
        entry |= _most_disagreed(values, members)
        entries.append(entry)
    return entries


def _most_disagreed(
    values: npt.NDArray[np.float32], members: dict[str, Membership]
) -> dict[str, float]:
    """Each group's share of the images with the largest disagreement."""
    disagreement = np.asarray(values[:, COLUMNS.index("disagreement")], dtype=np.float64)
    met = np.flatnonzero(np.isfinite(disagreement))
    if not len(met) or np.ptp(disagreement[met]) == 0:
        return {}
    order = met[np.argsort(-disagreement[met], kind="stable")]
    found = {}
    for percent, share in MINED_SHARES.items():
        top = order[: max(math.ceil(share * len(order)), 1)]
        for group, rows in members.items():
            found[f"mined_{percent}_{group}"] = float(rows[top].mean())
    return found
