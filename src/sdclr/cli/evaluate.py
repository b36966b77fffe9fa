"""sdclr evaluate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from sdclr.cli.settings import absolute_paths, moved_to
from sdclr.errors import ConfigError, NoLabelsError
from sdclr.evaluation.probes import Protocol, protocols_help, published_probes
from sdclr.run.next_step import report_command
from sdclr.safe_text import one_line, shown

if TYPE_CHECKING:
    from sdclr.jobs.evaluate import Untested

RunsOrCheckpoint = Annotated[
    list[str], typer.Argument(metavar="RUN...|CHECKPOINT.pt [KEY=VALUE]...")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Table (.csv, .parquet, ...) or list with the names and labels of some or all of the run's images.",
        callback=expanded,
    ),
]
ProtocolName = Annotated[
    str, typer.Option(help=f"Protocol: {protocols_help()}. Their numbers never share a table.")
]
Probes = Annotated[str | None, typer.Option(help=probes_help())]
RecipeName = Annotated[
    str | None,
    typer.Option(help="For an authors' checkpoint: the recipe it belongs to; settings may follow."),
]
AdoptedOut = Annotated[
    Path | None,
    typer.Option(
        help="For an authors' checkpoint: its run folder (default: runs/FILENAME).",
        callback=expanded,
    ),
]
UntestedClasses = Annotated[
    str | None,
    typer.Option(
        help="Classes with too few usable images: raise (an error that names them) or leave_out (a warning). "
        "Default: raise; of labels that came later leave_out."
    ),
]
Classifier = Annotated[
    str | None,
    typer.Option(
        metavar="PROBE",
        help=f"Test the checkpoint's own classifier, which was tuned for {' or '.join(published_probes())}.",
    ),
]
FewShotFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Few labels of your own: the protocol's few-shot probe on the training images "
        "that FILE names: .npy of positions, a text with a name a line, or a table with a column path.",
        callback=expanded,
    ),
]
LabelsPerClass = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N...]",
        help="The same on N labelled images of each class, drawn from a seed; several make a curve.",
    ),
]
LabelShare = Annotated[
    str | None,
    typer.Option(
        metavar="P[,P...]",
        help="The same on a share of the training images of each class, such as 0.01,0.1.",
    ),
]
LabelSeeds = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="How often the labelled images are drawn, for a mean and an interval (default: 5).",
    ),
]
Rivals = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Did pre-training pay off? The same probes on what one would have used without it, paired: untrained, "
        "pixels, colours, imagenet, timm:NAME, or a run or file of weights; comma-separated. Protocol cached alone.",
    ),
]


def evaluate(
    arguments: RunsOrCheckpoint,
    labels: Labels = None,
    protocol: ProtocolName = "cached",
    probes: Probes = None,
    data: DataPath = None,
    device: Device = "auto",
    recipe: RecipeName = None,
    splits_dir: SplitsDir = None,
    out: AdoptedOut = None,
    untested: UntestedClasses = None,
    classifier: Classifier = None,
    group_by: GroupBy = None,
    few_shot: FewShotFile = None,
    labels_per_class: LabelsPerClass = None,
    label_share: LabelShare = None,
    label_seeds: LabelSeeds = None,
    against: Rivals = None,
    as_json: AsJson = False,
    use: Use = None,
) -> None:
    """Probe the frozen backbone of finished runs, or of an authors' checkpoint, and print accuracy per group.

    Labels supplied later: sdclr evaluate runs/photos --labels labels.csv. Without a test set the
    labelled images are cross-validated; data.test_path=FOLDER names one. data.on_error,
    data.validation_per_class and data.labels can be overridden, too; the run itself is not changed.

    An authors' checkpoint:
    sdclr evaluate model_2000.pt --recipe cifar10_lt_sdclr --data PATH --splits-dir DIR data.split=1 --protocol sdclr
    """
    from sdclr.config import require_once
    from sdclr.jobs.evaluate import (
        check_protocol,
        check_rivals,
        check_untested,
        evaluation_settings,
    )
    from sdclr.processes.environment import is_first, require_one_process

    import_used(use)
    folders, overrides = _files_and_settings(arguments)
    rule = check_protocol(protocol)
    check_rivals(_rivals(against or ""))
    few = _few_labels_asked(few_shot, labels_per_class, label_share, label_seeds)
    checkpoint = _checkpoint_among(folders)
    others = {"--labels": labels, "--untested": untested, "--group-by": group_by}
    _refuse_together(few, protocol, probes, classifier, against, others)
    if few is not None or checkpoint is not None or against is not None:
        require_one_process("evaluate --against, with few labels or of a checkpoint")
    data_path = moved_to(data)
    if checkpoint is not None:
        flags = absolute_paths({"data.path": data, "data.splits_dir": splits_dir})
        folders = [_adopt(folders, recipe, overrides, flags, out)]
        overrides, data_path = [], None
    elif recipe or out or classifier or splits_dir:
        raise ConfigError(
            "--recipe, --out, --classifier and --splits-dir are for a checkpoint file."
        )
    elif not folders:
        raise ConfigError("give a run folder or a checkpoint before the settings.")
    if len(folders) > 1:
        _require_runs(folders)  # before any work on the first of them
    settings = evaluation_settings(overrides)
    if data_path is not None:
        require_once(settings, {"data.path": "--data"})
    if group_by is not None:
        require_once(settings, {"data.group_by": "--group-by"})
        settings["data.group_by"] = group_by
    rest = None if untested is None else check_untested(untested)
    how = _How(labels, settings, data_path, device, rest)
    if few is not None:
        _few_labels(folders, few, rule, how, as_json=as_json)
        return
    if checkpoint is not None and classifier is not None:
        shown_protocol = _test_classifier(folders[0], checkpoint, classifier, device)
    else:
        names = probe_names(probes)
        # a comparison has something to report without labels, too
        _evaluate(folders, rule, names, how, needs_labels=against is None or names is not None)
        shown_protocol = rule
    if not is_first():  # the first process prints for all
        return
    if against is not None:
        _compare(folders, against, probe_names(probes), how, as_json=as_json)
    else:
        _show(folders, shown_protocol, as_json=as_json)


@dataclass(frozen=True)
class _How:
    """How runs are evaluated, independent of what is measured."""

    labels: Path | None
    settings: dict[str, Any]
    data_path: str | None
    device: str
    untested: Untested | None


@dataclass(frozen=True)
class _FewLabels:
    """The sets of few labels to learn from."""

    few_shot: Path | None
    labels_per_class: Sequence[int]
    label_share: Sequence[float]
    label_seeds: int


def _files_and_settings(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Run folders or a checkpoint, each once; and KEY=VALUE."""
    from sdclr.addresses import is_address
    from sdclr.config import user_path

    targets = [
        word for word in arguments if "=" not in word or is_address(word) or os.path.exists(word)
    ]
    overrides = [word for word in arguments if word not in targets]
    places: dict[str, Path] = {}
    for path in map(user_path, targets):
        places.setdefault(os.path.realpath(path), path)
    return list(places.values()), overrides


def _refuse_together(
    few: _FewLabels | None,
    protocol: str,
    probes: str | None,
    classifier: str | None,
    against: str | None,
    others: Mapping[str, Any],
) -> None:
    """Raise ConfigError for flags that exclude each other; ``others``: those that affect how a probe is measured."""
    if few is not None and (probes is not None or classifier is not None or against is not None):
        raise ConfigError(
            "few labels are measured by the protocol's few-shot probe alone; leave out --probes, "
            "--classifier and --against."
        )
    if against is not None and protocol != "cached":
        raise ConfigError(
            f"--against measures by protocol cached alone, got --protocol {protocol}. Leave one of the two out."
        )
    if classifier is None:
        return
    if (protocol, probes) != ("cached", None):
        raise ConfigError(
            "--classifier tests a ready classifier; leave out --protocol and --probes."
        )
    given = [flag for flag, value in {**others, "--against": against}.items() if value is not None]
    if given:
        raise ConfigError(
            f"--classifier tests a ready classifier on the run's own test set; leave out {' and '.join(given)}."
        )


def _require_runs(folders: Sequence[Path]) -> None:
    """Raise MissingInputError for a folder that is not a finished run."""
    from sdclr.backbones.weights import read_backbone
    from sdclr.run import Run

    for folder in folders:
        if not Run(folder).require().backbone_path.is_file():
            read_backbone(folder)  # raises the error


def _checkpoint_among(paths: Sequence[Path]) -> Path | None:
    """The authors' checkpoint, if a file is given instead of run folders."""
    from sdclr.data.choices import COLLECTION_SUFFIXES

    file = next((path for path in paths if path.is_file()), None)
    if file is not None and file.suffix.lower() in COLLECTION_SUFFIXES:
        raise ConfigError(
            f"{shown(file)} is neither a run nor a checkpoint; labels are given as --labels FILE."
        )
    return file


def _evaluate(
    folders: Sequence[Path],
    protocol: Protocol,
    probes: list[str] | None,
    how: _How,
    *,
    needs_labels: bool,
) -> None:
    from sdclr.jobs.evaluate import evaluate
    from sdclr.presentation.progress import Progress

    with Progress(stderr) as progress:
        for folder in folders:
            try:
                evaluate(folder, protocol=protocol, probes=probes, progress=progress, **vars(how))
            except NoLabelsError:
                if needs_labels:
                    raise


def _test_classifier(folder: Path, checkpoint: Path, probe: str, device: str) -> str:
    """Test a checkpoint's classifier; return the protocol under which its numbers are stored."""
    from sdclr.jobs.evaluate import AUTHORS_CLASSIFIER, evaluate_classifier
    from sdclr.presentation.progress import Progress

    with Progress(stderr) as progress:
        evaluate_classifier(folder, checkpoint, probe, device=device, progress=progress)
    return AUTHORS_CLASSIFIER


def _show(folders: Sequence[Path], protocol: str, *, as_json: bool) -> None:
    """Print the results, as a table or as a line of JSON for each run."""
    from sdclr.jobs.report import write_report
    from sdclr.run import Run

    if as_json:
        for folder in folders:
            echo_json({"run": str(folder), **Run(folder).read_evaluation(protocol)})
        return

    def print_report(runs: Sequence[Path]) -> None:
        typer.echo(f"next: {report_command(*map(Run, runs))}")

    def table(runs: Sequence[Path]) -> None:
        write_report(runs, {"terminal"}, protocol=protocol, console=terminal(), only_numbers=True)

    try:
        table(folders)
    except ConfigError as error:
        if len(folders) == 1:
            raise
        typer.echo(f"No common table: {one_line(str(error))}")
        for folder in folders:  # the results are still shown, run by run
            table([folder])
            print_report([folder])
        return
    print_report(folders)


def _few_labels_asked(
    file: Path | None, per_class: str | None, share: str | None, seeds: int | None
) -> _FewLabels | None:
    """The requested few labels; None if no flag requests any."""
    if per_class is None and share is None and seeds is not None:
        raise ConfigError(
            "--label-seeds is for sets that are drawn: --labels-per-class N or --label-share P."
        )
    if file is None and per_class is None and share is None:
        return None
    return _FewLabels(
        few_shot=file,
        labels_per_class=_numbers(per_class, "--labels-per-class", int),
        label_share=_numbers(share, "--label-share", float),
        label_seeds=5 if seeds is None else seeds,
    )


def _numbers(text: str | None, flag: str, kind: type[int] | type[float]) -> list[Any]:
    """Parse numbers: "1,5" -> [1, 5]."""
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
    folders: Sequence[Path], few: _FewLabels, protocol: Protocol, how: _How, *, as_json: bool
) -> None:
    """Measure each run and print its curve."""
    from sdclr.jobs.evaluate import few_labels
    from sdclr.presentation.progress import Progress
    from sdclr.run import Run
    from sdclr.run.files import FEW_LABELS_FILE

    with Progress(stderr) as progress:
        for folder in folders:
            points = few_labels(
                folder, protocol=protocol, progress=progress, **vars(few), **vars(how)
            )
            if as_json:
                echo_json({"run": str(folder), **Run(folder).read_json(FEW_LABELS_FILE)})
                continue
            measured = f"{points[0].probe}, protocol {points[0].protocol}"
            typer.echo(f"{shown(folder)}, {measured}, mean over the classes:")
            for point in points:
                typer.echo(f"  {one_line(point.sentence())}")
            typer.echo(f"  all points: {shown(folder / FEW_LABELS_FILE)}")
    if not as_json:
        measured_by = points[0].protocol  # there is at least one run
        typer.echo(f"next: {report_command(*map(Run, folders), protocol=measured_by)}")


def _rivals(against: str) -> list[str]:
    return [word.strip() for word in against.split(",") if word.strip()]


def _compare(
    folders: Sequence[Path], against: str, probes: list[str] | None, how: _How, *, as_json: bool
) -> None:
    """Compare every run with its rivals and print a sentence for each probe and rival."""
    from sdclr.jobs.evaluate import compare
    from sdclr.presentation.progress import Progress

    rivals = _rivals(against)
    moved = {} if how.data_path is None else {"data.path": how.data_path}
    for folder in folders:
        with Progress(stderr) as progress:
            found = compare(
                folder,
                rivals,
                probes=probes,
                labels=how.labels,
                settings=how.settings | moved,
                device=how.device,
                untested=how.untested,
                progress=progress,
            )
        if as_json:
            echo_json({"run": str(folder), **found.to_dict()})
            continue
        typer.echo(f"{shown(folder)}:")
        for sentence in found.sentences():
            typer.echo(f"  {one_line(sentence)}")
        if found.num_groups is not None:
            typer.echo(f"  Intervals resample {found.num_groups} groups, not single images.")
        if found.unlabelled is not None:
            to_fill_in = found.unlabelled.num_to_label > 0
            when = f", when {shown(found.unlabelled.to_label)} has labels" if to_fill_in else ""
            typer.echo(f"next{when}: {found.unlabelled.next_command}")
        if found.num_leaks:
            typer.echo(
                f"{found.num_leaks} test images are nearly the same picture as a training image (first: "
                f"{', '.join(shown(name, 60) for name in found.leaks[:3])}): what is measured on them is not a test."
            )


def _adopt(
    files: Sequence[Path],
    recipe_name: str | None,
    overrides: list[str],
    flags: dict[str, Any],
    out: Path | None,
) -> Path:
    """The run folder of an authors' checkpoint."""
    from sdclr.cli.settings import OPTIONS
    from sdclr.config import parse_assignments, require_once
    from sdclr.jobs.adopt import adopt
    from sdclr.recipes import recipe

    if len(files) != 1:
        raise ConfigError(
            f"give run folders, or one checkpoint file alone; got {', '.join(map(str, files))}."
        )
    if files[0].suffix == ".safetensors":
        raise ConfigError(
            f"{files[0]}: give the run folder it is in, or the .pt it was converted from."
        )
    if recipe_name is None:
        raise ConfigError(
            f"{files[0]} is a file: say which recipe it belongs to, e.g. --recipe cifar10_lt_sdclr."
        )
    given = parse_assignments(overrides)
    require_once(given, {name: OPTIONS[name] for name in flags})
    config = recipe(recipe_name).with_values(flags | given)
    return adopt(files[0], config, out or Path("runs") / files[0].stem).folder
