"""The run folder of a training: written when it begins, compared when it resumes, completed when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

from sdclr.any_progress import AnyProgress
from sdclr.backbones.table import row_of
from sdclr.backbones.weights import save_backbone as write_backbone
from sdclr.compute.device import describe_device
from sdclr.data.collections.contents import (
    read_contents,
    require_recorded,
    with_pixels,
    write_record,
)
from sdclr.image_records import cut_records
from sdclr.jobs.pretrain.checkpoint_schedule import CheckpointSchedule
from sdclr.jobs.pretrain.outcome import require_no_history
from sdclr.jobs.pretrain.state import restore
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.contract import facts_of
from sdclr.methods.table import METHODS, method_names, method_title
from sdclr.run import Run
from sdclr.run.consistency import require_own_backbone
from sdclr.run.environment import environment
from sdclr.run.files import CHOICES_FILE, CONTENTS_FILE, IMAGES_FILE
from sdclr.run.refusals import require_classes
from sdclr.safe_text import counted
from sdclr.settings import PretrainConfig

Choices = Sequence[tuple[str, object, str]]
"""Settings that were chosen for the user: name, value, reason."""


def open_folder(
    training: Training,
    state: TrainingState,
    run: Run,
    schedule: CheckpointSchedule,
    show: AnyProgress,
    choices: Choices,
) -> None:
    """Write the folder's facts and the checkpoint of step 0, or load the newest checkpoint."""
    if run.exists:
        _compare_facts(training, run)
    else:
        _write_facts(training, run, show, choices)
    if run.backbone_path.is_file():
        require_own_backbone(run)
        state.step = training.total_steps  # finished, even if its checkpoints are missing
        return
    checkpoint = run.checkpoints.newest()
    if checkpoint is not None:
        restore(
            training, state, checkpoint, f"checkpoint of step {checkpoint.step} in {run.folder}"
        )
        schedule.last_saved_step = state.step
    else:
        require_no_history(run)
    run.metrics_file.cut(checkpoint.facts["metrics_size"] if checkpoint else 0)
    if training.config.record_images:
        cut_records(run.folder, state.step // training.steps_per_epoch, len(training.images))
    if checkpoint is None:
        schedule.save(run, read_back=True)  # reveals a full or faulty disk before hours are spent
    if state.step < training.total_steps:
        _describe_start(training, state, show)


def follow(training: Training, state: TrainingState, run: Run, step: int) -> None:
    """Load the checkpoint of ``step``, which the first process has verified or just written."""
    restore(training, state, run.checkpoints.at(step), f"checkpoint of step {step} in {run.folder}")


def save_backbone(training: Training, state: TrainingState, run: Run) -> None:
    """Write the target branch's backbone, under the stock network's own keys."""
    config = training.config
    write_backbone(
        run.backbone_path,
        training.backbone,
        training.architecture.to_dict(),
        facts={
            "feature_dim": training.feature_dim,
            "image_size": config.views.size,
            "recipe": config.recipe,
            "method": config.method.to_dict(),
            **facts_of(training.method),
            "epochs": config.epochs,
            "loss": state.mean_loss(training) if state.step else None,
            "training": {
                "seed": config.seed,
                "batch_size": config.batch_size,
                "optimizer": config.optimizer.to_dict(),
                "views": config.views.to_dict(),
                "data": {"subset": config.data.subset, "split": config.data.split},
            },
            "data": training.data.name,
            "data_fingerprint": training.data.fingerprint,
        },
    )


def _write_facts(training: Training, run: Run, show: AnyProgress, choices: Choices) -> None:
    facts = environment(describe_device(training.device), training.world.size)
    facts |= {
        "precision": training.precision,
        "memory_format": str(training.memory_format).removeprefix("torch."),
        "compile": training.compile,
        "views_cut_by": training.views_cut_by,
        "resolved": training.resolved,
        "method": method_title(method_names(training.config.method)),
        "outside": _origins(training.config),
    }
    run.write_json("environment.json", facts)
    run.write_json("split.json", training.data.manifest())
    if training.image_facts is not None:
        run.write_json(IMAGES_FILE, training.image_facts)
    _record_images(training, run, show)
    if choices:
        rows = [
            {"setting": name, "value": value, "reason": reason} for name, value, reason in choices
        ]
        run.write_json(CHOICES_FILE, {"choices": rows})
    run.write_text("config.yaml", training.config.to_yaml())  # last: makes it a run folder


def _origins(config: PretrainConfig) -> dict[str, str]:
    """The origins of parts from outside the package."""
    names = method_names(config.method)
    origins = {
        setting.removesuffix(".name"): METHODS[name].origin for setting, name in names.items()
    }
    origins["data"] = config.data.row.origin
    if (row := row_of(config.backbone.name)) is not None:
        origins["backbone"] = row.origin
    return {what: origin for what, origin in origins.items() if origin}


def _record_images(training: Training, run: Run, show: AnyProgress) -> None:
    """Record the content of every image file, so that later readers can verify that it is unchanged."""
    files = training.data.files(training.config.data.subset)
    if not files:
        return
    task = show.add("recording contents", total=sum(map(len, files.values())), unit="images")
    record = {
        part: read_contents(images, (), partial(show.advance, task))
        for part, images in files.items()
    }
    show.finish(task)
    # files that were left out may be repaired without harm
    left_out = {path for path, _ in (training.image_facts or {}).get("skipped", ())}
    train = [one for one in record["train"] if one.path not in left_out]
    used = training.images.files
    record["train"] = train if used is None else with_pixels(train, used)
    write_record(run.folder / CONTENTS_FILE, record)


def _compare_facts(training: Training, run: Run) -> None:
    """Raise if the data have changed; warn if the rest of the run will only agree up to rounding."""
    config, data = training.config, training.data
    saved = run.read_json("split.json", "fingerprint")["fingerprint"]
    require_recorded(
        run.folder / CONTENTS_FILE, data.files(config.data.subset), saved, data.fingerprint
    )
    require_classes(run, data.class_names)
    facts = run.read_json("environment.json")
    before = facts.get("views_cut_by", training.views_cut_by)
    if before != training.views_cut_by:
        warnings.warn(
            f"views are cut by {training.views_cut_by} now, and were by {before} (data.store, data.placement, free "
            "memory): from here on they agree with those of an uninterrupted run except for rounding.",
            stacklevel=4,
        )
    size = facts.get("world_size", 1)
    if size != training.world.size:
        warnings.warn(
            f"the run continues on another number of processes ({training.world.size}, before {size}): from here on it "
            "agrees with an uninterrupted one except for rounding.",
            stacklevel=4,
        )
    if not run.checkpoints and "resolved" not in facts:
        # started by an earlier version but not yet under way: from here on it uses these choices
        run.write_json("environment.json", facts | {"resolved": training.resolved})
    if config.completed(run.settings()) != config.to_dict():  # the data have moved, for example
        run.write_text("config.yaml", config.to_yaml())


def _describe_start(training: Training, state: TrainingState, show: AnyProgress) -> None:
    config = training.config
    begun = f"resuming at step {state.step} of {training.total_steps}" if state.step else "starting"
    warmup = f"warm-up {counted(f'{training.warmup_epochs:g}', 'epoch')}"
    if config.optimizer.warmup_epochs is None:
        warmup += " (= min(10, epochs / 10))"
    processes = f", {training.world.size} processes" if training.world.several else ""
    size = ", ".join(
        [
            counted(len(training.images), "image"),
            f"{counted(training.steps_per_epoch, 'step')} an epoch",
            counted(config.epochs, "epoch"),
        ]
    )
    show.print(
        f"{begun}: {size}, {warmup}, {training.precision} on {describe_device(training.device)}{processes}"
    )
    for line in training.method.describe(config.method):
        show.print(line)
