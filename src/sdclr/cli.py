"""The command line: verbs and flags -> a config and a job. No logic of its own.

Everything heavy is imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

import sdclr
from sdclr.backbones.exports.table import EXPORTS
from sdclr.compute.process_state import keep_freed_memory
from sdclr.errors import (
    EXIT_BUG,
    ConfigError,
    Interrupted,
    MissingInputError,
    Preempted,
    RunFolderError,
    SdclrError,
    StorageError,
)
from sdclr.evaluation.probes import PROBES, PROTOCOLS, protocols_help, published_probes
from sdclr.output_streams import endure
from sdclr.safe_text import command, one_line, shown, visible

if TYPE_CHECKING:
    from sdclr.recipes.own_images import Choice
    from sdclr.run import Run
    from sdclr.settings import PretrainConfig


class _Verbs(TyperGroup):
    """The verbs; Ctrl-C in one that has no way of its own to stop is no error and no bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            verb = ctx.invoked_subcommand
            goes_on = " The same command goes on from here." if verb in GO_ON else ""
            raise Interrupted(
                f"by Ctrl-C; nothing half-written is left under its own name.{goes_on}"
            ) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A verb; its help lists what the tables hold now, entries from outside included."""
        found: Any = super().get_command(ctx, cmd_name)
        for option in found.params if found is not None and cmd_name == "evaluate" else []:
            if option.name == "probes":
                option.help = _probes_help()
        return found


GO_ON = ("demo", "embed", "grid", "mine", "pretrain", "reproduce", "resume")
"""Verbs that take up an interrupted piece of work."""

app = typer.Typer(
    name="sdclr",
    cls=_Verbs,
    help="Self-supervised pre-training for long-tailed, unlabeled image collections.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="List and show the ready-made settings.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


def _expanded(value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Paths with ~ and ~name as the shell would have expanded them, had they not been quoted."""
    if not any(
        str(path).startswith("~") for path in (value if isinstance(value, list) else [value])
    ):
        return value
    from sdclr.config import user_path

    return (
        [user_path(str(path)) for path in value]
        if isinstance(value, list)
        else user_path(str(value))
    )


Out = Annotated[
    Path | None,
    typer.Option(
        help="Run folder; a run that stopped there goes on. (default: runs/RECIPE)",
        callback=_expanded,
    ),
]
DataPath = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Where the images are (data.path).")
]
SplitsDir = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The authors' split folder (data.splits_dir).")
]
Download = Annotated[
    bool, typer.Option("--download", help="Download the data set to --data if it is not there.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output file that exists.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
Log = Annotated[
    str,
    typer.Option(
        "--log",
        metavar="NAMES",
        help="Log to tensorboard, wandb (offline), mlflow, or several with commas (docs/health.md).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]


def _use(words: list[str] | None) -> None:
    """Import what --use names: after the command line is read, never for --help or completion."""
    if words:
        from sdclr.workflows.own_entries import use

        use(words)


Use = Annotated[
    list[str] | None,
    typer.Option(
        "--use",
        metavar="MODULE:NAME",
        help="A method, probe, backbone or data set of your own that a saved file names; nothing else is imported.",
    ),
]


def _probes(text: str | None) -> list[str] | None:
    """Names of probes from ``a,b,module:Name``; what is named as module:Name is imported. None: all of them."""
    from sdclr.evaluation.probes import load_probe
    from sdclr.outside import is_outside

    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [load_probe(word).name if is_outside(word) else word for word in words]


def _formats_help() -> str:
    return " ".join(f"{row.name}: {row.summary}" for row in EXPORTS.values())


def _probes_help() -> str:
    known = "; ".join(f"{row.name}, {row.summary}" for row in PROBES.values())
    return (
        f"Which probes, comma-separated ({known}); one of your own as module:Name (docs/extending.md). "
        "Default: all of the protocol's."
    )


GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|folder|PATTERN",
        help="Images that belong together (a burst, a patient): they are no neighbours of each other, and none is "
        "learned from while another is tested. A column of the table, folder, or a pattern such as '(.*)_[0-9]+' "
        "(data.group_by).",
    ),
]
FOR_SEVERAL_PROCESSES = ("pretrain", "resume")
"""Verbs that torchrun may start."""


class Groups(StrEnum):
    """The two conventions by which classes are many, medium or few."""

    thirds = "thirds"
    thresholds = "thresholds"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdclr {sdclr.__version__}")
        raise typer.Exit


@app.callback()
def before_any_verb(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and stop.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    global _verb, _only_text
    _verb, _only_text = context.invoked_subcommand, False
    if "WORLD_SIZE" in os.environ or "RANK" in os.environ:
        from sdclr.processes.environment import check_environment, require_one_process

        check_environment()
        if context.invoked_subcommand not in FOR_SEVERAL_PROCESSES:
            require_one_process(f"sdclr {context.invoked_subcommand}")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of the demo's runs and report.", callback=_expanded)
    ] = Path("runs/demo"),
    splits: Annotated[int, typer.Option(min=1, help="Number of long-tailed splits.")] = 3,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)
    ] = None,
) -> None:
    """Compare SimCLR and SDCLR on long-tailed digits: minutes on a CPU, ends in a table and an HTML page."""
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.demo import demo as run_demo

    with Progress(_stderr) as progress:
        page = run_demo(
            out,
            num_splits=splits,
            overrides=tuple(overrides or ()),
            progress=progress,
            console=_console(),
        )
    typer.echo(f"\nreport: {shown(page)}")


@app.command(no_args_is_help=True)
def pretrain(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] [SECTION.KEY=VALUE]...", show_default=False),
    ] = None,
    data: DataPath = None,
    out: Out = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Saved config.yaml to run instead of a recipe.", callback=_expanded),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Run or backbone.safetensors to start a NEW run from.")
    ] = None,
    splits_dir: SplitsDir = None,
    download: Download = False,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show steps, time and memory, write a sheet of view pairs, and stop."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="With --dry-run: replace a file that has the sheet's name."
        ),
    ] = False,
    log: Log = "",
    use: Use = None,
) -> None:
    """Pre-train a backbone. The same command on an existing --out goes on where it stopped.

    Your own images: sdclr pretrain ./photos --out runs/photos. A folder, a list, a table (CSV, TSV, JSON
    lines, Parquet, MegaDetector's JSON), a quoted glob, a .zip, .tar shards or a .npz; the settings are
    chosen for them and explained (docs/own-images.md).

    A recipe: sdclr pretrain cifar10_lt_sdclr --data ~/data --out runs/x epochs=200 data.split=2.
    `sdclr recipes list` names the recipes, `sdclr recipes show NAME` every setting.

    A method: method.name=focal starts from that method's own defaults; `sdclr methods` lists them. One of
    your own is named as method.name=my_module:MyMethod (docs/extending.md).

    Several GPUs: torchrun --nproc-per-node N -m sdclr pretrain ..., the same words; they share every batch.
    """
    from sdclr.jobs.pretrain import pretrain as run_pretrain
    from sdclr.observers import logs_named
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first, require_one_process

    _use(use)
    paths = _paths({"data.path": data, "data.splits_dir": splits_dir, "weights": weights})
    if overwrite and not dry:
        raise ConfigError(
            "--overwrite is for the sheet of --dry-run; a run folder is gone on with, never replaced."
        )
    observers = logs_named(log) if is_first() else []
    settings, out, choices = _settings(arguments or [], config, paths, out)
    if dry:
        from sdclr.workflows.own_images import dry_run

        require_one_process("sdclr pretrain --dry-run")
        sheet = _sheet_of(out)
        with Progress(_stderr) as progress:
            dry_run(settings, sheet, _console(), progress, download=download, overwrite=overwrite)
        return
    if not is_first():  # the first process speaks for all
        run_pretrain(settings, out, download=download)
        return
    with Progress(_stderr) as progress:
        run = run_pretrain(
            settings,
            out,
            download=download,
            progress=progress,
            choices=choices,
            observers=observers,
        )
    typer.echo(f"backbone: {shown(run.backbone_path)}")
    _say_next(run)


def _say_next(run: Run) -> None:
    """The next command for a finished run; nothing where none is left."""
    if (words := run.next_command("done")) is not None:
        typer.echo(f"next: {words}")


def _sheet_of(out: Path) -> Path:
    """Where a dry run draws the views: beside the run folder, which it does not make."""
    folder = out if out.name not in ("", "..") else Path(os.path.abspath(out))
    if not folder.name:
        raise ConfigError(f"--out {shown(out)} is no folder for a run; give another.")
    return folder.with_name(f"{folder.name}-views.png")


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", callback=_expanded)],
    log: Log = "",
    use: Use = None,
) -> None:
    """Go on with a run that stopped; the result is the same as if it had not."""
    from sdclr.jobs.pretrain import resume as run_resume
    from sdclr.observers import logs_named
    from sdclr.presentation.progress import Progress
    from sdclr.processes.environment import is_first

    _use(use)
    if not is_first():
        run_resume(folder)
        return
    observers = logs_named(log)
    with Progress(_stderr) as progress:
        run = run_resume(folder, progress=progress, observers=observers)
    typer.echo(f"backbone: {shown(run.backbone_path)}")
    _say_next(run)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the methods that method.name may choose."""
    from sdclr.methods.table import METHODS

    names = max(len(row.name) for row in METHODS.values()) + 2
    titles = max(len(row.display_name) for row in METHODS.values()) + 2
    for row in METHODS.values():
        if as_json:
            _echo_json({"name": row.name, "display_name": row.display_name, "summary": row.summary})
        else:
            typer.echo(f"{row.name:<{names}}{row.display_name:<{titles}}{row.summary}")


@app.command()
def status(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", callback=_expanded)],
    as_json: AsJson = False,
) -> None:
    """How runs stand: running, done, preempted, interrupted, or failed and why; and what to do next."""
    from sdclr.jobs.status import read_status

    for found in map(read_status, folders):
        if as_json:
            _echo_json(found.to_dict())
        else:
            typer.echo("\n".join(map(one_line, found.lines())))


@app.command()
def evaluate(
    arguments: Annotated[list[str], typer.Argument(metavar="RUN...|CHECKPOINT.pt [KEY=VALUE]...")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table (.csv, .parquet, ...) or list with the names and labels of some or all of the run's images.",
            callback=_expanded,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help=f"How: {protocols_help()}. Their numbers never share a table.")
    ] = "cached",
    probes: Annotated[str | None, typer.Option(help=_probes_help())] = None,
    data: DataPath = None,
    device: Device = "auto",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="For an authors' checkpoint: the recipe it belongs to; settings may follow."
        ),
    ] = None,
    splits_dir: SplitsDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="For an authors' checkpoint: its run folder (default: runs/FILENAME).",
            callback=_expanded,
        ),
    ] = None,
    untested: Annotated[
        str | None,
        typer.Option(
            help="Classes with too few usable images: raise (an error that names them) or leave_out (a warning). "
            "Default: raise; of labels that came later leave_out."
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="PROBE",
            help=f"Test the checkpoint's own classifier, which was tuned for {' or '.join(published_probes())}.",
        ),
    ] = None,
    group_by: GroupBy = None,
    few_shot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Few labels of one's own: the protocol's few-shot probe on the training images "
            "that FILE names: .npy of positions, a text with a name a line, or a table with a column path.",
            callback=_expanded,
        ),
    ] = None,
    labels_per_class: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="The same on N labelled images of each class, drawn from a seed; several make a curve.",
        ),
    ] = None,
    label_share: Annotated[
        str | None,
        typer.Option(
            metavar="P[,P...]",
            help="The same on a share of the training images of each class, such as 0.01,0.1.",
        ),
    ] = None,
    label_seeds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="How often the labelled images are drawn, for a mean and an interval (default: 5).",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Did pre-training pay? The same probes on what one would have used without it, paired: untrained, "
            "pixels, colours, imagenet, timm:NAME, or a run or file of weights; comma-separated.",
        ),
    ] = None,
    as_json: AsJson = False,
    use: Use = None,
) -> None:
    """Probe the frozen backbone of finished runs, or of an authors' checkpoint, and print accuracy per group.

    Labels that came later: sdclr evaluate runs/photos --labels labels.csv. Without a test set the
    labelled images are cross-validated; data.test_path=FOLDER names one. data.on_error,
    data.validation_per_class and data.labels can be given anew, too; the run stays as it is.

    An authors' checkpoint:
    sdclr evaluate model_2000.pt --recipe cifar10_lt_sdclr --data PATH --splits-dir DIR data.split=1 --protocol sdclr
    """
    from sdclr.config import user_path
    from sdclr.data.choices import COLLECTION_SUFFIXES
    from sdclr.jobs.evaluate import (
        AUTHORS_CLASSIFIER,
        check_protocol,
        check_untested,
        evaluate_classifier,
        evaluation_settings,
    )
    from sdclr.jobs.evaluate import evaluate as run_evaluate
    from sdclr.jobs.report import write_report
    from sdclr.presentation.progress import Progress
    from sdclr.run import Run

    _use(use)
    targets = [argument for argument in arguments if "=" not in argument or Path(argument).exists()]
    overrides = [argument for argument in arguments if argument not in targets]
    folders = list(dict.fromkeys(map(user_path, targets)))
    rule = check_protocol(protocol)
    wanted = _few_labels_asked(few_shot, labels_per_class, label_share, label_seeds)
    if wanted and (probes is not None or classifier is not None or against is not None):
        raise ConfigError(
            "few labels are measured by the protocol's few-shot probe alone; leave out --probes, "
            "--classifier and --against."
        )
    checkpoint = next((path for path in folders if path.is_file()), None)
    if checkpoint is not None and checkpoint.suffix.lower() in COLLECTION_SUFFIXES:
        raise ConfigError(
            f"{shown(checkpoint)} is no run and no checkpoint; labels are given as --labels FILE."
        )
    if classifier is not None and (protocol, probes) != ("cached", None):
        raise ConfigError(
            "--classifier tests a ready classifier; leave out --protocol and --probes."
        )
    with Progress(_stderr) as progress:
        if checkpoint is not None:
            flags = _paths({"data.path": data, "data.splits_dir": splits_dir})
            folders = [_adopt(folders, recipe, overrides, flags, out)]
        elif recipe or out or classifier or splits_dir:
            raise ConfigError(
                "--recipe, --out, --classifier and --splits-dir are for a checkpoint file."
            )
        elif not folders:
            raise ConfigError("give a run folder or a checkpoint before the settings.")
        settings = {} if checkpoint is not None else evaluation_settings(overrides)
        if group_by is not None:
            settings["data.group_by"] = group_by
        if checkpoint is not None and classifier is not None:
            evaluate_classifier(
                folders[0], checkpoint, classifier, device=device, progress=progress
            )
        else:
            names = _probes(probes)
            moved = (
                str(user_path(data).absolute()) if data is not None and checkpoint is None else None
            )
            if wanted:
                _few_labels(
                    folders,
                    wanted,
                    as_json=as_json,
                    protocol=rule,
                    labels=labels,
                    settings=settings,
                    data_path=moved,
                    device=device,
                    untested=None if untested is None else check_untested(untested),
                    progress=progress,
                )
                return
            for folder in folders:
                run_evaluate(
                    folder,
                    protocol=rule,
                    probes=names,
                    labels=labels,
                    settings=settings,
                    data_path=moved,
                    device=device,
                    untested=None if untested is None else check_untested(untested),
                    progress=progress,
                )
    if against is not None:
        _compare(
            folders,
            against,
            names_of_probes=probes,
            labels=labels,
            settings=settings,
            device=device,
        )
        return
    chosen = AUTHORS_CLASSIFIER if classifier is not None else rule
    if as_json:
        for folder in folders:
            _echo_json({"run": str(folder), **Run(folder).read_evaluation(chosen)})
        return
    write_report(folders, {"terminal"}, protocol=chosen, console=_console(), only_numbers=True)
    typer.echo(f"next: {command('sdclr', 'report', *folders)}")


def _few_labels_asked(
    file: Path | None, per_class: str | None, share: str | None, seeds: int | None
) -> dict[str, Any]:
    """The options as few_labels takes them; empty where none was given."""
    if per_class is None and share is None and seeds is not None:
        raise ConfigError(
            "--label-seeds is for sets that are drawn: --labels-per-class N or --label-share P."
        )
    if file is None and per_class is None and share is None:
        return {}
    return {
        "few_shot": file,
        "labels_per_class": _numbers(per_class, "--labels-per-class", int),
        "label_share": _numbers(share, "--label-share", float),
        "label_seeds": 5 if seeds is None else seeds,
    }


def _numbers(text: str | None, flag: str, kind: type[int] | type[float]) -> list[Any]:
    """ "1,5" -> [1, 5]."""
    if text is None:
        return []
    numbers = []
    for word in text.split(","):
        try:
            numbers.append(kind(word))
        except ValueError:
            what = "whole numbers" if kind is int else "fractions"
            raise ConfigError(
                f"{flag} takes {what} separated by commas, got {shown(repr(text))}."
            ) from None
    return numbers


def _few_labels(
    folders: list[Path], wanted: dict[str, Any], *, as_json: bool, progress: Any, **options: Any
) -> None:
    """The curve of each run on the terminal."""
    from sdclr.jobs.evaluate import few_labels
    from sdclr.run import FEW_LABELS_FILE, Run

    for folder in folders:
        points = few_labels(folder, **wanted, **options, progress=progress)
        if as_json:
            _echo_json({"run": str(folder), **Run(folder).read_json(FEW_LABELS_FILE)})
            continue
        first = points[0]
        typer.echo(
            f"{shown(folder)}, {first.probe}, protocol {first.protocol}, mean over the classes:"
        )
        for point in points:
            typer.echo(f"  {one_line(point.sentence())}")
        typer.echo(f"  all points: {shown(folder / FEW_LABELS_FILE)}")
    if not as_json:
        typer.echo(f"next: {command('sdclr', 'report', *folders)}")


def _compare(
    folders: list[Path],
    against: str,
    *,
    names_of_probes: str | None,
    labels: Path | None,
    settings: dict[str, Any],
    device: str,
) -> None:
    """Every run beside its rivals: a sentence for each probe and rival."""
    from sdclr.jobs.evaluate import compare
    from sdclr.presentation.progress import Progress

    rivals = [word.strip() for word in against.split(",") if word.strip()]
    for folder in folders:
        with Progress(_stderr) as progress:
            found = compare(
                folder,
                rivals,
                probes=_probes(names_of_probes),
                labels=labels,
                settings=settings,
                device=device,
                progress=progress,
            )
        typer.echo(f"{shown(folder)}:")
        for pair in found.pairs:
            typer.echo(f"  {one_line(pair.sentence())}")
        if found.num_leaks:
            typer.echo(
                f"{found.num_leaks} test images are hardly another picture than a training image (first: "
                f"{', '.join(shown(name, 60) for name in found.leaks[:3])}): what is measured on them is no test."
            )


def _adopt(
    files: list[Path],
    recipe_name: str | None,
    overrides: list[str],
    flags: dict[str, Any],
    out: Path | None,
) -> Path:
    """The run folder of an authors' checkpoint."""
    from sdclr.config import parse_assignments
    from sdclr.jobs.adopt import adopt
    from sdclr.recipes import recipe

    if len(files) != 1:
        raise ConfigError(
            f"give run folders, or one checkpoint file alone; got {', '.join(map(str, files))}."
        )
    if files[0].suffix == ".safetensors":
        raise ConfigError(
            f"{files[0]}: give the run folder it lies in, or the .pt it was converted from."
        )
    if recipe_name is None:
        raise ConfigError(
            f"{files[0]} is a file: say which recipe it belongs to, e.g. --recipe cifar10_lt_sdclr."
        )
    config = recipe(recipe_name).with_values(flags | parse_assignments(overrides))
    return adopt(files[0], config, out or Path("runs") / files[0].stem).folder


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", callback=_expanded)],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="terminal, markdown, csv, json, html (with --paper: latex instead of html and json); comma-separated. "
            "Default: terminal,html; with --paper terminal.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File (or folder) for markdown, csv or html.", callback=_expanded),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Which protocol, if the runs have several.")
    ] = None,
    groups: Annotated[
        Groups | None,
        typer.Option(help="thirds of the classes, or thresholds (> 100, 20-100, < 20 images)."),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="The paper's table: every split, mean ± std, the published rows."
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PATH", help="Where the images of an unlabelled run are now."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="The numbers as one JSON object on standard output (--format json)."
        ),
    ] = False,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Tables and an HTML page over one run or many: mean ± std over splits, paired differences with intervals.

    Of runs that were not evaluated: loss, settings with reasons, copies and files left out, views, nearest
    neighbours, and what the network knows that it did not know before training. No labels are needed.
    Of evaluated runs on your own images the same is shown below the numbers.
    """
    from sdclr.config import user_path
    from sdclr.jobs.report import write_paper_table
    from sdclr.presentation.progress import Progress
    from sdclr.run import Run
    from sdclr.workflows.reports import report as run_report

    _use(use)
    if as_json and (formats is not None or paper):
        raise ConfigError("--json is --format json; give one of them, and no --paper.")
    if formats is None:
        formats = "json" if as_json else "terminal" if paper else "terminal,html"
    chosen = {name.strip() for name in formats.split(",") if name.strip()}
    options: dict[str, Any] = {
        "out": out,
        "protocol": protocol,
        "groups": groups.value if groups else None,
        "console": _console(),
        "overwrite": overwrite,
    }
    if paper:
        if data is not None:
            raise ConfigError("--data is for runs without an evaluation; leave it out of --paper.")
        write_paper_table(folders, chosen, **options)
        return
    moved = str(user_path(data).absolute()) if data is not None else None
    with Progress(_stderr) as progress:
        run_report(folders, chosen, data_path=moved, progress=progress, **options)
    if len(folders) == 1 and "terminal" in chosen:
        _say_next(Run(folders[0]))


@app.command()
def figures(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", callback=_expanded)],
    out: Annotated[Path, typer.Option(help="Folder of the figures.", callback=_expanded)] = Path(
        "figures"
    ),
    protocol: Annotated[
        str | None, typer.Option(help="Which protocol, if the runs have several.")
    ] = None,
    groups: Annotated[
        Groups | None,
        typer.Option(help="thirds of the classes, or thresholds (> 100, 20-100, < 20 images)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="PATH", help="Where the images of the runs are now."),
    ] = None,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Each figure that the runs give, as SVG, PNG and CSV; of the others, the command that makes what they lack."""
    from sdclr.config import user_path
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.reports import figures as draw

    _use(use)
    moved = str(user_path(data).absolute()) if data is not None else None
    with Progress(_stderr) as progress:
        written = draw(
            folders,
            out,
            data_path=moved,
            progress=progress,
            protocol=protocol,
            groups=groups.value if groups else None,
            overwrite=overwrite,
        )
    for path in written.files:
        typer.echo(shown(path))
    for title, needs in written.missing.items():
        typer.echo(f"not drawn: {title}: {needs}")


@app.command()
def reproduce(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="cifar10, cifar100, imagenet100, imagenet_lt_exp or digits."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)
    ] = None,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all runs (default: runs/reproduce-DATASET-SCALE).", callback=_expanded
        ),
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            help="paper (as published), matched (same head and temperature), or arms: simclr_balanced, simclr, "
            "simclr_balanced_matched, simclr_matched, sdclr; comma-separated."
        ),
    ] = "paper",
    splits: Annotated[
        str | None, typer.Option(help="For example 1-5 (default: the paper's).")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="For example 1,2 (default: the paper's one seed).")
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            help="full (as published) or tiny (a narrow network, 10 epochs: minutes a run on a CPU)."
        ),
    ] = "full",
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(name for name in PROTOCOLS if published_probes(name))} "
            "(default: sdclr; with --scale tiny cached)."
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Evaluate the authors' unzipped checkpoints instead of training.",
            callback=_expanded,
        ),
    ] = None,
    probes: Annotated[
        str | None,
        typer.Option(
            help=f"As of evaluate (default: the paper's, {','.join(published_probes())})."
        ),
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what is done and what is missing, and stop.")
    ] = False,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Print the commands of what is missing, for a scheduler, and stop.",
        ),
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

    if published is not None and (
        seeds is not None or scale != "full" or probes or only_plan or print_commands
    ):
        raise ConfigError(
            "--published evaluates ready checkpoints; leave out --seeds, --scale, --probes, --plan, --print-commands."
        )
    chosen = workflow.choose_arms(dataset, arms)
    size = workflow.choose_scale(dataset, scale)
    rule = check_protocol(protocol or size.protocol)
    measured = workflow.choose_probes(_probes(probes), rule)
    out = out or Path("runs") / f"reproduce-{dataset}-{'published' if published else scale}"
    console = _console()
    cells = matrix.plan(
        dataset,
        out,
        arms=chosen,
        splits=workflow.parse_numbers(splits, "--splits")
        if splits is not None
        else workflow.SPLITS[dataset],
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
    global _only_text
    _only_text = print_commands or only_plan
    if print_commands:
        lines = [*matrix.commands(cells, rule, measured), workflow.report_command(cells, rule, out)]
        typer.echo("\n".join(lines))
        return
    matrix.show_plan(cells, rule, measured, console)
    if only_plan:
        return
    with Progress(_stderr) as progress:
        workflow.reproduce(
            cells,
            out,
            protocol=rule,
            probes=measured,
            progress=progress,
            console=console,
            download=download,
        )


@app.command()
def grid(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The grid's file (docs/grid.md).", callback=_expanded),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all runs (default: the file's, else runs/grid-NAME).",
            callback=_expanded,
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where a finished cell leaves its small JSON file, and counts as done by it (default: OUT/records).",
            callback=_expanded,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes on this machine that share the grid.")
    ] = 1,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:N or auto (default: the settings').")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CELL", help="Work on this cell alone, without a report; may be repeated."
        ),
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what is done and what is missing, and stop.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report what the records hold.")
    ] = False,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Print a command for each cell that is missing, for a scheduler, and stop.",
        ),
    ] = False,
    download: Download = False,
    use: Use = None,
) -> None:
    """Answer a question with a grid of runs, any arms x splits x seeds of a file, ending in a verdict by its rule.

    Killed anywhere, the same command goes on; workers, and several such commands, share one --out.
    """
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.grid import run as workflow

    if report_only + only_plan + print_commands > 1:
        raise ConfigError("give one of --plan, --report-only and --print-commands.")
    if report_only and only:
        raise ConfigError("--report-only reports the whole grid; leave out --only.")
    _use(use)
    places = {"data": data, "splits_dir": splits_dir, "device": device}
    cells, values = workflow.open_grid(file, out, records, only=only or (), **places)
    console = _console()
    global _only_text
    _only_text = print_commands or only_plan
    if print_commands:
        options = [
            word
            for name, given in places.items()
            if given is not None
            for word in (f"--{name.replace('_', '-')}", given)
        ]
        options += ["--download"] * download + [
            word for one in use or [] for word in ("--use", one)
        ]
        typer.echo("\n".join(workflow.grid_commands(cells, file, options)))
        return
    if only_plan:
        workflow.show_grid_plan(cells, console)
        return
    if not report_only:
        with Progress(_stderr) as progress:
            workflow.carry_out_grid(
                cells,
                values,
                workers=workers,
                use=use or (),
                progress=progress,
                live=_stderr.is_terminal,
                download=download,
            )
    if not only:
        workflow.write_grid_report(cells, file, console=console)
    if not report_only:
        workflow.require_all_done(cells)


@app.command()
def embed(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder or backbone.safetensors.", callback=_expanded
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
            callback=_expanded,
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

    _use(use)
    if shards is not None and (out is None or overwrite):
        raise ConfigError(
            "--shards makes a new folder and replaces none: give --out FOLDER, and leave --overwrite out."
        )
    places = [argument for argument in arguments or [] if "=" not in argument or _is_path(argument)]
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
    with Progress(_stderr) as progress:
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


@app.command(no_args_is_help=True)
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
            callback=_expanded,
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
            callback=_expanded,
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
            callback=_expanded,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder of an earlier mine: IMAGES are compared with its images, and only new ones are looked at.",
            callback=_expanded,
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
            metavar="FOLDER", help="Copy the top images to a new folder.", callback=_expanded
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

    _use(use)
    places = [argument for argument in arguments or [] if "=" not in argument or _is_path(argument)]
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
    with Progress(_stderr) as progress:
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


@app.command()
def profile(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="What sdclr mine has written.", callback=_expanded),
    ],
    ask: Annotated[
        int,
        typer.Option(
            min=0, help="Ask about so many pairs of images on the terminal: same or different?"
        ),
    ] = 0,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Answers in a file, as FOLDER/questions.csv with its column same filled in.",
            callback=_expanded,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How many kinds of images a mined collection has, rare ones among them, as far as that can be known."""
    from sdclr.jobs.profile import profile as run_profile
    from sdclr.presentation.progress import Progress

    left = ask

    def answer(a: str, b: str) -> bool | None:
        nonlocal left
        if left == 0:
            return None
        left -= 1
        typer.echo(f"\n  {shown(a, 200)}\n  {shown(b, 200)}")
        word = ""
        while word not in ("y", "n", "q"):
            word = typer.prompt("same kind? (y, n, or q to stop)").strip().lower()[:1]
        return None if word == "q" else word == "y"

    if ask:  # bars and questions do not share a terminal
        found = run_profile(folder, answers=answers, ask=answer)
    else:
        with Progress(_stderr) as progress:
            found = run_profile(folder, answers=answers, progress=progress)
    if as_json:
        _echo_json(found.to_dict())
        return
    typer.echo("\n".join(found.lines()))
    typer.echo(
        f"page: {shown(folder / 'profile.html')}\nquestions: {shown(folder / 'questions.csv')}"
    )


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN.pt", callback=_expanded)],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", callback=_expanded)],
    branch: Annotated[
        str, typer.Option(help="Whose norms to take: target (dense) or competitor (pruned).")
    ] = "target",
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint of the method's authors into a backbone that load_backbone and --weights take."""
    from sdclr.jobs.convert import convert as run_convert

    # branch is checked there, with a better message
    checkpoint = run_convert(source, out, branch, overwrite=overwrite)  # type: ignore[arg-type]
    typer.echo(f"{visible(checkpoint.summary())}\nbackbone: {shown(out)}")


@app.command(no_args_is_help=True)
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder or backbone.safetensors.", callback=_expanded
        ),
    ],
    format: Annotated[str, typer.Option(help=_formats_help(), show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write (default: RUN/exports/FORMAT).", callback=_expanded
        ),
    ] = None,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Write the trained backbone for another program; it is read back and compared before it is kept."""
    from sdclr.jobs.export import export as run_export

    _use(use)
    typer.echo(f"{format}: {shown(run_export(source, format, out, overwrite=overwrite))}")


@recipes_app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Names and one line each."""
    from sdclr.recipes import RECIPES

    if as_json:
        for row in RECIPES.values():
            _echo_json({"name": row.name, "summary": row.summary})
        return
    width = max(map(len, RECIPES))
    for row in RECIPES.values():
        typer.echo(f"{row.name:<{width}}  {row.summary}")


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False
) -> None:
    """All settings of one recipe, as the config.yaml that --config takes."""
    from sdclr.recipes import recipe

    config = recipe(name)
    if as_json:
        _echo_json(config.to_dict())
    else:
        typer.echo(config.to_yaml(), nl=False)


def _echo_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    import json

    typer.echo(json.dumps(value, allow_nan=False))


def _paths(flags: Mapping[str, str | None]) -> dict[str, Any]:
    """The paths that were given, absolute, so that the saved config runs again from anywhere."""
    from sdclr.config import user_path

    return {
        key: str(user_path(value).absolute()) for key, value in flags.items() if value is not None
    }


def _settings(
    arguments: list[str], config_file: Path | None, flags: dict[str, Any], out: Path | None
) -> tuple[PretrainConfig, Path, Sequence[Choice]]:
    """Recipe, file or images, then flags, then overrides; the run folder; and what was chosen for the images."""
    from sdclr.config import parse_assignments, user_path
    from sdclr.outside import is_outside
    from sdclr.recipes import RECIPES, like, named_recipe, recipe
    from sdclr.settings import PretrainConfig
    from sdclr.workflows.own_entries import with_own_entries

    targets = [argument for argument in arguments if "=" not in argument or _is_path(argument)]
    given = parse_assignments(argument for argument in arguments if argument not in targets)
    places = {
        name: str(value)
        for name, value in given.items()
        if name in ("data.root", "data.test_path", "data.store")
    }
    given = with_own_entries(given)
    values = flags | given | _paths(places)
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
    elif is_outside(targets[0]) and not _is_path(targets[0]) and not Path(targets[0]).exists():
        config = recipe(named_recipe(targets[0])).with_values(values)
    elif _is_path(targets[0]) or Path(targets[0]).exists():
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
            str(path.absolute()), values, out, _console(quiet=bool(_speaker()))
        )
        return config, out, choices
    else:
        raise ConfigError(
            f"{shown(targets[0])!r} is neither a recipe nor a folder. {like(targets[0])} {sources}"
        )
    return config, out or Path("runs") / config.recipe, []


def _is_path(argument: str) -> bool:
    """./photos, list.csv, 'x*.jpg': whatever has a slash before any =, a sign of a glob, or such a suffix."""
    from sdclr.data.choices import COLLECTION_SUFFIXES

    head, equals, _ = argument.partition("=")
    if "/" in head:
        return True
    return not equals and (
        any(sign in head for sign in "*?[") or Path(argument).suffix.lower() in COLLECTION_SUFFIXES
    )


_stderr = Console(stderr=True, markup=False, emoji=False, highlight=False)


def _console(*, quiet: bool = False, width: int | None = None, markup: bool = False) -> Console:
    """Standard output; a path with [red] or :fire: in it is printed as it is."""
    return Console(quiet=quiet, width=width, markup=markup, emoji=False, highlight=False)


def _speaker() -> str:
    """Who says it, where it is not the first or only process."""
    number = os.environ.get("RANK", "0")
    return "" if number == "0" else f"process {shown(number)}: "


_LONG_WORD = re.compile(r"\S{400,}")
"""No word of a message needs so many characters; a path of thousands would hide the rest of it."""


def _say(kind: str, style: str, text: str) -> None:
    """A message on standard error; what it holds of names is shown as it is, and forges no further message."""
    lines = _LONG_WORD.sub(lambda found: shown(found[0]), visible(text)).replace("\n", "\n  ")
    _stderr.print(Text.assemble(_speaker(), (f"{kind}:", style), " ", lines), soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say("warning", "yellow", str(message))


def main() -> None:
    """Entry point: one sentence and the documented exit code for every error meant for the user."""
    before = sys.stdout, sys.stderr, warnings.showwarning
    out, _ = endure()
    warnings.showwarning = _show_warning
    keep_freed_memory()
    try:
        code = _run()
        out.flush()
        if out.failure is not None and not out.unread:
            code = _not_shown(out.failure, code)
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before
    sys.exit(code)


def _run() -> int:
    """The exit code of the command line."""
    global _verb, _only_text
    _verb, _only_text = None, False
    try:
        app()  # usage errors and --help end here, with typer's own message and exit code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except SdclrError as error:
        if not error.reported_elsewhere or not _speaker():
            if isinstance(error, Preempted | Interrupted):  # somebody wanted it: no error
                _say("stopped", "yellow", str(error).removeprefix("stopped "))
            else:
                _say("error", "red", str(error))
        return error.exit_code
    except OSError as error:
        refused = _refused(error)
        _say("error", "red", str(refused))
        return refused.exit_code
    except Exception:
        traceback.print_exc()
        _stderr.print(
            Text.assemble(
                ("This is a bug in sdclr;", "red"), " please report it with the lines above."
            )
        )
        return EXIT_BUG
    return 0


def _refused(error: OSError) -> SdclrError:
    """What the system has refused where nobody has said what that means there."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return StorageError(f"the system has refused an operation: {what}.")
    where = shown(error.filename if isinstance(error.filename, str) else repr(error.filename))
    if error.errno == errno.ENOENT:
        return MissingInputError(f"{where} does not exist.")
    advice = _ADVICE.get(error.errno or 0, "Check the storage, or give another path.")
    kind = RunFolderError if error.errno in _ADVICE else StorageError
    return kind(f"{where} cannot be used: {what}. {advice}")


_ADVICE = {
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.EACCES: "Its permissions, or those of a folder above it, do not allow that; give another path.",
    errno.EPERM: "The system does not allow that; give another path.",
    errno.EROFS: "It is on a read-only file system; give another path.",
    errno.ELOOP: "A link there leads to itself; give another path.",
    errno.ENOTDIR: "What is taken for a folder on the way to it is a file; give another path.",
    errno.EISDIR: "It is a folder; give a file.",
    errno.EEXIST: "It exists already; give another path.",
}


TEXT_IS_THE_RESULT = ("report", "status", "recipes", "methods")
"""Verbs that have done nothing where what they print is lost; the others have written files."""


def _not_shown(failure: OSError, code: int) -> int:
    text = f"standard output cannot be written: {failure.strerror or failure}."
    if code == 0 and (_verb is None or _verb in TEXT_IS_THE_RESULT or _only_text):
        _say("error", "red", f"{text} Free space there, or send it elsewhere.")
        return StorageError.exit_code
    _say(
        "warning",
        "yellow",
        f"{text} What this command has written to files is not touched by that.",
    )
    return code


_verb: str | None = None
_only_text = False
"""Of the command that runs; for what is to be said when its output is lost."""
