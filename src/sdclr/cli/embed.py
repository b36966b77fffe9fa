"""sdclr embed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdclr.cli.consoles import print_next_step, stderr
from sdclr.cli.options import Device, Overwrite, Source, Use, expanded, import_used
from sdclr.cli.settings import paths_and_settings
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from sdclr.data import DataConfig

ImagesToEmbed = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGES] [data.KEY=VALUE]...",
        help="Folder, list, table, glob, .zip, .tar shards, or .npz (default: the images of RUN).",
        show_default=False,
    ),
]
FeaturesOut = Annotated[
    Path | None,
    typer.Option(
        help="File to write: .npz, .parquet or .csv (default: features.npz; of RUN's own images RUN/features.npz).",
        callback=expanded,
    ),
]
ImagesPerShard = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Write a new folder --out instead: part-00000.npz, ... of N images each, and index.json.",
    ),
]


def embed(
    source: Source,
    arguments: ImagesToEmbed = None,
    out: FeaturesOut = None,
    shards: ImagesPerShard = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Write the features of any images: path, feature, and label if known. If killed, the same command resumes."""
    from sdclr.jobs.embed import embed as run_embed
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first
    from sdclr.run import Run

    import_used(use)
    if shards is not None and (out is None or overwrite):
        raise ConfigError(
            "--shards makes a new folder and never replaces one: give --out FOLDER, and leave --overwrite out."
        )
    places, given = paths_and_settings(arguments)
    images, usual_out = _images_to_embed(source, places, given)
    with Progress(stderr) as progress:
        path = run_embed(
            source,
            images,
            out or usual_out,
            device=device,
            progress=progress,
            overwrite=overwrite,
            as_trained=not places,
            images_per_shard=shards,
        )
    if is_first():  # it prints for all processes
        typer.echo(f"features: {shown(path)}")
        if path == usual_out and not places:
            print_next_step(Run(source))


def _images_to_embed(
    source: Path, places: list[str], given: dict[str, Any]
) -> tuple[DataConfig, Path]:
    """The images (by default those of the run), and the default output for their features."""
    from sdclr.config import absolute_place
    from sdclr.run import Run
    from sdclr.run.files import FEATURES_FILE
    from sdclr.workflows.own_images import data_of, own_data_as_trained

    if len(places) > 1:
        raise ConfigError(
            f"give one folder, list or file of images, got {', '.join(map(shown, places[:5]))}."
        )
    if places:
        path = absolute_place(places[0])
        return own_data_as_trained(source, path, given), Path("features.npz")
    if not source.exists():
        raise MissingInputError(f"there is no run folder or file {shown(source)}.")
    if not source.is_dir():
        raise ConfigError(
            f"{shown(source)} is not a run folder; specify which images to embed: sdclr embed BACKBONE IMAGES."
        )
    return data_of(Run(source), given), source / FEATURES_FILE
