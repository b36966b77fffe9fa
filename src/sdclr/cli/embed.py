"""sdclr embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr
from sdclr.cli.options import Device, Overwrite, Use, expanded, import_used
from sdclr.cli.settings import is_path
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import shown


def embed(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder or backbone.safetensors.", callback=expanded
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGES] [data.KEY=VALUE]...",
            help="Folder, list, table, glob, .zip, .tar shards, or .npz (default: the images of RUN).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: .npz, .parquet or .csv (default: features.npz; of RUN's own images RUN/features.npz).",
            callback=expanded,
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Write a new folder --out instead: part-00000.npz, ... of N images each, and index.json.",
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Write the features of any images: path, feature, and label where known. The same command goes on if killed."""
    from sdclr.config import parse_assignments, user_path
    from sdclr.jobs.embed import embed as run_embed
    from sdclr.presentation.progress import Progress
    from sdclr.run import FEATURES_FILE, Run
    from sdclr.workflows.own_images import data_of, own_data_as_trained

    import_used(use)
    if shards is not None and (out is None or overwrite):
        raise ConfigError(
            "--shards makes a new folder and replaces none: give --out FOLDER, and leave --overwrite out."
        )
    places = [argument for argument in arguments or [] if "=" not in argument or is_path(argument)]
    given = parse_assignments(argument for argument in arguments or [] if argument not in places)
    if len(places) > 1:
        raise ConfigError(
            f"give one folder, list or file of images, got {', '.join(map(shown, places[:5]))}."
        )
    if places:
        images = own_data_as_trained(source, str(user_path(places[0]).absolute()), given)
        out = out or Path("features.npz")
    elif not source.exists():
        raise MissingInputError(f"there is no run folder and no file {shown(source)}.")
    elif not source.is_dir():
        raise ConfigError(
            f"{shown(source)} is no run folder; say which images to embed: sdclr embed BACKBONE IMAGES."
        )
    else:
        images = data_of(Run(source), given)
        out = out or source / FEATURES_FILE
    with Progress(stderr) as progress:
        path = run_embed(
            source,
            images,
            out,
            device=device,
            progress=progress,
            overwrite=overwrite,
            as_trained=not places,
            images_per_shard=shards,
        )
    typer.echo(f"features: {shown(path)}")
