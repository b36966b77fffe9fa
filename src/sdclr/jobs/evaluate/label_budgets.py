"""JOB: a finished run -> accuracy of its few-shot probe against the number of labels, in RUN/few_labels.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.backbones.weights import load_backbone
from sdclr.compute.process_state import silenced_warnings
from sdclr.config import user_path
from sdclr.data import Data
from sdclr.errors import ConfigError
from sdclr.evaluation.balancedness import OF_DATA, balancedness
from sdclr.evaluation.probes import ProbeRow, Protocol, few_label_probe
from sdclr.evaluation.verdict import mean_interval
from sdclr.jobs.evaluate.choices import Untested, check_protocol, check_untested
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.images import evaluated_data, usable
from sdclr.jobs.evaluate.job import placed, with_path
from sdclr.jobs.evaluate.label_sets import Kind, LabelSetRequest, LabelSets, label_sets
from sdclr.jobs.evaluate.measurement import Measurement
from sdclr.jobs.evaluate.record import measured_on
from sdclr.jobs.evaluate.untested import require_validation
from sdclr.presentation.details import labelled_title
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.run.files import FEW_LABELS_FILE


@dataclass(frozen=True)
class FewLabelsPoint:
    """Accuracy with sets of labelled images of one size, as fractions."""

    protocol: str
    probe: str
    """Its heading in tables."""
    kind: Kind
    value: float | None
    source: str | None
    sha256: str | None
    num_labelled: int
    num_classes: int
    seeds: list[int]
    accuracies: list[float]
    """Mean over the classes, for each seed."""
    few: list[float | None]
    """Mean over the few classes only."""

    @property
    def mean(self) -> float:
        return mean_interval(self.accuracies)[0]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % t-interval over the drawn sets; None for a single set, and if all accuracies are equal."""
        return mean_interval(self.accuracies)[1]

    def sentence(self) -> str:
        """One line for a terminal."""
        title = labelled_title(self.kind, self.value, self.source)
        num = len(self.accuracies)
        drawn = f"{num} sets, all equal: no interval" if num > 1 else "one set: no interval"
        if self.interval is not None:
            low, high = (100 * end for end in self.interval)
            drawn = f"[{low:.2f}, {high:.2f}] over {len(self.seeds)} drawn sets"
        return f"{title} ({self.num_labelled:,} images): {100 * self.mean:.2f} % {drawn}"


def few_labels(
    run: Run | Path | str,
    *,
    few_shot: Path | str | None = None,
    labels_per_class: Sequence[int] = (),
    label_share: Sequence[float] = (),
    label_seeds: int = 5,
    protocol: Protocol = "cached",
    labels: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    data_path: str | None = None,
    device: str = "auto",
    untested: Untested | None = None,
    progress: AnyProgress | None = None,
) -> list[FewLabelsPoint]:
    """Measure a run with few labels; write RUN/few_labels.json and return the requested points.

    The probe is the few-shot probe of ``protocol``. ``few_shot``: a list of labelled training images: a .npy of
    positions from 0, a text file with one name per line, or a table with a column path. ``labels_per_class``: that many
    images of each class; ``label_share``: a share of the training images of each class, in (0, 1]. These are drawn
    ``label_seeds`` times, with the seeds 1, 2, ..., but only once if every image is taken; for one seed, a larger set
    contains the smaller ones. ``labels``, ``settings``, ``data_path`` and ``untested`` are those of :func:`evaluate`.
    Points that were measured before stay in the file if they come from the same weights, data, groups and precision.
    Raises ConfigError, DataError or MissingInputError, before any work, for a set that cannot be formed.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> points = sdclr.few_labels(run, labels_per_class=[1, 5], label_seeds=2)
    >>> [(point.value, point.num_labelled, len(point.accuracies)) for point in points]
    [(1, 10, 2), (5, 50, 2)]
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    show = progress or NoProgress()
    file = None if few_shot is None else user_path(str(few_shot))
    request = LabelSetRequest(file, tuple(labels_per_class), tuple(label_share), label_seeds)
    row = few_label_probe(check_protocol(protocol))
    settings = with_path(settings or {}, data_path)
    came_later = labels is not None or "data.labels" in settings
    rule = check_untested(untested or ("leave_out" if came_later else "raise"))
    with run:
        found = evaluated_data(run, settings, None if labels is None else user_path(str(labels)))
        _require_test_set(found.data)
        require_validation([row], protocol, found.data)
        # checked before any image is opened; repeated below, with warnings, on the usable images
        with silenced_warnings():
            label_sets(request, found.data, rule)
        backbone = placed(load_backbone(run.folder), device)
        data = usable(run, found.config, found.data, progress)
        sets = label_sets(request, data, rule)
        data = _with_all_sets(data, sets)
        frozen = FrozenFeatures(
            backbone, data, found.config.views.size, show, found.config.precision
        )
        measure = Measurement(frozen, rule)
        points = []
        for one in sets:
            points.append(_point(measure, frozen, one, protocol, row, show))
            _record(run, measured_on(run, found), points[-1])  # at once
    return points


def _require_test_set(data: Data) -> None:
    if data.test is None:
        raise ConfigError(
            "few labels are measured on a labelled test set, and this run has none: give data.test_path=FOLDER or a "
            "list. Without one, sdclr evaluate cross-validates the labelled images."
        )


def _with_all_sets(data: Data, sets: Sequence[LabelSets]) -> Data:
    """The same, with the union of all sets as its few-shot part, so that features are extracted once."""
    everything = np.unique(np.concatenate([one for point in sets for one in point.sets]))
    return replace(data, split=replace(data.labelled_split(), few_shot=everything))


def _point(
    measure: Measurement,
    frozen: FrozenFeatures,
    request: LabelSets,
    protocol: Protocol,
    row: ProbeRow,
    show: AnyProgress,
) -> FewLabelsPoint:
    data = frozen.data
    split = data.labelled_split()
    assert data.train.labels is not None
    num_classes = len(data.class_names)
    counts = split.counts("long_tail", data.train.labels, num_classes)
    accuracies, few = list[float](), list[float | None]()
    task = show.add(request.title, total=len(request.sets), unit="sets")
    for positions in request.sets:
        learned = np.searchsorted(split.few_shot, positions)
        measured = measure.run(protocol, row, learned).per_class_accuracy
        groups = balancedness(measured, counts, OF_DATA[data.conventions])
        accuracies.append(groups.all)
        few.append(None if math.isnan(groups.few) else groups.few)
        show.advance(task, 1)
    show.finish(task)
    drawn = request.kind != "file"
    return FewLabelsPoint(
        protocol,
        row.display_name,
        request.kind,
        request.value,
        request.source,
        request.sha256,
        num_labelled=len(request.sets[0]),
        num_classes=len(np.unique(data.train.labels[request.sets[0]])),
        seeds=list(range(1, len(request.sets) + 1)) if drawn else [0],
        accuracies=accuracies,
        few=few,
    )


def _record(run: Run, identity: Mapping[str, Any], point: FewLabelsPoint) -> None:
    """Add the point to the file; replace an earlier point of the same sets, and all points of another ``identity``.

    For a file from an earlier version, weights, data and precision are compared; no recorded precision means fp32.
    """
    content = run.read_side_file(FEW_LABELS_FILE, optional=True)
    compared = identity.keys() & (content.keys() | {"backbone", "fingerprint", "features_in"})
    is_same = all(content.get(key) == identity[key] for key in compared)
    before = content.get("points", []) if is_same else []
    new = asdict(point)
    kept = [one for one in before if not _same_sets(one, new)]
    run.write_json(FEW_LABELS_FILE, {**identity, "points": [*kept, new]})


def _same_sets(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    key = ("protocol", "kind", "value", "sha256")
    return all(one.get(name) == other.get(name) for name in key)
