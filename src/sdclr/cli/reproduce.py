"""sdclr reproduce."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.lost_output import running_command
from sdclr.cli.options import (
    DataPath,
    Download,
    OnlyPlan,
    Overrides,
    SplitsDir,
    expanded,
    probe_names,
)
from sdclr.cli.settings import absolute_paths
from sdclr.errors import ConfigError
from sdclr.evaluation.probes import PROTOCOLS, Protocol, published_probes

if TYPE_CHECKING:
    from sdclr.workflows.matrix import Cell

Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="cifar10, cifar100, imagenet100, imagenet_lt_exp or digits."
    ),
]
MatrixOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder of all runs (default: runs/reproduce-DATASET-SCALE).", callback=expanded
    ),
]
Arms = Annotated[
    str,
    typer.Option(
        help="paper (as published), matched (same head and temperature), or arms: simclr_balanced, simclr, "
        "simclr_balanced_matched, simclr_matched, sdclr; comma-separated."
    ),
]
Splits = Annotated[str | None, typer.Option(help="For example 1-5 (default: the paper's).")]
Seeds = Annotated[str | None, typer.Option(help="For example 1,2 (default: the paper's one seed).")]
ScaleName = Annotated[
    str,
    typer.Option(
        help="full (as published) or tiny (a narrow network, 10 epochs: minutes a run on a CPU)."
    ),
]
PublishedProtocol = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(name for name in PROTOCOLS if published_probes(name))} "
        "(default: sdclr; with --scale tiny cached)."
    ),
]
PublishedFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Evaluate the authors' unzipped checkpoints instead of training.",
        callback=expanded,
    ),
]
PublishedProbes = Annotated[
    str | None,
    typer.Option(help=f"As for evaluate (default: the paper's, {','.join(published_probes())})."),
]
PrintCommands = Annotated[
    bool,
    typer.Option(
        "--print-commands",
        help="Print the commands of what is missing, for a scheduler, and stop.",
    ),
]


def reproduce(
    dataset: Dataset,
    overrides: Overrides = None,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    out: MatrixOut = None,
    arms: Arms = "paper",
    splits: Splits = None,
    seeds: Seeds = None,
    scale: ScaleName = "full",
    protocol: PublishedProtocol = None,
    published: PublishedFolder = None,
    probes: PublishedProbes = None,
    only_plan: OnlyPlan = False,
    print_commands: PrintCommands = False,
    download: Download = False,
) -> None:
    """Run the paper's comparison: arms x splits x seeds, skipping what is done, ending in the paper's table.

    If killed at any point, the same command resumes; several processes can share one --out.
    """
    from sdclr.jobs.evaluate import check_protocol
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
    measured = workflow.choose_probes(probe_names(probes), rule)
    out = out or Path("runs") / f"reproduce-{dataset}-{'published' if published else scale}"
    cells = matrix.plan(
        dataset,
        out,
        arms=chosen,
        splits=_numbers(splits, "--splits") or workflow.SPLITS[dataset],
        seeds=_numbers(seeds, "--seeds"),
        overrides=[*size.overrides, *(overrides or [])],
        values=absolute_paths({"data.path": data, "data.splits_dir": splits_dir}),
        adopted=published is not None,
    )
    running_command.only_text = print_commands or only_plan
    if published is not None:
        _evaluate_published(cells, published, out, dataset, rule, download=download)
    elif print_commands:
        lines = [
            *matrix.commands(cells, rule, measured, download=download),
            workflow.report_command(cells, rule, out),
        ]
        typer.echo("\n".join(lines))
    else:
        matrix.show_plan(cells, rule, measured, terminal())
        if not only_plan:
            _carry_out(cells, out, rule, measured, download=download)


def _numbers(text: str | None, flag: str) -> list[int] | None:
    """Parse "1-3,5" -> [1, 2, 3, 5]; None if the flag was not given."""
    from sdclr.workflows.reproduce import parse_numbers

    return None if text is None else parse_numbers(text, flag)


def _evaluate_published(
    cells: Sequence[Cell],
    published: Path,
    out: Path,
    dataset: str,
    protocol: Protocol,
    *,
    download: bool,
) -> None:
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.published import evaluate_published

    with Progress(stderr) as progress:
        evaluate_published(
            cells,
            published,
            out,
            dataset=dataset,
            protocol=protocol,
            progress=progress,
            console=terminal(),
            download=download,
        )


def _carry_out(
    cells: Sequence[Cell], out: Path, protocol: Protocol, probes: Sequence[str], *, download: bool
) -> None:
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.reproduce import reproduce

    with Progress(stderr) as progress:
        reproduce(
            cells,
            out,
            protocol=protocol,
            probes=probes,
            progress=progress,
            console=terminal(),
            download=download,
        )
