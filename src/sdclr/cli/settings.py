"""Command-line arguments -> settings."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdclr.cli.consoles import speaker, stderr, terminal
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from sdclr.recipes.own_images import Choice
    from sdclr.settings import PretrainConfig


def absolute_paths(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The given paths made absolute, so that the saved config runs again from anywhere; URLs are left unchanged."""
    from sdclr.config import absolute_place

    return {key: absolute_place(value) for key, value in flags.items() if value is not None}


def paths_and_settings(arguments: Sequence[str] | None) -> tuple[list[str], dict[str, Any]]:
    """Split command-line arguments into targets and the values of KEY=VALUE.

    An existing folder or file is a target, even if its name contains a = (date=2024).
    """
    from sdclr.config import parse_assignments

    words = list(arguments or [])
    targets = [word for word in words if "=" not in word or is_path(word) or os.path.exists(word)]
    return targets, parse_assignments(word for word in words if word not in targets)


def moved_to(data: str | None) -> str | None:
    """The current place of the images, as an absolute path."""
    return absolute_paths({"data": data}).get("data")


OPTIONS = {"data.path": "--data", "data.splits_dir": "--splits-dir", "weights": "--weights"}
"""Setting -> the option that gives it."""
SOURCES = "Images are a folder (./photos), a list or table, a glob, shards, a .zip or a .npz."
KNOWN = f"`sdclr recipes list` names the recipes. {SOURCES}"


def pretrain_settings(
    arguments: list[str], config_file: Path | None, flags: dict[str, Any], out: Path | None
) -> tuple[PretrainConfig, Path, Sequence[Choice]]:
    """The config (recipe, file or images, then flags, then overrides), the run folder, and the automatic choices."""
    from sdclr.config import require_once
    from sdclr.settings import PretrainConfig
    from sdclr.workflows.own_entries import with_own_entries

    targets, given = paths_and_settings(arguments)
    require_once(given, {name: OPTIONS[name] for name in flags})
    in_place = ("data.root", "data.test_path", "data.store")
    places = {name: str(value) for name, value in given.items() if name in in_place}
    values = flags | with_own_entries(given) | absolute_paths(places)
    _require_one(targets, config_file, given)
    if config_file is not None:
        config = PretrainConfig.from_yaml(config_file).with_values(values)
    elif (found := _recipe_of(targets[0])) is not None:
        config = found.with_values(values)
    else:
        return _own_images_settings(targets[0], flags, values, out)
    return config, out or Path("runs") / config.recipe, []


def _require_one(
    targets: Sequence[str], config_file: Path | None, settings: Collection[str]
) -> None:
    """Raise ConfigError unless there is exactly one recipe, source of images or file of settings."""
    if len(targets) + (config_file is not None) == 1:
        return
    got = ", ".join(map(shown, targets[:5])) + ", ..." * (len(targets) > 5) or "neither"
    several = len(targets) > 1 and config_file is None
    if several and all(Path(target).is_file() for target in targets):
        raise ConfigError(
            f"got {len(targets)} files ({got}): the shell has expanded a glob. Quote it, as in "
            "'photos/*.jpg', or give their folder."
        )
    if not targets and settings:
        got += f", and settings ({shown(next(iter(settings)))}=...)"
    raise ConfigError(f"give one recipe name or --config FILE, got {got}. {KNOWN}")


def _recipe_of(target: str) -> PretrainConfig | None:
    """The recipe of this name, or of module:name; None if it names images."""
    from sdclr.outside import is_outside
    from sdclr.recipes import RECIPES, like, named_recipe, recipe

    if target in RECIPES:
        return recipe(target)
    if is_path(target) or Path(target).exists():
        return None
    if is_outside(target):
        return recipe(named_recipe(target))
    raise ConfigError(
        f"{shown(target)!r} is neither a recipe nor a folder. {like(target)} {SOURCES}"
    )


def _own_images_settings(
    target: str, flags: Mapping[str, Any], values: dict[str, Any], out: Path | None
) -> tuple[PretrainConfig, Path, Sequence[Choice]]:
    """The settings chosen for the user's own images, the run folder, and the choices with their reasons."""
    from sdclr.addresses import Address
    from sdclr.config import user_place
    from sdclr.data.sources.globs import glob_of
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.own_images import own_config

    path = user_place(target)
    glob = None if isinstance(path, Address) else glob_of(path)
    # a range of shards is not a file
    is_named = path.suffix == ".tar" or isinstance(path, Address)
    if not is_named and not path.exists() and glob is None:
        raise MissingInputError(f"there is no folder or file {shown(target)}. {SOURCES}")
    if "data.path" in values:
        which = "--data" if "data.path" in flags else "data.path"
        raise ConfigError(f"{shown(path)} says where the images are; leave {which} out.")
    named = Path(os.path.abspath(path) if glob is None else glob.root.absolute())
    # a folder called photos.2024 has no suffix
    bare = named.name if named.is_dir() else named.stem
    out = out or Path("runs") / bare.partition("-{")[0]
    console = terminal(quiet=bool(speaker()))
    whole = absolute_paths({"path": target})["path"]
    with Progress(stderr):  # reading the headers of many shards takes long
        config, choices = own_config(whole, values, out, console)
    return config, out, choices


def is_path(argument: str) -> bool:
    """Whether an argument is a path (./photos, list.csv, 'x*.jpg'): by a slash before any =, a glob, or its suffix."""
    from sdclr.data.choices import COLLECTION_SUFFIXES

    head, equals, _ = argument.partition("=")
    if "/" in head:
        return True
    return not equals and (
        any(sign in head for sign in "*?[") or Path(argument).suffix.lower() in COLLECTION_SUFFIXES
    )
