"""sdclr finetune."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdclr.cli.consoles import stderr
from sdclr.cli.options import Device, Use, WeightsFit, expanded, import_used
from sdclr.cli.settings import paths_and_settings
from sdclr.errors import ConfigError, MissingInputError
from sdclr.safe_text import command, shown

if TYPE_CHECKING:
    from sdclr.data import DataConfig

Start = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="What to start from: a run folder, backbone.safetensors, an earlier model, or timm:NAME or "
        "torchvision:NAME with ImageNet weights.",
    ),
]
DataSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[data.KEY=VALUE]...",
        help="How the images are read, such as data.label_column=species or data.on_error=skip.",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A table with the columns path and label, a list, a folder whose sub-folders are the classes, or a .npz. "
        "Default: the labels of RUN's own images, where they have some.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the paths of the table begin. Default: its own folder, or the folder RUN was trained on.",
        callback=expanded,
    ),
]
ModelOut = Annotated[
    Path,
    typer.Option(help="Folder of the model; one that stopped there is resumed.", callback=expanded),
]
ModeOption = Annotated[
    str,
    typer.Option(
        help="linear: a linear head on frozen features. full: the backbone is trained, too, starting from that head."
    ),
]
BalanceOption = Annotated[
    str,
    typer.Option(
        help="How rare classes are balanced: none; weights (each class the same weight in the loss); sampling (each "
        "class drawn equally often); logits (logit adjustment)."
    ),
]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        help="Images in training: none (as they are tested), crops (random crops and flips) or views (as RUN's "
        "pre-training). Default: none, and crops for full.",
        show_default=False,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(help="Most epochs to train. Default: 100, and 30 for full.", show_default=False),
]
BatchOption = Annotated[int, typer.Option("--batch-size", help="Images per step.")]
HeadRate = Annotated[
    float | None,
    typer.Option(
        "--head-lr",
        help="Learning rate of the head. Default: 0.01, and 0.001 for full.",
        show_default=False,
    ),
]
BackboneRate = Annotated[
    float | None,
    typer.Option(
        "--backbone-lr",
        help="full: learning rate of the backbone. Default: 0.0001.",
        show_default=False,
    ),
]
Decay = Annotated[float, typer.Option("--weight-decay", help="AdamW's.")]
ValidationOption = Annotated[
    float,
    typer.Option(
        "--validation",
        metavar="SHARE",
        help="Share of each class, held out to choose the epoch, to calibrate and to measure; 0 holds nothing out.",
    ),
]
TogetherOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="COLUMN|folder|PATTERN",
        help="Images that belong together (a burst, a patient): none is learned from while another is held out "
        "(data.group_by).",
    ),
]
EarlyStopOption = Annotated[
    int,
    typer.Option(
        "--early-stop",
        metavar="EPOCHS",
        help="Epochs without a better accuracy or a clearly smaller loss on validation images before it stops, after "
        "the warm-up; 0: never.",
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Seed of the validation images, the order and the crops.")
]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp64.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With timm:NAME or torchvision:NAME: a file of weights instead of the library's.",
        callback=expanded,
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size", help="Side in pixels of what the network sees. Default: as it was trained."
    ),
]


def finetune(
    source: Start,
    out: ModelOut,
    arguments: DataSettings = None,
    labels: LabelsOption = None,
    images: ImagesOption = None,
    mode: ModeOption = "linear",
    balance: BalanceOption = "none",
    augment: AugmentOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = 64,
    head_lr: HeadRate = None,
    backbone_lr: BackboneRate = None,
    weight_decay: Decay = 0.01,
    validation: ValidationOption = 0.2,
    group_by: TogetherOption = None,
    early_stop: EarlyStopOption = 10,
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
    weights: WeightsOption = None,
    weights_match: WeightsFit = "exact",
    image_size: SizeOption = None,
    device: Device = "auto",
    use: Use = None,
) -> None:
    """Train a classifier on labelled images, and measure it. If stopped, the same command resumes."""
    from sdclr.jobs.finetune import FinetuneConfig
    from sdclr.jobs.finetune import finetune as run_finetune
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first

    import_used(use)
    start, data = _start_and_data(source, out, arguments, labels, images, group_by)
    named = {
        "augment": augment,
        "epochs": epochs,
        "head_learning_rate": head_lr,
        "backbone_learning_rate": backbone_lr,
        "image_size": image_size,
    }
    settings = {
        "mode": mode,
        "balance": balance,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "validation_share": validation,
        "early_stop_epochs": early_stop,
        "seed": seed,
        "precision": precision,
        "device": device,
        **{name: value for name, value in named.items() if value is not None},
    }
    try:
        config = FinetuneConfig.parse(settings)
    except ConfigError as error:
        raise ConfigError(_in_options(str(error), settings)) from None
    with Progress(stderr) as progress:
        model = run_finetune(
            start,
            data,
            out,
            config,
            weights=weights,
            weights_match=weights_match,  # type: ignore[arg-type]
            progress=progress,
        )
    if not is_first():  # the first process prints for all
        return
    typer.echo(model.summary())
    typer.echo(f"model: {shown(model.folder)}")
    predict = command("sdclr", "predict", model.folder)
    typer.echo(f"next: {predict} IMAGES --out predictions.csv")


_OPTIONS = {
    "head_learning_rate": "--head-lr",
    "backbone_learning_rate": "--backbone-lr",
    "validation_share": "--validation",
    "early_stop_epochs": "--early-stop",
}
"""Options whose name is not the setting's with dashes."""


def _in_options(text: str, settings: Iterable[str]) -> str:
    """An error about settings, rewritten in terms of the options."""
    for name in settings:
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        text = re.sub(rf"^{name}\b", option, text, flags=re.MULTILINE)
    return text


def _start_and_data(
    source: str,
    out: Path,
    arguments: list[str] | None,
    labels: str | None,
    images: Path | None,
    group_by: str | None,
) -> tuple[Path | str, DataConfig]:
    """The start and the labelled images. Raises ConfigError or MissingInputError if they are not given."""
    from sdclr.config import require_once, user_path, user_place
    from sdclr.run import Run
    from sdclr.workflows.labelled_images import labelled_images, labels_of_run

    places, given = paths_and_settings(arguments)
    if places:
        raise ConfigError(
            f"labels are named with --labels, got {shown(places[0])}: "
            f"{command('sdclr', 'finetune', source, '--labels', places[0], '--out', out)}."
        )
    if options := [name for name in given if not name.startswith("data.")]:
        raise ConfigError(
            f"{options[0]} is not a setting of the images (data.KEY=VALUE). Those of the training are options, such as "
            "--epochs 20; sdclr finetune --help lists them."
        )
    if group_by is not None:
        require_once(given, {"data.group_by": "--group-by"})
        given["data.group_by"] = group_by
    start = source if source.startswith(("timm:", "torchvision:")) else user_path(source)
    if isinstance(start, Path) and not start.exists():
        raise MissingInputError(f"there is no run folder or file {shown(start)}.")
    if labels is not None:
        return start, labelled_images(start, user_place(labels), images, given, [out])
    if images is not None:
        raise ConfigError("--images says where the paths of a table begin: add --labels TABLE.")
    if isinstance(start, Path) and Run(start).exists:
        return start, labels_of_run(Run(start), given)
    raise ConfigError(
        f"{shown(start)} has no images of its own; specify which are labelled: --labels TABLE."
    )
