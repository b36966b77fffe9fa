"""Words of the command line -> settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdclr.cli.consoles import speaker, terminal
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from sdclr.recipes.own_images import Choice
    from sdclr.settings import PretrainConfig


def absolute_paths(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The paths that were given, absolute, so that the saved config runs again from anywhere."""
    from sdclr.config import user_path

    return {
        key: str(user_path(value).absolute()) for key, value in flags.items() if value is not None
    }


def pretrain_settings(
    arguments: list[str], config_file: Path | None, flags: dict[str, Any], out: Path | None
) -> tuple[PretrainConfig, Path, Sequence[Choice]]:
    """Recipe, file or images, then flags, then overrides; the run folder; and what was chosen for the images."""
    from sdclr.config import parse_assignments, user_path
    from sdclr.outside import is_outside
    from sdclr.recipes import RECIPES, like, named_recipe, recipe
    from sdclr.settings import PretrainConfig
    from sdclr.workflows.own_entries import with_own_entries

    targets = [argument for argument in arguments if "=" not in argument or is_path(argument)]
    given = parse_assignments(argument for argument in arguments if argument not in targets)
    places = {
        name: str(value)
        for name, value in given.items()
        if name in ("data.root", "data.test_path", "data.store")
    }
    given = with_own_entries(given)
    values = flags | given | absolute_paths(places)
    sources = "Images are a folder (./photos), a list or table, a glob, shards, a .zip or a .npz."
    known = f"`sdclr recipes list` names the recipes. {sources}"
    if len(targets) + (config_file is not None) != 1:
        got = ", ".join(map(shown, targets[:5])) + ", ..." * (len(targets) > 5) or "neither"
        if (
            len(targets) > 1
            and config_file is None
            and all(Path(target).is_file() for target in targets)
        ):
            raise ConfigError(
                f"got {len(targets)} files ({got}): a shell has put them in the place of a glob. Quote it, as in "
                "'photos/*.jpg', or give their folder."
            )
        raise ConfigError(f"give one recipe name or --config FILE, got {got}. {known}")
    if config_file is not None:
        config = PretrainConfig.from_yaml(config_file).with_values(values)
    elif targets[0] in RECIPES:
        config = recipe(targets[0]).with_values(values)
    elif is_outside(targets[0]) and not is_path(targets[0]) and not Path(targets[0]).exists():
        config = recipe(named_recipe(targets[0])).with_values(values)
    elif is_path(targets[0]) or Path(targets[0]).exists():
        from sdclr.data.sources.globs import glob_of
        from sdclr.workflows.own_images import own_config

        path = user_path(targets[0])
        # a range of shards is no file
        if path.suffix != ".tar" and not path.exists() and glob_of(path) is None:
            raise MissingInputError(f"there is no folder or file {shown(targets[0])}. {known}")
        if "data.path" in flags:
            raise ConfigError(f"{shown(targets[0])} says where the images are; leave --data out.")
        glob = glob_of(path)
        named = path.absolute() if glob is None else glob.root.absolute()
        out = out or Path("runs") / named.stem.partition("-{")[0]
        config, choices = own_config(
            str(path.absolute()), values, out, terminal(quiet=bool(speaker()))
        )
        return config, out, choices
    else:
        raise ConfigError(
            f"{shown(targets[0])!r} is neither a recipe nor a folder. {like(targets[0])} {sources}"
        )
    return config, out or Path("runs") / config.recipe, []


def is_path(argument: str) -> bool:
    """./photos, list.csv, 'x*.jpg': whatever has a slash before any =, a sign of a glob, or such a suffix."""
    from sdclr.data.choices import COLLECTION_SUFFIXES

    head, equals, _ = argument.partition("=")
    if "/" in head:
        return True
    return not equals and (
        any(sign in head for sign in "*?[") or Path(argument).suffix.lower() in COLLECTION_SUFFIXES
    )
