"""sdclr reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.lost_output import asked
from sdclr.cli.options import DataPath, Download, SplitsDir, expanded, probe_names
from sdclr.cli.settings import absolute_paths
from sdclr.errors import (
    ConfigError,
)
from sdclr.evaluation.probes import PROTOCOLS, published_probes


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
            help="Folder of all runs (default: runs/reproduce-DATASET-SCALE).", callback=expanded
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
            callback=expanded,
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
    measured = workflow.choose_probes(probe_names(probes), rule)
    out = out or Path("runs") / f"reproduce-{dataset}-{'published' if published else scale}"
    console = terminal()
    cells = matrix.plan(
        dataset,
        out,
        arms=chosen,
        splits=workflow.parse_numbers(splits, "--splits")
        if splits is not None
        else workflow.SPLITS[dataset],
        seeds=workflow.parse_numbers(seeds, "--seeds") if seeds is not None else None,
        overrides=[*size.overrides, *(overrides or [])],
        values=absolute_paths({"data.path": data, "data.splits_dir": splits_dir}),
        adopted=published is not None,
    )
    if published is not None:
        from sdclr.workflows.published import evaluate_published

        with Progress(stderr) as progress:
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
    asked.only_text = print_commands or only_plan
    if print_commands:
        lines = [*matrix.commands(cells, rule, measured), workflow.report_command(cells, rule, out)]
        typer.echo("\n".join(lines))
        return
    matrix.show_plan(cells, rule, measured, console)
    if only_plan:
        return
    with Progress(stderr) as progress:
        workflow.reproduce(
            cells,
            out,
            protocol=rule,
            probes=measured,
            progress=progress,
            console=console,
            download=download,
        )
