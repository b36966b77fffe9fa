"""JOB: a finished run -> probes on its frozen backbone -> accuracy per class, in RUN/evaluation/<protocol>.json.

Protocols are named and never mixed: ``sdclr`` is the paper's (SGD on augmented images, epoch chosen on validation),
``cached`` extracts features once and fits regularised logistic regressions: seconds instead of minutes. ``bcl`` and
``ts`` follow two later papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.backbones.weights import load_backbone
from sdclr.compute.device import placed_on, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.config import user_path
from sdclr.errors import CheckpointError, ConfigError
from sdclr.evaluation.probes import PROBES, ProbeRow, Protocol, published_probes
from sdclr.evaluation.results import Evaluation
from sdclr.jobs.evaluate.choices import (
    AUTHORS_CLASSIFIER,
    Untested,
    check_protocol,
    check_untested,
    chosen_probes,
)
from sdclr.jobs.evaluate.cross_validation import CrossValidation, cross_validated_rows
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures, Shared
from sdclr.jobs.evaluate.images import Evaluated, evaluated_data, facts_of_usable, usable
from sdclr.jobs.evaluate.measurement import Measurement
from sdclr.jobs.evaluate.record import record
from sdclr.jobs.evaluate.untested import require_validation, rows_with_enough_images
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.world import ALONE, MAY_WRITE, World, shared_work
from sdclr.run import Run
from sdclr.storage.named_tensors import load_strictly


def evaluate(
    run: Run | Path | str,
    *,
    protocol: Protocol = "cached",
    probes: Sequence[str] | None = None,
    labels: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    data_path: str | None = None,
    network: nn.Module | None = None,
    device: str = "auto",
    untested: Untested | None = None,
    progress: AnyProgress | None = None,
) -> Evaluation:
    """Probe a finished run and write evaluation/<protocol>.json; return its content.

    ``probes``: their names (default: all that the protocol has; :func:`~sdclr.register_probe` adds one of your own).
    ``labels``: a table or list with the names and labels of some or all of the run's images, for a run without labels
    or with other ones. ``settings``: by dotted name, settings in which this evaluation differs from training, such as
    {"data.test_path": "photos-test", "data.on_error": "skip"}; the run's own settings are not changed. Features of a
    run that was started with precision=bf16 are computed in bf16, unless "precision" overrides it. Without a test
    set the labelled images are cross-validated (protocol ``cached`` only).
    ``data_path`` replaces the config's if the images have moved. ``network``: your own module, for a run with one.
    Earlier results of probes that are not requested again stay in the file if they come from the same weights,
    labels, test images, groups and precision; otherwise they are replaced, with a warning. ``untested``: how a class
    without a usable test or training image is handled: ``raise`` raises a DataError that names it, before any work;
    ``leave_out`` warns, and its accuracy is None and counts in no mean. Default: ``leave_out`` with labels that were
    supplied later (``labels``, or ``data.labels`` in ``settings``), which may be few; otherwise ``raise``.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["knn"])
    >>> len(evaluation.probe("knn").per_class_accuracy), evaluation.group_convention
    (10, 'thirds')
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    check_protocol(protocol)
    rows = chosen_probes(probes, protocol, run)
    show = progress or NoProgress()
    settings = with_path(settings or {}, data_path)
    came_later = labels is not None or "data.labels" in settings
    rule = check_untested(untested or ("leave_out" if came_later else "raise"))
    given = None if labels is None else user_path(str(labels))

    def frozen_of(found: Evaluated, world: World, show: AnyProgress) -> FrozenFeatures:
        backbone = placed(load_backbone(run.folder, network), device, world)
        data, config = usable(run, found.config, found.data, show), found.config
        shared = Shared(world, run.folder / "evaluation", run.backbone_identity())
        size, precision = config.views.size, config.precision
        return FrozenFeatures(backbone, data, size, show, precision, shared)

    with shared_work(f"evaluate {run.folder}") as world:
        if not world.is_first:
            with silenced_warnings():  # the first process gives the same warnings
                frozen_of(evaluated_data(run, settings, given), world, NoProgress()).help()
        else:
            with run:  # locked throughout: no other process measures the same thing meanwhile
                if run.evaluation_path(protocol).is_file():
                    run.read_evaluation(protocol)  # a damaged file is reported before any work
                world.messages.publish(MAY_WRITE, {})
                found = evaluated_data(run, settings, given)
                if found.data.test is None:
                    rows = cross_validated_rows(rows, protocol, named=probes is not None)
                rows = rows_with_enough_images(rows, found.data, named=probes is not None)
                require_validation(rows, protocol, found.data)
                for remark in found.data.remarks:
                    show.print(remark)
                frozen = frozen_of(found, world, show)
                _measure(run, found, frozen, protocol, rows, rule)
                frozen.dismiss()
    return Evaluation.of_content(run.read_evaluation(protocol), run.evaluation_path(protocol))


def _measure(
    run: Run,
    found: Evaluated,
    frozen: FrozenFeatures,
    protocol: Protocol,
    rows: Sequence[ProbeRow],
    rule: Untested,
) -> None:
    measure = (
        CrossValidation(frozen, rule, seed=found.config.data.split)
        if frozen.data.test is None
        else Measurement(frozen, rule)
    )
    facts = facts_of_usable(run, found, frozen.data)
    if found.config.precision == "bf16":
        facts["features_in"] = "bf16"
    wanted = [row.name for row in rows]
    for row in rows:
        result = measure.run(protocol, row)
        # at once: one probe's result is not lost if the next probe fails
        results, used = {row.name: result}, frozen.data.split
        record(
            run, found.data, protocol, results, facts, measure.num_predicted, wanted, usable=used
        )


def evaluate_classifier(
    run: Run | Path | str,
    checkpoint: Path | str,
    probe: str,
    *,
    data_path: str | None = None,
    device: str = "auto",
    progress: AnyProgress | None = None,
) -> Evaluation:
    """Test the classifier that the authors fine-tuned, with the backbone in its file, on the run's test set.

    ``probe``: the probe it was tuned as, one of the paper's. Nothing is trained: this is the reference's
    ``--test_only``. Writes evaluation/authors_classifier.json, a protocol of its own. Raises
    CheckpointError for a file without a classifier and ConfigError if its architecture or number of
    classes differs from the run's.

    >>> import sdclr
    >>> config = sdclr.recipe("cifar10_lt_sdclr").with_values({"data.path": "DATA"})  # doctest: +SKIP
    >>> run = sdclr.adopt("finetuned.pt", config, "runs/theirs")  # doctest: +SKIP
    >>> sdclr.evaluate_classifier(run.folder, "finetuned.pt", "linear")  # doctest: +SKIP
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    if probe not in published_probes():
        raise ConfigError(
            f"a classifier was tuned for {' or '.join(published_probes())}, got {probe!r}."
        )
    with run:
        config, data, _ = evaluated_data(run, with_path({}, data_path), None)
        data.labelled_split()  # raises without a test set
        found = read_authors_checkpoint(checkpoint)
        if found.classifier is None:
            raise CheckpointError(
                f"{checkpoint} holds no classifier: it is a pre-training checkpoint. Use --protocol."
            )
        num_classes = len(data.class_names)
        if found.architecture != config.backbone or len(found.classifier["weight"]) != num_classes:
            raise ConfigError(
                f"{checkpoint} is a {found.architecture.name} of width {found.architecture.width} for "
                f"{len(found.classifier['weight'])} classes; {run.folder} has a {config.backbone.name} of width "
                f"{config.backbone.width} and {num_classes} classes."
            )
        classifier = skip_init(nn.Linear, found.classifier["weight"].shape[1], num_classes)
        load_strictly(classifier, found.classifier, str(checkpoint))
        show = progress or NoProgress()
        used = usable(run, config, data, progress)
        measure = Measurement(
            FrozenFeatures(placed(found.backbone, device), used, config.views.size, show)
        )
        theirs, ours = found.backbone.net.state_dict(), load_backbone(run.folder).net.state_dict()
        changed = [name for name in ours if not torch.equal(ours[name], theirs[name].cpu())]
        detail = (
            f"the authors' classifier ({Path(checkpoint).name}, epoch {found.epoch}), backbone "
            + (
                f"differs from the run's in {len(changed)} tensors"
                if changed
                else "equal to the run's"
            )
        )
        result = measure.classifier(classifier, detail, PROBES[probe])
        results = {probe: result}
        return record(run, data, AUTHORS_CLASSIFIER, results, {}, num_classes, usable=used.split)


def with_path(settings: Mapping[str, Any], data_path: str | None) -> dict[str, Any]:
    """The settings of an evaluation, including ``data_path``. Raises ConfigError if both give the path."""
    if data_path is None:
        return dict(settings)
    if "data.path" in settings:
        raise ConfigError("data_path and data.path say the same thing; give one of them.")
    return {**settings, "data.path": data_path}


def placed(backbone: nn.Module, device: str, world: World = ALONE) -> nn.Module:
    where = world.device(resolve_device(device))
    return placed_on(backbone, where)
