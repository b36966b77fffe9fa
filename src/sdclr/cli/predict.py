"""sdclr predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr
from sdclr.cli.options import Device, Overwrite, Use, expanded, import_used
from sdclr.cli.settings import paths_and_settings
from sdclr.errors import ConfigError, MissingInputError
from sdclr.safe_text import shown

ModelFolder = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Folder written by sdclr finetune.", callback=expanded),
]
ImagesToName = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES [data.KEY=VALUE]...",
        help="Folder, list, table, glob, .zip, .tar shards, or .npz; data.on_error=skip keeps unreadable images as "
        "rows without a label.",
    ),
]
TableOut = Annotated[
    Path, typer.Option(help="Table to write: .csv or .parquet.", callback=expanded)
]
TopOption = Annotated[int, typer.Option("--top", metavar="K", help="The K likeliest labels.")]
Shares = Annotated[bool, typer.Option("--probabilities", help="A column p_CLASS for each class.")]
EntropyOption = Annotated[
    bool, typer.Option("--entropy", help="A column of the entropy in nats: high where unsure.")
]
PartOption = Annotated[
    str,
    typer.Option(
        "--part",
        metavar="train|test",
        help="Of a .npz, or of folders train and test: which images. Others have only one part.",
    ),
]


def predict(
    model: ModelFolder,
    arguments: ImagesToName,
    out: TableOut = Path("predictions.csv"),
    top: TopOption = 1,
    probabilities: Shares = False,
    entropy: EntropyOption = False,
    part: PartOption = "train",
    device: Device = "auto",
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Write a label and a confidence for each image. If killed, the same command resumes."""
    from sdclr.config import absolute_place
    from sdclr.jobs.predict import predict as run_predict
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first
    from sdclr.workflows.own_images import own_data_as_trained

    import_used(use)
    places, given = paths_and_settings(arguments)
    if not model.is_dir():
        raise MissingInputError(
            f"there is no model folder {shown(model)}; sdclr finetune writes one."
        )
    if len(places) != 1:
        got = ", ".join(map(shown, places[:5])) or "none"
        raise ConfigError(f"give one folder, list or file of images, got {got}.")
    data = own_data_as_trained(model, absolute_place(places[0]), given)
    with Progress(stderr) as progress:
        found = run_predict(
            model,
            data,
            out,
            top=top,
            probabilities=probabilities,
            entropy=entropy,
            part=part,  # type: ignore[arg-type]
            device=device,
            progress=progress,
            overwrite=overwrite,
        )
    if is_first():  # the first process prints for all
        typer.echo(found.summary())
        typer.echo(f"predictions: {shown(found.path)}")
