"""A trained backbone + labelled images -> MODEL/, a classifier that predicts and exports.

finetune.json            settings, start, data            classifier.safetensors   head, classes, temperature
model.json               results on validation images     backbone.safetensors     like every backbone file
validation.csv           each validation image            metrics.jsonl            one line per epoch
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.backbones.classifier import (
    Classifier,
    is_classifier,
    save_classifier,
)
from sdclr.backbones.config import WeightsMatch
from sdclr.compute.device import describe_device, explain_out_of_memory, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, DataError, DistributedError, RunFolderError
from sdclr.evaluation.features import extract_features
from sdclr.jobs.finetune.build import KEPT_FEATURES, Start, build, open_start, used_views
from sdclr.jobs.finetune.config import FinetuneConfig
from sdclr.jobs.finetune.labelled import Labelled, labelled_images
from sdclr.jobs.finetune.loop import is_to_stop_early, train
from sdclr.jobs.finetune.record import (
    summary,
    temperature_of,
    validation_result,
    validation_table,
)
from sdclr.jobs.finetune.training import (
    State,
    Training,
    agree,
    batch_sizes,
    load_weights_of,
    restore,
)
from sdclr.processes.environment import world_size
from sdclr.processes.messages import GRACE_SECONDS
from sdclr.processes.signals import StopRequest, stop_on_signal
from sdclr.processes.world import MAY_WRITE, World, shared_work
from sdclr.run import Run
from sdclr.run.environment import environment, own_version
from sdclr.run.files import FINETUNE_FILE, LOCK_FILE, looks_like_a_run
from sdclr.run.refusals import require_elsewhere
from sdclr.safe_text import counted, first_of, shown
from sdclr.storage.checkpoint import Checkpoint
from sdclr.storage.durable_files import is_leftover, storage_errors
from sdclr.storage.row_parts import RowParts

FORMAT = "sdclr finetune 1"
SETTINGS_FILE, RESULT_FILE, VALIDATION_FILE = FINETUNE_FILE, "model.json", "validation.csv"


@dataclass(frozen=True)
class Finetuned:
    """A classifier in its folder, accepted wherever a model is expected."""

    folder: Path
    result: dict[str, Any]
    """model.json: validation accuracies with their interval, calibration, the epoch that was kept."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def summary(self) -> str:
        """The main results, in a few lines."""
        return summary(self.result)


def finetune(
    source: Path | str,
    data: DataConfig,
    out: Path | str,
    config: FinetuneConfig | None = None,
    *,
    weights: Path | None = None,
    weights_match: WeightsMatch = "exact",
    network: nn.Module | None = None,
    progress: AnyProgress | None = None,
    **settings: Any,
) -> Finetuned:
    """Train a classifier on the labelled images ``data``, in the new folder ``out``; an interrupted call resumes there.

    ``source``: a run folder, a backbone.safetensors, an earlier model, or timm:NAME or torchvision:NAME (with the
    library's ImageNet weights, or those of the file ``weights``, matched according to ``weights_match``: exact,
    partial or order, as in pre-training). ``config``, or ``settings`` by name: see
    FinetuneConfig. ``network``: your own module, for a run with a custom one. A share of each class is held out to
    choose the epoch, calibrate the confidences and measure the result. Several processes (torchrun) divide the images:
    with fixed features only the first one then trains the head, otherwise all take each step together; every process
    returns the model. Raises an SdclrError that says what to change; Preempted after a signal, with everything saved.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> model = sdclr.finetune(run, config.data, "models/digits", epochs=20, balance="weights")
    >>> model.result["validation"]["balanced_accuracy"] > 0.3
    True
    """
    config = FinetuneConfig.parse(settings) if config is None else config.with_values(settings)
    show, folder = progress or NoProgress(), Path(out)
    grace = GRACE_SECONDS if world_size() > 1 else 0.0
    with (
        stop_on_signal(same_for_seconds=grace, announce=show.announce) as stop,
        shared_work(f"finetune {folder.absolute()}") as world,
        explain_out_of_memory(MEMORY_ADVICE),
        world.explaining(),
    ):
        if not world.is_first:
            with silenced_warnings():  # the first process gives the same warnings
                start = open_start(source, config, weights, weights_match, network)
                _follow(start, data, config, folder, world, stop)
        else:
            _require_ours(folder, data)
            device = world.device(resolve_device(config.device))  # before any work
            start = open_start(source, config, weights, weights_match, network)
            world.messages.publish(MAY_WRITE, {})  # downloads are complete
            labelled = labelled_images(data, config, folder, show)
            _require_images(labelled, config, world)
            with Run(folder) as run:
                _agree(run, start, labelled, data, config)
                finished = is_classifier(folder)
                checkpoint = None if finished else run.checkpoints.newest()
                facts = {"finished": finished, "step": checkpoint.step if checkpoint else None}
                world.messages.publish(_READY, facts | _compared(start, labelled, config))
                if finished:
                    show.print(f"{shown(folder)} is finished.")
                    _remove_what_training_kept(run)  # a call may have been killed before it did
                    return _finished(run)
                _describe_start(start, labelled, config, show, world)
                training, logits = build(start, labelled, config, device, folder, show, world)
                state = State.begin(training.device)
                agree(training)
                _restore(run, training, state, checkpoint, show)
                stop.awaited = True
                if not is_to_stop_early(training, state):
                    train(training, state, run, stop, show, logits, labelled.labels[1])
                result = _finish(training, state, start, labelled, run)
                return Finetuned(folder, result)
    return _finished(Run(folder))


_READY = "the model's folder is ready"


def _finished(run: Run) -> Finetuned:
    return Finetuned(run.folder, run.read_json(RESULT_FILE, "validation", "calibration"))


def _require_images(labelled: Labelled, config: FinetuneConfig, world: World) -> None:
    """Raise ConfigError if processes would share steps of fewer images than there are processes."""
    if world.several and not config.fixes_features:
        world.require_images(min(batch_sizes(len(labelled.labels[0]), config.batch_size)))


def _compared(start: Start, labelled: Labelled, config: FinetuneConfig) -> dict[str, Any]:
    """What must be the same on every process."""
    return {
        "sdclr": own_version(),
        "torch": torch.__version__,
        "start": start.digest,
        "images": labelled.fingerprint,
        "settings": config.to_dict(),
    }


def _follow(
    start: Start,
    data: DataConfig,
    config: FinetuneConfig,
    folder: Path,
    world: World,
    stop: StopRequest,
) -> None:
    """In every process but the first: compute features, and share the steps if images go through the backbone."""
    device = world.device(resolve_device(config.device))
    labelled, run = labelled_images(data, config, folder, NoProgress()), Run(folder)
    ready = world.messages.wait_for(_READY)
    here = _compared(start, labelled, config)
    if differing := [name for name in here if here[name] != ready[name]]:
        raise DistributedError(
            f"process {world.rank} differs from process 0 in: {', '.join(differing)}. Every process needs the same "
            "package, the same start and the same images, on a file system that all of them see."
        )
    if ready["finished"]:
        return
    training, logits = build(start, labelled, config, device, folder, NoProgress(), world)
    if not training.is_shared:
        return
    state = State.begin(training.device)
    agree(training)
    if ready["step"] is not None:
        checkpoint = run.checkpoints.at(ready["step"])
        restore(training, state, checkpoint, f"checkpoint of step {ready['step']} in {folder}")
    stop.awaited = True
    if not is_to_stop_early(training, state):
        train(training, state, run, stop, NoProgress(), logits, labelled.labels[1])


MEMORY_ADVICE = "Lower --batch-size or --image-size, or use --mode linear."


def _require_ours(folder: Path, data: DataConfig) -> None:
    """Raise ConfigError or RunFolderError for a folder with other content, before any work."""
    require_elsewhere(Run(folder), data.path, data.root)
    with storage_errors(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            raise RunFolderError(f"{shown(folder)} is a file; choose another --out.")
        names = os.listdir(folder) if folder.is_dir() else []
    if looks_like_a_run(names):
        raise ConfigError(
            f"{shown(folder)} is a run folder; a model needs one of its own. Choose another --out."
        )
    ours = (LOCK_FILE, f"{LOCK_FILE}.json", f"{LOCK_FILE}.held", f"{LOCK_FILE}.held.json")
    others = [name for name in names if name not in ours and not is_leftover(name)]
    if others and SETTINGS_FILE not in names:
        raise ConfigError(
            f"{shown(folder)} holds something else ({shown(sorted(others)[0])}); choose another --out."
        )


def _agree(
    run: Run, start: Start, labelled: Labelled, data: DataConfig, config: FinetuneConfig
) -> None:
    """Record the request, or compare it with the recorded one."""
    train, validation = labelled.labels
    facts = {
        "format": FORMAT,
        "settings": config.to_dict(),
        "start": {"name": start.name, "digest": start.digest},
        "data": {"name": data.name, "path": data.path, "fingerprint": labelled.fingerprint},
        "class_names": labelled.class_names,
        "num_train": len(train),
        "num_validation": len(validation),
    }
    views = start.views.to_dict() if start.records_views else None
    if not (run.folder / SETTINGS_FILE).is_file():
        run.write_json(SETTINGS_FILE, facts | {"views": views})  # first: it says whose folder it is
        run.write_json("environment.json", environment(config.device))
        return
    if not (run.folder / "environment.json").is_file():  # a call was killed in between
        run.write_json("environment.json", environment(config.device))
    saved = run.read_json(SETTINGS_FILE, *facts)
    if saved["format"] != FORMAT:
        raise DataError(f"{run.folder / SETTINGS_FILE} is not of sdclr finetune.")
    differences = config.differences(saved["settings"])
    if _at(saved["start"], "digest") != start.digest:
        differences.append(f"start: {shown(_at(saved['start'], 'name'))} -> {shown(start.name)}")
    # a start of the same weights may record no views, or other ones
    if config.augment != "none" and saved.get("views", views) != views:
        differences.append("the views that the start records of its pre-training")
    if saved["class_names"] != labelled.class_names:
        differences.append(_other_classes(saved["class_names"], labelled.class_names))
    elif _at(saved["data"], "fingerprint") != labelled.fingerprint:
        differences.append("the labelled images, their content or their labels")
    if differences and not run.checkpoints and not is_classifier(run.folder):
        run.write_json("environment.json", environment(config.device))  # nothing was trained yet
        run.write_json(SETTINGS_FILE, facts | {"views": views})
    elif differences:
        raise ConfigError(
            f"{shown(run.folder)} was started with other settings, labels or weights (started with -> now):\n  "
            + "\n  ".join(differences)
            + "\nRestore them to continue, or choose another --out."
        )


def _other_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """ "classes: 3 -> 2; no longer: cat", for classes that differ."""
    words = [f"classes: {len(before)} -> {len(now)}"]
    for title, names in (
        ("no longer", [one for one in before if one not in now]),
        ("new", [one for one in now if one not in before]),
    ):
        if names:
            words.append(f"{title}: {first_of([shown(name, 40) for name in names], 3)}")
    return "; ".join(words) if len(words) > 1 else f"{words[0]}, in another order"


def _at(section: object, name: str) -> object:
    return section.get(name) if isinstance(section, dict) else None


def _describe_start(
    start: Start, labelled: Labelled, config: FinetuneConfig, show: AnyProgress, world: World
) -> None:
    train, validation = labelled.labels
    processes = ""
    if world.several:
        what = "the features" if config.fixes_features else "every step"
        processes = f"; {world.size} processes share {what}"
    show.print(
        f"{config.mode} from {shown(start.name)}: {counted(len(train), 'training image')} and "
        f"{counted(len(validation), 'validation image')} of {len(labelled.class_names)} classes, "
        f"{start.image_size} px, balance {config.balance}, {used_views(config, start)}{processes}"
    )
    if config.augment == "views" and not start.records_views:
        warnings.warn(
            f"{shown(start.name)} records no views of its pre-training, so --augment views uses the default ones of "
            "settings views. Start from the run to use its own, or choose --augment crops.",
            stacklevel=2,
        )


def _restore(
    run: Run, training: Training, state: State, checkpoint: Checkpoint | None, show: AnyProgress
) -> None:
    if checkpoint is None:
        run.metrics_file.cut(0)
        return
    where = f"checkpoint of step {checkpoint.step} in {run.folder}"
    restore(training, state, checkpoint, where)
    run.metrics_file.cut(checkpoint.facts["metrics_size"])
    show.print(f"resuming at step {state.step} of {training.total_steps}")


def _finish(
    training: Training, state: State, start: Start, labelled: Labelled, run: Run
) -> dict[str, Any]:
    """Measure and write the model with the weights of the best epoch; its own file is written last."""
    load_weights_of(training, state.best, "the best epoch")
    classifier = Classifier(training.backbone, training.plain_head(), labelled.class_names).eval()
    classifier.requires_grad_(False)
    logits = None
    validation = labelled.labels[1]
    if len(validation):
        # in fp32, as sdclr predict computes
        logits = extract_features(classifier, labelled.validation.stills(start.image_size)).cpu()
    temperature, calibration = temperature_of(logits, validation)
    classifier.temperature = temperature
    files = labelled.train.files
    if files is not None:
        classifier.exif_rotation, classifier.grey_bits = files.exif_rotation, files.grey_bits
    if logits is not None:
        table = validation_table(
            labelled.validation, validation, classifier.probabilities(logits), labelled.class_names
        )
        run.write_text(VALIDATION_FILE, table)
    result = {
        "epoch": state.best_epoch,
        "epochs_trained": state.step // training.steps_per_epoch,
        "device": describe_device(training.device),
        "precision": training.precision,
        "validation": validation_result(logits, labelled),
        "calibration": calibration,
    }
    run.write_json(RESULT_FILE, result)
    facts = {"mode": training.config.mode, "balance": training.config.balance}
    save_classifier(run.folder, classifier.cpu(), start.architecture.to_dict(), facts)
    _remove_what_training_kept(run)
    return result


def _remove_what_training_kept(run: Run) -> None:
    """Remove what only an unfinished training needs."""
    shutil.rmtree(run.checkpoints.folder, ignore_errors=True)
    for part in ("training", "validation"):
        kept = run.folder / KEPT_FEATURES.format(part=part)
        if kept.is_dir():
            RowParts(kept, "").remove()
