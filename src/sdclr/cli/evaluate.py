"""sdclr evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdclr.cli.consoles import echo_json, stderr, terminal
from sdclr.cli.options import (
    AsJson,
    DataPath,
    Device,
    GroupBy,
    SplitsDir,
    Use,
    expanded,
    import_used,
    probe_names,
    probes_help,
)
from sdclr.cli.settings import absolute_paths
from sdclr.errors import (
    ConfigError,
)
from sdclr.evaluation.probes import protocols_help, published_probes
from sdclr.safe_text import command, one_line, shown


def evaluate(
    arguments: Annotated[list[str], typer.Argument(metavar="RUN...|CHECKPOINT.pt [KEY=VALUE]...")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table (.csv, .parquet, ...) or list with the names and labels of some or all of the run's images.",
            callback=expanded,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help=f"How: {protocols_help()}. Their numbers never share a table.")
    ] = "cached",
    probes: Annotated[str | None, typer.Option(help=probes_help())] = None,
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
            callback=expanded,
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
            callback=expanded,
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

    import_used(use)
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
    with Progress(stderr) as progress:
        if checkpoint is not None:
            flags = absolute_paths({"data.path": data, "data.splits_dir": splits_dir})
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
            names = probe_names(probes)
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
            echo_json({"run": str(folder), **Run(folder).read_evaluation(chosen)})
        return
    write_report(folders, {"terminal"}, protocol=chosen, console=terminal(), only_numbers=True)
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
            echo_json({"run": str(folder), **Run(folder).read_json(FEW_LABELS_FILE)})
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
        with Progress(stderr) as progress:
            found = compare(
                folder,
                rivals,
                probes=probe_names(names_of_probes),
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
