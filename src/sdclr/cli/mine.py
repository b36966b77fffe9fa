"""sdclr mine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr
from sdclr.cli.options import Device, GroupBy, Use, expanded, import_used
from sdclr.cli.settings import is_path
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import command, shown


def mine(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [IMAGES] [data.KEY=VALUE]...",
            help="Run folder or backbone.safetensors (not with --backbone), then a folder, list, table, glob, .zip, "
            ".tar shards, or .npz (default: the images of RUN).",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|timm:NAME|torchvision:NAME",
            help="Without a run: a file of weights of sdclr's or the authors', or a network of a library, whose "
            "ImageNet weights are downloaded once.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of timm:NAME or torchvision:NAME in a file, instead of a download.",
            callback=expanded,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16_384,
            help="Side of the images that the network sees (default: as trained).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write (default: rare; of RUN's own images RUN/rare).",
            callback=expanded,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(min=1, help="Images that the page shows as pictures, and --copy-to copies."),
    ] = 200,
    score: Annotated[
        str | None,
        typer.Option(
            help="What ranks (docs/rarebench.md lists the scores); one of your own as module:Name."
        ),
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="Further scores as columns, comma-separated.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help="Rank by likeness to this image, of the collection or not; may be repeated.",
        ),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rank by your marks: scores.csv with its column wanted filled in, or the page's download.",
            callback=expanded,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder of an earlier mine: IMAGES are compared with its images, and only new ones are looked at.",
            callback=expanded,
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            help="Of the groups on the page: rarest (the highest score first) or kinds (the group least like all "
            "before it first: many kinds early)."
        ),
    ] = "rarest",
    group_by: GroupBy = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Copy the top images to a new folder.", callback=expanded
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace finished results; features and marks are kept."),
    ] = False,
    use: Use = None,
) -> None:
    """Find the rare images: a score for each, groups that look alike, a page. The same command goes on if killed."""
    from sdclr.config import parse_assignments, user_path
    from sdclr.evaluation.rarity import DEFAULT
    from sdclr.jobs.mine import check_order
    from sdclr.jobs.mine import mine as run_mine
    from sdclr.presentation.progress import Progress
    from sdclr.run import Run
    from sdclr.workflows.own_images import data_of, own_data, own_data_as_trained

    import_used(use)
    places = [argument for argument in arguments or [] if "=" not in argument or is_path(argument)]
    given = parse_assignments(argument for argument in arguments or [] if argument not in places)
    if group_by is not None:
        given["data.group_by"] = group_by
    most = 1 if backbone is not None else 2
    if not 1 <= len(places) <= most:
        form = "--backbone FILE|timm:NAME IMAGES" if backbone is not None else "RUN [IMAGES]"
        got = ", ".join(map(shown, places[:5])) or "nothing"
        raise ConfigError(f"sdclr mine takes {form}, got {got}.")
    source: str | Path
    if backbone is not None:
        named = backbone.startswith(("timm:", "torchvision:"))
        source = backbone if named else user_path(backbone)
        images = own_data(str(user_path(places[0]).absolute()), given)
    else:
        source = user_path(places[0])
        if not source.exists():
            raise MissingInputError(f"there is no run folder and no file {shown(source)}.")
        if len(places) == 2:
            images = own_data_as_trained(source, str(user_path(places[1]).absolute()), given)
        elif not source.is_dir():
            raise ConfigError(
                f"{shown(source)} is no run folder; say which images to mine: sdclr mine BACKBONE IMAGES."
            )
        elif not Run(source).exists:
            raise ConfigError(
                f"{shown(source)} is no run folder. To mine a folder of images, give a run before it, or "
                f"--backbone: {command('sdclr', 'mine', source, '--backbone', 'timm:NAME')}."
            )
        else:
            images = data_of(Run(source), given, "mine")
            out = out or source / "rare"
    out = out or Path("rare")
    with Progress(stderr) as progress:
        mined = run_mine(
            source,
            images,
            out,
            top=top,
            score=score or DEFAULT,
            scores=[word.strip() for word in (scores or "").split(",") if word.strip()],
            like=[str(user_path(one)) if one.startswith("~") else one for one in like or []],
            feedback=feedback,
            against=against,
            copy_to=copy_to,
            weights=weights,
            image_size=image_size,
            order=check_order(order),
            device=device,
            progress=progress,
            overwrite=overwrite,
            as_trained=backbone is None and len(places) == 1,
        )
    from sdclr.presentation.mined_summary import summary

    typer.echo(summary(mined))
    page = out / "index.html"
    typer.echo(
        f"scores: {shown(out / 'scores.csv')}"
        + (f"\npage: {shown(page)}" if page.is_file() else "")
    )
