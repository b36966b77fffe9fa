"""JOB: settings -> trained backbone in a run folder, resumable after any step.

settings ─► build ─► folder ─► agree ─► loop: epochs, steps, checkpoints ─► backbone.safetensors
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.compute.device import explain_out_of_memory
from sdclr.compute.process_state import silenced_warnings
from sdclr.data import LabelledImages
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import folder
from sdclr.jobs.pretrain.agree import agree, require_settings_of_first
from sdclr.jobs.pretrain.build import build, memory_advice
from sdclr.jobs.pretrain.checkpoint_schedule import CheckpointSchedule
from sdclr.jobs.pretrain.checkpoint_writer import CheckpointWriter
from sdclr.jobs.pretrain.folder import Choices
from sdclr.jobs.pretrain.given import look_at_given, settings_for
from sdclr.jobs.pretrain.health import HealthCheck
from sdclr.jobs.pretrain.log import LoggedProgress
from sdclr.jobs.pretrain.loop import train
from sdclr.jobs.pretrain.outcome import Outcome
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.observers import ImageRecordsFile, MetricsFile, Observer, Observers, ProgressBar
from sdclr.processes.environment import world_size
from sdclr.processes.messages import GRACE_SECONDS
from sdclr.processes.signals import StopRequest, stop_on_signal
from sdclr.processes.world import World, joined
from sdclr.run import Run
from sdclr.run.refusals import (
    require_elsewhere,
    require_same_settings,
    require_store_elsewhere,
)
from sdclr.safe_text import counted, shown
from sdclr.settings import PretrainConfig

_READY = "run folder ready at step"


def pretrain(
    config: PretrainConfig | None = None,
    out: Path | str | None = None,
    *,
    images: Any = None,
    labels: Sequence[Any] | None = None,
    network: nn.Module | None = None,
    download: bool = False,
    progress: AnyProgress | None = None,
    title: str | None = None,
    choices: Choices = (),
    observers: Iterable[Observer] = (),
) -> Run:
    """Pre-train with ``config`` in the run folder ``out`` (default runs/<recipe>), resuming where it stopped.

    ``images``: train on these instead of the images named in the config's data section: a torch or Hugging Face
    dataset, PIL images, arrays, tensors or paths in a list, one array, or a pandas table with a column of paths;
    ``labels`` [N] of them, as numbers or words (docs/data.md). Without a ``config`` the settings are chosen for them,
    as for a folder of photographs. The same call resumes a run that stopped.
    ``network``: your own headless module, images [B, C, S, S] -> features [B, F], with backbone.name=custom. It
    receives normalised images; one that normalises them itself needs backbone.normalisation=none.
    ``progress``: where to show progress (default: nowhere). ``title``: the title of the progress. ``choices``: settings
    that were chosen for the user, each with its value and the reason, recorded in the run folder.
    ``observers``: called after every step and epoch (:class:`sdclr.Observer`), in the first process. A
    finished run is returned unchanged. Raises
    an :class:`~sdclr.errors.SdclrError` that says what to change; Preempted after a signal, with everything saved.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> run.backbone_path.is_file()
    True
    """
    if config is not None and not isinstance(config, PretrainConfig):
        raise ConfigError(
            f"pretrain takes a PretrainConfig, got {shown(repr(config), 60)}. sdclr.recipe(NAME) gives one, and "
            "PretrainConfig.parse makes one of a mapping."
        )
    show = LoggedProgress(progress or NoProgress())
    with show.logging_warnings():
        given = None if images is None else look_at_given(images, labels, show, config)
        config, choices = _settings(config, given, labels, choices)
        run = Run(out if out is not None else Path("runs") / config.recipe)
        _train_in(run, config, network, given, show, title, choices, observers, download=download)
    return run


def _train_in(
    run: Run,
    config: PretrainConfig,
    network: nn.Module | None,
    given: LabelledImages | None,
    show: LoggedProgress,
    title: str | None,
    choices: Choices,
    observers: Iterable[Observer],
    *,
    download: bool,
) -> None:
    grace = GRACE_SECONDS if world_size() > 1 else 0
    with (
        stop_on_signal(same_for_seconds=grace, announce=show.announce) as stop,
        joined(str(run.folder), start_seconds=config.start_seconds) as world,
    ):
        if not world.is_first:
            _follow(config, run, network, world, stop, given)
            return
        require_elsewhere(run, config.data.path, config.data.test_path)
        require_store_elsewhere(run, config.data.store)
        require_same_settings(run, config)
        with explain_out_of_memory(memory_advice(config)):
            training = build(
                config, network, download=download, run=run, show=show, world=world, given=given
            )
            state = TrainingState.begin(training.device)
            state.stop = stop
            writer = CheckpointWriter(training.device)
            schedule = CheckpointSchedule(training, state, writer)
        with run, show.written_to(run.folder):
            require_same_settings(run, config)  # again, now that no other process can write here
            outcome = Outcome(run, training.total_steps)
            advice = memory_advice(config)
            with (
                outcome.recorded(lambda: state.step),
                explain_out_of_memory(advice),
                world.explaining(),
                writer,
            ):
                folder.open_folder(training, state, run, schedule, show, choices)
                world.messages.publish(
                    _READY, {"step": state.step, "finished": state.step == training.total_steps}
                )
                if state.step < training.total_steps:
                    outcome.write("running", state.step)
                    together = agree(training, state)
                    stop.awaited = True
                    watching = _watching(training, run, show, observers)
                    words = title or f"{config.recipe} {run.folder}"
                    train(together, state, run, schedule, watching, words)
                else:
                    done = f"{counted(config.epochs, 'epoch')}, {counted(state.step, 'step')}"
                    show.print(f"{run.folder} is finished: {done}.")
                if not run.backbone_path.is_file():
                    folder.save_backbone(training, state, run)


def _settings(
    config: PretrainConfig | None,
    given: LabelledImages | None,
    labels: Sequence[Any] | None,
    choices: Choices,
) -> tuple[PretrainConfig, Choices]:
    """The config, or the settings chosen for given images, and the choices. Raises ConfigError if neither is given."""
    if given is not None:
        return settings_for(given, config, choices)
    if config is None or labels is not None:
        raise ConfigError(
            "pretrain needs a config, for example sdclr.recipe(...), or images=... to choose one for; labels=... are "
            "those of images=... ."
        )
    return config, choices


def _watching(
    training: Training, run: Run, show: LoggedProgress, observers: Iterable[Observer]
) -> Observer:
    """The observers of every step and epoch: the files of the run, the progress, the health, and ``observers``."""
    records = ImageRecordsFile(run, training.images.names)
    all_observers = Observers(
        [MetricsFile(run), records, ProgressBar(show), *observers], training.method
    )
    return HealthCheck(training, all_observers, show, lambda: run.metrics_file.sound()[0])


def _follow(
    config: PretrainConfig,
    run: Run,
    network: nn.Module | None,
    world: World,
    stop: StopRequest,
    given: LabelledImages | None,
) -> None:
    """In every process but the first: wait for the run folder, read it, take part in training, write nothing."""
    with explain_out_of_memory(memory_advice(config)), world.explaining():
        ready = world.messages.wait_for(_READY)
        differences = (
            config.differences(run.settings()) if run.exists else [f"{run.folder}: -> none"]
        )
        require_settings_of_first(world, differences)
        if ready["finished"]:
            return
        with silenced_warnings():  # the first process gives the same warnings
            training = build(config, network, run=run, show=NoProgress(), world=world, given=given)
            state = TrainingState.begin(training.device)
            state.stop = stop
            folder.follow(training, state, run, ready["step"])
        together = agree(training, state)
        stop.awaited = True
        schedule = CheckpointSchedule(together, state, CheckpointWriter(training.device))
        train(together, state, run, schedule, Observer(), "")
