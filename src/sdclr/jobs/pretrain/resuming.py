"""Resume a run from its folder alone, if its images have not moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from sdclr.addresses import is_address
from sdclr.any_progress import AnyProgress
from sdclr.backbones import BACKBONES
from sdclr.config import user_path
from sdclr.data import SOURCES, DataConfig
from sdclr.data.own_views import OWN_VIEWS
from sdclr.data.sources.globs import glob_of
from sdclr.errors import ConfigError, MissingInputError
from sdclr.jobs.pretrain.job import pretrain
from sdclr.methods import METHODS
from sdclr.observers import Observer
from sdclr.processes.environment import is_first
from sdclr.run import Run
from sdclr.run.next_step import KINDS
from sdclr.run.outside import outside_parts, use_options
from sdclr.safe_text import command, shown
from sdclr.settings import PretrainConfig

PLACES = ("path", "root", "test_path", "splits_dir")
"""Data settings that name a folder or a file."""


def resume(
    folder: Path | str,
    *,
    network: nn.Module | None = None,
    progress: AnyProgress | None = None,
    observers: Iterable[Observer] = (),
) -> Run:
    """Resume the run in ``folder`` with its own config; a finished run reports so and is returned.

    A method, backbone or data set of your own must be registered first (:func:`sdclr.register_method` and similar): a
    run folder imports nothing. ``observers``: as in :func:`pretrain`. Raises MissingInputError if its images have
    moved, with the command that gives their new place.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> sdclr.resume("runs/tiny").folder == run.folder  # finished: returned as it is
    True
    """
    run = Run(folder).require()
    _require_known_entries(run)
    config = PretrainConfig.from_yaml(run.config_path)
    if gone := [name for name in PLACES if _is_gone(config.data, name)]:
        error = MissingInputError(_moved(run, config, gone))
        error.reported_elsewhere = not is_first()
        raise error
    return pretrain(config, folder, network=network, progress=progress, observers=observers)


def _require_known_entries(run: Run) -> None:
    known: dict[str, Mapping[str, object]] = {
        "method": METHODS,
        "backbone": BACKBONES,
        "data": SOURCES,
        "views": OWN_VIEWS,
    }
    for what, (name, _) in outside_parts(run).items():
        kind = what.partition(".")[0]  # "method.base" is a method, too
        if kind in known and name not in known[kind]:
            again = command("sdclr", "resume", run.folder, *use_options(run, *known))
            raise ConfigError(
                f"{run.folder} was trained with the {kind} {shown(name)}, which is not part of sdclr. "
                f"Name it again: {again}"
            )


def _is_gone(data: DataConfig, name: str) -> bool:
    """Whether a setting names something that does not exist; for a glob or shards, their folder is checked."""
    value = getattr(data, name)
    if value is None:
        return False
    if is_address(value):  # reading it will raise an error
        return False
    place = user_path(value)
    if (glob := glob_of(place)) is not None:
        place = glob.root
    elif place.suffix.lower() == ".tar":  # one of them, or a range of them
        place = place.parent
    return not place.exists()


def _moved(run: Run, config: PretrainConfig, gone: list[str]) -> str:
    first = shown(getattr(config.data, gone[0]))
    sentence = (
        f"the images of {shown(run.folder)} are not where they were: {first} does not exist. "
        "If they have moved: "
    )
    if config.backbone.name == "custom":
        values = ", ".join(f"'data.{name}': PATH" for name in gone)
        return f"{sentence}sdclr.pretrain(config.with_values({{{values}}}), {str(run.folder)!a}, network=...)"
    places = " ".join("--data PATH" if name == "path" else f"data.{name}=PATH" for name in gone)
    again = command("sdclr", "pretrain", "--config", run.config_path)
    return f"{sentence}{again} {places} {command('--out', run.folder, *use_options(run, *KINDS))}"
