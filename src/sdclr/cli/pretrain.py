"""sdclr pretrain and sdclr resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import print_next_step, stderr, terminal
from sdclr.cli.options import (
    DataPath,
    Download,
    Log,
    Observe,
    Out,
    SplitsDir,
    Use,
    expanded,
    import_used,
)
from sdclr.cli.settings import absolute_paths, pretrain_settings
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

RecipeOrImages = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE] [SECTION.KEY=VALUE]...", show_default=False),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(help="Saved config.yaml to run instead of a recipe.", callback=expanded),
]
StartingWeights = Annotated[
    str | None,
    typer.Option(
        help="Run, backbone.safetensors, another program's weights (.safetensors, .pth) or Hugging Face folder to "
        "start a NEW run from."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show steps, time and memory, write a sheet of view pairs, and stop."
    ),
]
OverwriteSheet = Annotated[
    bool,
    typer.Option("--overwrite", help="With --dry-run: replace a file that has the sheet's name."),
]


def pretrain(
    arguments: RecipeOrImages = None,
    data: DataPath = None,
    out: Out = None,
    config: ConfigFile = None,
    weights: StartingWeights = None,
    splits_dir: SplitsDir = None,
    download: Download = False,
    dry: DryRun = False,
    overwrite: OverwriteSheet = False,
    log: Log = "",
    observe: Observe = None,
    use: Use = None,
) -> None:
    """Pre-train a backbone. The same command on an existing --out resumes where it stopped.

    Your own images: sdclr pretrain ./photos --out runs/photos. A folder, a list, a table (CSV, TSV, JSON
    lines, Parquet, MegaDetector's JSON), a quoted glob, a .zip, .tar shards or a .npz; the settings are
    chosen for them and explained (docs/own-images.md).

    A recipe: sdclr pretrain cifar10_lt_sdclr --data ~/data --out runs/x epochs=200 data.split=2.
    `sdclr recipes list` names the recipes, `sdclr recipes show NAME` every setting.

    A method: method.name=focal starts from that method's own defaults; `sdclr methods` lists them. One of
    your own is named as method.name=my_module:MyMethod (docs/extending.md).

    Several GPUs: torchrun --nproc-per-node N -m sdclr pretrain ..., with the same arguments; they share every batch.
    """
    from sdclr.jobs.pretrain import pretrain as run_pretrain
    from sdclr.observers import logs_named, own_observers
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first, require_one_process

    import_used(use)
    paths = absolute_paths({"data.path": data, "data.splits_dir": splits_dir, "weights": weights})
    if overwrite and not dry:
        raise ConfigError(
            "--overwrite is for the sheet of --dry-run; a run folder is resumed, never replaced."
        )
    observers = [*logs_named(log), *own_observers(observe or [])] if is_first() else []
    settings, out, choices = pretrain_settings(arguments or [], config, paths, out)
    if dry:
        from sdclr.workflows.own_images import dry_run

        require_one_process("sdclr pretrain --dry-run")
        sheet = _sheet_of(out)
        with Progress(stderr) as progress:
            dry_run(settings, sheet, terminal(), progress, download=download, overwrite=overwrite)
        return
    if not is_first():  # the first process prints for all
        run_pretrain(settings, out, download=download)
        return
    with Progress(stderr) as progress:
        run = run_pretrain(
            settings,
            out,
            download=download,
            progress=progress,
            choices=choices,
            observers=observers,
        )
    typer.echo(f"backbone: {shown(run.backbone_path)}")
    print_next_step(run)


def _sheet_of(out: Path) -> Path:
    """The file in which a dry run draws the views: beside the run folder, which it does not create."""
    folder = out if out.name not in ("", "..") else Path(os.path.abspath(out))
    if not folder.name:
        raise ConfigError(f"--out {shown(out)} is not a folder for a run; give another.")
    return folder.with_name(f"{folder.name}-views.png")


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", callback=expanded)]


def resume(folder: RunFolder, log: Log = "", observe: Observe = None, use: Use = None) -> None:
    """Resume a run that stopped; the result is the same as without the stop."""
    from sdclr.jobs.pretrain import resume as run_resume
    from sdclr.observers import logs_named, own_observers
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first

    import_used(use)
    if not is_first():
        run_resume(folder)
        return
    observers = [*logs_named(log), *own_observers(observe or [])]
    with Progress(stderr) as progress:
        run = run_resume(folder, progress=progress, observers=observers)
    typer.echo(f"backbone: {shown(run.backbone_path)}")
    print_next_step(run)
