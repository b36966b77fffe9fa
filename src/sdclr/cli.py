"""The command line: verbs and flags -> a config and a job. No logic of its own.

Everything heavy is imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from sdclr.errors import EXIT_BUG, ConfigError, MissingInputError, SdclrError
from sdclr.process_state import keep_freed_memory

if TYPE_CHECKING:
    from sdclr.jobs.pretrain import PretrainConfig

app = typer.Typer(
    name="sdclr",
    help="Self-supervised pre-training for long-tailed, unlabeled image collections.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="List and show the ready-made settings.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")

Out = Annotated[Path | None, typer.Option(help="Run folder; a run that stopped there goes on. (default: runs/RECIPE)")]
DataPath = Annotated[str | None, typer.Option("--data", metavar="PATH", help="Where the images are (data.path).")]
SplitsDir = Annotated[str | None, typer.Option(metavar="FOLDER", help="The authors' split folder (data.splits_dir).")]
Download = Annotated[bool, typer.Option("--download", help="Download the data set to --data if it is not there.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]


ALL_PROBES = "linear,few_shot,knn"
FOR_SEVERAL_PROCESSES = ("pretrain", "resume")
"""Verbs that torchrun may start."""


class Groups(StrEnum):
    """The two conventions by which classes are many, medium or few."""

    thirds = "thirds"
    thresholds = "thresholds"


@app.callback()
def before_any_verb(context: typer.Context) -> None:
    if "WORLD_SIZE" in os.environ and context.invoked_subcommand not in FOR_SEVERAL_PROCESSES:
        from sdclr.distributed import require_one_process

        require_one_process(f"sdclr {context.invoked_subcommand}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo's runs and report.")] = Path("runs/demo"),
    splits: Annotated[int, typer.Option(min=1, help="Number of long-tailed splits.")] = 3,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
) -> None:
    """Compare SimCLR and SDCLR on long-tailed digits: minutes on a CPU, ends in a table and an HTML page."""
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.demo import demo as run_demo

    with Progress(_stderr) as progress:
        page = run_demo(out, num_splits=splits, overrides=tuple(overrides or ()), progress=progress, console=Console())
    typer.echo(f"\nreport: {page}")


@app.command()
def pretrain(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [SECTION.KEY=VALUE]...", show_default=False)
    ] = None,
    data: DataPath = None,
    out: Out = None,
    config: Annotated[Path | None, typer.Option(help="Saved config.yaml to run instead of a recipe.")] = None,
    weights: Annotated[str | None, typer.Option(help="Run or backbone.safetensors to start a NEW run from.")] = None,
    splits_dir: SplitsDir = None,
    download: Download = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show steps, time and memory, write a sheet of view pairs, and stop.")
    ] = False,
) -> None:
    """Pre-train a backbone. The same command on an existing --out goes on where it stopped.

    Your own images: sdclr pretrain ./photos --out runs/photos. A folder (with a slash), a .txt or .csv list, .tar
    shards or a .npz; the settings are chosen for them and explained.

    A recipe: sdclr pretrain cifar10_lt_sdclr --data ~/data --out runs/x epochs=200 data.split=2.
    `sdclr recipes list` names the recipes, `sdclr recipes show NAME` every setting.

    Several GPUs: torchrun --nproc-per-node N -m sdclr pretrain ..., the same words; they share every batch.
    """
    from sdclr.distributed import is_first, require_one_process
    from sdclr.jobs.pretrain import pretrain as run_pretrain
    from sdclr.presentation.progress import Progress

    paths = _paths({"data.path": data, "data.splits_dir": splits_dir, "weights": weights})
    settings, out = _settings(arguments or [], config, paths, out)
    if dry:
        from sdclr.workflows.own_images import dry_run

        require_one_process("sdclr pretrain --dry-run")
        sheet = out.with_name(f"{out.name}-views.png")
        sheet.parent.mkdir(parents=True, exist_ok=True)
        with Progress(_stderr) as progress:
            dry_run(settings, sheet, Console(), progress, download=download)
        return
    if not is_first():  # the first process speaks for all
        run_pretrain(settings, out, download=download)
        return
    with Progress(_stderr) as progress:
        run = run_pretrain(settings, out, download=download, progress=progress)
    typer.echo(f"backbone: {run.backbone_path}\nnext: sdclr evaluate {run.folder}")


@app.command()
def resume(folder: Annotated[Path, typer.Argument(metavar="RUN")]) -> None:
    """Go on with a run that stopped; the result is the same as if it had not."""
    from sdclr.distributed import is_first
    from sdclr.jobs.pretrain import resume as run_resume
    from sdclr.presentation.progress import Progress

    if not is_first():
        run_resume(folder)
        return
    with Progress(_stderr) as progress:
        run = run_resume(folder, progress=progress)
    typer.echo(f"backbone: {run.backbone_path}")


@app.command()
def status(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")] = False,
) -> None:
    """How runs stand: running, done, preempted, interrupted, or failed and why; and what to do next."""
    import json

    from sdclr.jobs.status import read_status

    for found in map(read_status, folders):
        typer.echo(json.dumps(found.to_dict()) if as_json else "\n".join(found.lines()))


@app.command()
def evaluate(
    arguments: Annotated[list[str], typer.Argument(metavar="RUN...|CHECKPOINT.pt [KEY=VALUE]...")],
    protocol: Annotated[str, typer.Option(help="cached (seconds, for development) or sdclr (the paper's).")] = "cached",
    probes: Annotated[str, typer.Option(help="Which of linear, few_shot, knn; comma-separated.")] = ALL_PROBES,
    data: DataPath = None,
    device: Device = "auto",
    recipe: Annotated[
        str | None, typer.Option(help="For an authors' checkpoint: the recipe it belongs to; settings may follow.")
    ] = None,
    splits_dir: SplitsDir = None,
    out: Annotated[
        Path | None, typer.Option(help="For an authors' checkpoint: its run folder (default: runs/FILENAME).")
    ] = None,
    untested: Annotated[
        str, typer.Option(help="Classes without usable images: raise (an error that names them) or leave_out.")
    ] = "raise",
    classifier: Annotated[
        str | None, typer.Option(help="Test the checkpoint's own classifier, which was tuned for linear or few_shot.")
    ] = None,
) -> None:
    """Probe the frozen backbone of finished runs, or of an authors' checkpoint, and print accuracy per group.

    sdclr evaluate model_2000.pt --recipe cifar10_lt_sdclr --data PATH --splits-dir DIR data.split=1 --protocol sdclr
    """
    from sdclr.jobs.evaluate import AUTHORS_CLASSIFIER, check_protocol, check_untested, evaluate_classifier
    from sdclr.jobs.evaluate import evaluate as run_evaluate
    from sdclr.jobs.report import write_report
    from sdclr.presentation.progress import Progress

    targets = [argument for argument in arguments if "=" not in argument or Path(argument).exists()]
    overrides = [argument for argument in arguments if argument not in targets]
    folders = list(dict.fromkeys(map(Path, targets)))
    rule = check_protocol(protocol)
    checkpoint = next((path for path in folders if path.is_file()), None)
    if classifier is not None and (protocol, probes) != ("cached", ALL_PROBES):
        raise ConfigError("--classifier tests a ready classifier; leave out --protocol and --probes.")
    with Progress(_stderr) as progress:
        if checkpoint is not None:
            flags = _paths({"data.path": data, "data.splits_dir": splits_dir})
            folders = [_adopt(folders, recipe, overrides, flags, out)]
        elif recipe or overrides or out or classifier or splits_dir:
            raise ConfigError("--recipe, --out, --classifier, --splits-dir and settings are for a checkpoint file.")
        if checkpoint is not None and classifier is not None:
            evaluate_classifier(folders[0], checkpoint, classifier, device=device, progress=progress)
        else:
            names = [name.strip() for name in probes.split(",") if name.strip()]
            moved = data if checkpoint is None else None
            for folder in folders:
                run_evaluate(
                    folder,
                    protocol=rule,
                    probes=names,
                    data_path=moved,
                    device=device,
                    untested=check_untested(untested),
                    progress=progress,
                )
    shown = AUTHORS_CLASSIFIER if classifier is not None else rule
    write_report(folders, {"terminal"}, protocol=shown, console=Console())


def _adopt(
    files: list[Path], recipe_name: str | None, overrides: list[str], flags: dict[str, Any], out: Path | None
) -> Path:
    """The run folder of an authors' checkpoint."""
    from sdclr.config import parse_assignments
    from sdclr.jobs.adopt import adopt
    from sdclr.recipes import recipe

    if len(files) != 1:
        raise ConfigError(f"give run folders, or one checkpoint file alone; got {', '.join(map(str, files))}.")
    if files[0].suffix == ".safetensors":
        raise ConfigError(f"{files[0]}: give the run folder it lies in, or the .pt it was converted from.")
    if recipe_name is None:
        raise ConfigError(f"{files[0]} is a file: say which recipe it belongs to, e.g. --recipe cifar10_lt_sdclr.")
    config = recipe(recipe_name).with_values(flags | parse_assignments(overrides))
    return adopt(files[0], config, out or Path("runs") / files[0].stem).folder


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="terminal, markdown, csv, html (with --paper: latex instead of html); comma-separated. "
            "Default: terminal,html; with --paper terminal.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File (or folder) for markdown, csv or html.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Which protocol, if the runs have several.")] = None,
    groups: Annotated[
        Groups | None, typer.Option(help="thirds of the classes, or thresholds (> 100, 20-100, < 20 images).")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's table: every split, mean ± std, the published rows.")
    ] = False,
) -> None:
    """Tables and an HTML page over one run or many: mean ± std over splits, paired differences with intervals."""
    from sdclr.jobs.report import write_paper_table, write_report

    formats = formats or ("terminal" if paper else "terminal,html")
    chosen = {name.strip() for name in formats.split(",") if name.strip()}
    write = write_paper_table if paper else write_report
    write(folders, chosen, out=out, protocol=protocol, groups=groups.value if groups else None, console=Console())


@app.command()
def reproduce(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="cifar10, cifar100, imagenet100, imagenet_lt_exp or digits.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs (default: runs/reproduce-DATASET-SCALE).")
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            help="paper (as published), matched (same head and temperature), or arms: simclr_balanced, simclr, "
            "simclr_balanced_matched, simclr_matched, sdclr; comma-separated."
        ),
    ] = "paper",
    splits: Annotated[str | None, typer.Option(help="For example 1-5 (default: the paper's).")] = None,
    seeds: Annotated[str | None, typer.Option(help="For example 1,2 (default: the paper's one seed).")] = None,
    scale: Annotated[
        str, typer.Option(help="full (as published) or tiny (a narrow network, 10 epochs: minutes a run on a CPU).")
    ] = "full",
    protocol: Annotated[
        str | None, typer.Option(help="sdclr or cached (default: sdclr; with --scale tiny cached).")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Evaluate the authors' unzipped checkpoints instead of training.")
    ] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Show what is done and what is missing, and stop.")] = False,
    print_commands: Annotated[
        bool, typer.Option("--print-commands", help="Print the commands of what is missing, for a scheduler, and stop.")
    ] = False,
    download: Download = False,
) -> None:
    """Run the paper's comparison: arms x splits x seeds, skipping what is done, ending in the paper's table.

    Killed anywhere, the same command goes on; several processes can share one --out.
    """
    from sdclr.jobs.evaluate import check_protocol
    from sdclr.presentation.progress import Progress
    from sdclr.workflows import matrix
    from sdclr.workflows import reproduce as workflow

    if published is not None and (seeds is not None or scale != "full" or only_plan or print_commands):
        raise ConfigError(
            "--published evaluates ready checkpoints; leave out --seeds, --scale, --plan, --print-commands."
        )
    chosen = workflow.choose_arms(dataset, arms)
    size = workflow.choose_scale(dataset, scale)
    rule = check_protocol(protocol or size.protocol)
    out = out or Path("runs") / f"reproduce-{dataset}-{'published' if published else scale}"
    console = Console()
    cells = matrix.plan(
        dataset,
        out,
        arms=chosen,
        splits=workflow.parse_numbers(splits, "--splits") if splits is not None else workflow.SPLITS[dataset],
        seeds=workflow.parse_numbers(seeds, "--seeds") if seeds is not None else None,
        overrides=[*size.overrides, *(overrides or [])],
        values=_paths({"data.path": data, "data.splits_dir": splits_dir}),
        adopted=published is not None,
    )
    if published is not None:
        from sdclr.workflows.published import evaluate_published

        with Progress(_stderr) as progress:
            evaluate_published(
                cells,
                published,
                out,
                dataset=dataset,
                protocol=rule,
                progress=progress,
                console=console,
                download=download,
            )
        return
    if print_commands:
        lines = [*matrix.commands(cells, rule, workflow.PROBES), workflow.report_command(cells, rule, out)]
        typer.echo("\n".join(lines))
        return
    matrix.show_plan(cells, rule, workflow.PROBES, console)
    if only_plan:
        return
    with Progress(_stderr) as progress:
        workflow.reproduce(cells, out, protocol=rule, progress=progress, console=console, download=download)


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or backbone.safetensors.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder, .txt or .csv list, .tar shards, or .npz.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[data.KEY=VALUE]...", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="File to write: .npz or .parquet.")] = Path("features.npz"),
    device: Device = "auto",
) -> None:
    """Write the features of any images: path, feature, and label where known. The same command goes on if killed."""
    from sdclr.config import parse_assignments
    from sdclr.jobs.embed import embed as run_embed
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.own_images import own_data

    given = parse_assignments(overrides or [])
    with Progress(_stderr) as progress:
        path = run_embed(source, own_data(str(images.absolute()), given), out, device=device, progress=progress)
    typer.echo(f"features: {path}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN.pt")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors")],
    branch: Annotated[str, typer.Option(help="Whose norms to take: target (dense) or competitor (pruned).")] = "target",
) -> None:
    """Turn a checkpoint of the method's authors into a backbone that load_backbone and --weights take."""
    from sdclr.jobs.convert import convert as run_convert

    checkpoint = run_convert(source, out, branch)  # type: ignore[arg-type]  # checked there, with a better message
    typer.echo(f"{checkpoint.summary()}\nbackbone: {out}")


@app.command()
def bench(
    backbone: Annotated[str, typer.Option(help="resnet10 .. resnet50, torchvision:NAME or timm:NAME.")] = "resnet18",
    width: Annotated[int, typer.Option(min=1, help="Channels of our ResNets' first stage.")] = 64,
    size: Annotated[int, typer.Option(min=4, help="Side of a view in pixels.")] = 32,
    batch: Annotated[int | None, typer.Option(min=2, help="Images a step (default: 128; on CUDA 512).")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or both with a comma, the main one first (default: what is there).")
    ] = None,
    compiled: Annotated[str, typer.Option("--compile", help="auto, on, off, both or cuda-graphs.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most; medians are over rounds.")] = 7,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="No round begins that would end later (default: 4; on CUDA 8).")
    ] = None,
    device: Device = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write (default: benchmarks/results/, in a checkout).")
    ] = None,
) -> None:
    """What a step costs here: SDCLR against SimCLR and against the 2021 reference's way, as ratios from one run.

    The promised bounds are judged for the default work alone, and on CUDA for
    --backbone resnet50 --size 224 --batch 256 too.
    """
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.bench import Settings, run_bench

    settings = Settings(backbone, width, size, batch, _names(precision), compiled, rounds, minutes, device)
    with Progress(_stderr) as progress:
        wide = None if sys.stdout.isatty() else 110  # a log shows whole names
        run_bench(settings, json_file=json_file, console=Console(width=wide), progress=progress)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@recipes_app.command("list")
def list_recipes() -> None:
    """Names and one line each."""
    from sdclr.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, function in RECIPES.items():
        typer.echo(f"{name:<{width}}  {(function.__doc__ or '').splitlines()[0]}")


@recipes_app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """All settings of one recipe, as the config.yaml that --config takes."""
    from sdclr.recipes import recipe

    typer.echo(recipe(name).to_yaml(), nl=False)


def _paths(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The paths that were given, absolute, so that the saved config runs again from anywhere."""
    return {key: str(Path(value).expanduser().absolute()) for key, value in flags.items() if value is not None}


def _settings(
    arguments: list[str], config_file: Path | None, flags: dict[str, Any], out: Path | None
) -> tuple[PretrainConfig, Path]:
    """Recipe, file or images, then flags, then overrides; and the run folder."""
    from sdclr.config import parse_assignments
    from sdclr.jobs.pretrain import PretrainConfig
    from sdclr.recipes import RECIPES, recipe

    targets = [argument for argument in arguments if "=" not in argument or _is_path(argument)]
    given = parse_assignments(argument for argument in arguments if argument not in targets)
    places = {
        name: str(value) for name, value in given.items() if name in ("data.root", "data.test_path", "data.store")
    }
    values = flags | given | _paths(places)
    known = f"Recipes: {', '.join(RECIPES)}. A folder of images is written with a slash (./photos)."
    if len(targets) + (config_file is not None) != 1:
        raise ConfigError(f"give one recipe name or --config FILE, got {', '.join(targets) or 'neither'}. {known}")
    if config_file is not None:
        config = PretrainConfig.from_yaml(config_file).with_values(values)
    elif targets[0] in RECIPES:
        config = recipe(targets[0]).with_values(values)
    elif _is_path(targets[0]):
        from sdclr.workflows.own_images import own_config

        path = Path(targets[0]).expanduser()
        if path.suffix != ".tar" and not path.exists():  # a range of shards is no file
            raise MissingInputError(f"there is no folder or file {targets[0]}. {known}")
        if "data.path" in flags:
            raise ConfigError(f"{targets[0]} says where the images are; leave --data out.")
        out = out or Path("runs") / path.absolute().stem.partition("-{")[0]
        return own_config(str(path.absolute()), values, out, Console(quiet=bool(_speaker()))), out
    else:
        raise ConfigError(f"{targets[0]!r} is neither a recipe nor a folder. {known}")
    return config, out or Path("runs") / config.recipe


def _is_path(argument: str) -> bool:
    """./photos, /data/list.csv, a.npz, a.tar: whatever has a slash before any =, or such a suffix."""
    head, equals, _ = argument.partition("=")
    return "/" in head or (not equals and Path(argument).suffix in (".txt", ".csv", ".npz", ".tar"))


_stderr = Console(stderr=True)


def _speaker() -> str:
    """Who says it, where it is not the first or only process."""
    number = os.environ.get("RANK", "0")
    return "" if number == "0" else f"process {escape(number)}: "


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _stderr.print(f"{_speaker()}[yellow]warning:[/yellow] {escape(str(message))}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: one sentence and the documented exit code for every error meant for the user."""
    warnings.showwarning = _show_warning
    keep_freed_memory()
    try:
        app()  # usage errors and --help end here, with typer's own message and exit code
    except SdclrError as error:
        if not error.told_elsewhere or not _speaker():
            _stderr.print(f"{_speaker()}[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        _stderr.print("[red]This is a bug in sdclr;[/red] please report it with the lines above.")
        sys.exit(EXIT_BUG)
