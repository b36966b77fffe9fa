"""sdclr mine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdclr.cli.consoles import print_next_step_of_mined, stderr
from sdclr.cli.options import Device, GroupBy, Use, WeightsFit, expanded, import_used
from sdclr.cli.settings import paths_and_settings
from sdclr.errors import (
    ConfigError,
    MissingInputError,
)
from sdclr.safe_text import command, shown

if TYPE_CHECKING:
    from sdclr.data import DataConfig

RunAndImages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN] [IMAGES] [data.KEY=VALUE]...",
        help="Run folder, backbone.safetensors or model of finetune (not with --backbone), then a folder, list, "
        "table, glob, .zip, .tar shards, or .npz (default: the images of RUN).",
        show_default=False,
    ),
]
ReadyBackbone = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|timm:NAME|torchvision:NAME",
        help="Without a run: a file of weights of sdclr's or the authors', or a network of a library, whose "
        "ImageNet weights are downloaded once.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of timm:NAME or torchvision:NAME in a file, instead of a download.",
        callback=expanded,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=16_384,
        help="Side of the images that the network sees (default: as trained).",
    ),
]
MineOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write (default: rare; of RUN's own images RUN/rare).",
        callback=expanded,
    ),
]
Top = Annotated[
    int,
    typer.Option(min=1, help="Images that the page shows as pictures, and --copy-to copies."),
]
ScoreName = Annotated[
    str | None,
    typer.Option(
        help="What ranks (docs/rarebench.md lists the scores); one of your own as module:Name."
    ),
]
MoreScores = Annotated[str | None, typer.Option(help="Further scores as columns, comma-separated.")]
LikeImages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="IMAGE",
        help="Rank by likeness to this image, of the collection or not; may be repeated.",
    ),
]
FeedbackFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Rank by your marks: scores.csv with its column wanted filled in, or the page's download.",
        callback=expanded,
    ),
]
EarlierMine = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="A folder of an earlier mine: IMAGES are compared with its images, and only new ones are looked at.",
        callback=expanded,
    ),
]
GroupOrder = Annotated[
    str,
    typer.Option(
        help="Of the groups on the page: rarest (the highest score first) or kinds (the group least like all "
        "before it first: many kinds early)."
    ),
]
MapOption = Annotated[
    str,
    typer.Option(
        "--map",
        help="What the page's map is made of: pca (the two largest principal components) or umap (neighbours; a "
        'minute for 10,000 images, and pip install "sdclr\\[map]").',
    ),
]
ExactUpTo = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="IMAGES",
        help="Above this number of images, neighbours are searched approximately, which is much faster; the share of "
        "them that is found is estimated and shown.",
    ),
]
CopyTo = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Copy the top images to a new folder.", callback=expanded),
]
OverwriteResults = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace finished results; features and marks are kept."),
]


def mine(
    arguments: RunAndImages = None,
    backbone: ReadyBackbone = None,
    weights: WeightsFile = None,
    weights_match: WeightsFit = "exact",
    image_size: ImageSize = None,
    out: MineOut = None,
    top: Top = 200,
    score: ScoreName = None,
    scores: MoreScores = None,
    like: LikeImages = None,
    feedback: FeedbackFile = None,
    against: EarlierMine = None,
    order: GroupOrder = "rarest",
    exact_up_to: ExactUpTo = 100_000,
    group_by: GroupBy = None,
    map_name: MapOption = "pca",
    copy_to: CopyTo = None,
    device: Device = "auto",
    overwrite: OverwriteResults = False,
    use: Use = None,
) -> None:
    """Find the rare images: a score for each, groups that look alike, a page. If killed, the same command resumes."""
    from sdclr.config import require_once, user_path
    from sdclr.evaluation.rarity import DEFAULT
    from sdclr.evaluation.rarity.maps import checked_map
    from sdclr.jobs.mine import check_order
    from sdclr.jobs.mine import mine as run_mine
    from sdclr.presentation.mined_summary import summary
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first

    import_used(use)
    places, given = paths_and_settings(arguments)
    if group_by is not None:
        require_once(given, {"data.group_by": "--group-by"})
        given["data.group_by"] = group_by
    target = _what_to_mine(places, backbone, given)
    out = out or target.usual_out
    with Progress(stderr) as progress:
        mined = run_mine(
            target.source,
            target.images,
            out,
            top=top,
            score=score or DEFAULT,
            scores=[word.strip() for word in (scores or "").split(",") if word.strip()],
            like=[str(user_path(one)) if one.startswith("~") else one for one in like or []],
            feedback=feedback,
            against=against,
            copy_to=copy_to,
            weights=weights,
            weights_match=weights_match,  # type: ignore[arg-type]
            image_size=image_size,
            order=check_order(order),
            map=checked_map(map_name),
            exact_up_to=exact_up_to,
            device=device,
            progress=progress,
            overwrite=overwrite,
            as_trained=target.as_trained,
        )
    if not is_first():  # the first process prints for all
        return
    typer.echo(summary(mined))
    typer.echo(f"scores: {shown(out / 'scores.csv')}")
    page = out / "index.html"
    if page.is_file():
        typer.echo(f"page: {shown(page)}")
    print_next_step_of_mined(out)


@dataclass(frozen=True)
class _Mined:
    """Which images are mined, and by which backbone."""

    source: str | Path
    """Run folder, file of weights, or the name of a library's network."""
    images: DataConfig
    usual_out: Path
    as_trained: bool
    """Whether the images are those of the run."""


def _what_to_mine(places: Sequence[str], backbone: str | None, given: dict[str, Any]) -> _Mined:
    """Parse RUN, RUN IMAGES, or --backbone NAME IMAGES. Raises ConfigError for anything else."""
    from sdclr.config import absolute_place, user_path
    from sdclr.workflows.own_images import own_data, own_data_as_trained

    most = 1 if backbone is not None else 2
    if not 1 <= len(places) <= most:
        form = "--backbone FILE|timm:NAME IMAGES" if backbone is not None else "RUN [IMAGES]"
        got = ", ".join(map(shown, places[:5])) or "nothing"
        raise ConfigError(f"sdclr mine takes {form}, got {got}.")
    path = absolute_place(places[-1])
    if backbone is not None:
        named = backbone.startswith(("timm:", "torchvision:"))
        network = backbone if named else user_path(backbone)
        return _Mined(network, own_data(path, given), Path("rare"), as_trained=False)
    source = user_path(places[0])
    if not source.exists():
        raise MissingInputError(f"there is no run folder or file {shown(source)}.")
    if len(places) == 2:
        images = own_data_as_trained(source, path, given)
        return _Mined(source, images, Path("rare"), as_trained=False)
    return _own_images_of_run(source, given)


def _own_images_of_run(source: Path, given: dict[str, Any]) -> _Mined:
    """The images that a run was trained on."""
    from sdclr.run import Run
    from sdclr.run.files import MINED_FOLDER
    from sdclr.workflows.own_images import data_of

    if not source.is_dir():
        raise ConfigError(
            f"{shown(source)} is not a run folder; specify which images to mine: sdclr mine BACKBONE IMAGES."
        )
    if not Run(source).exists:
        raise ConfigError(
            f"{shown(source)} is not a run folder. To mine a folder of images, give a run before it, or "
            f"--backbone: {command('sdclr', 'mine', source, '--backbone', 'timm:NAME')}."
        )
    return _Mined(
        source, data_of(Run(source), given, "mine"), source / MINED_FOLDER, as_trained=True
    )
