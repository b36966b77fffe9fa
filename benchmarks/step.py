"""What a step costs here: SDCLR against SimCLR and against the 2021 reference's way, as ratios from one run.

    python benchmarks/step.py
    python benchmarks/step.py --backbone resnet50 --size 224 --batch 256

The promised bounds are judged for the default work alone, and on CUDA for the second command too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from bench.run import Settings, run_bench
from rich.console import Console

from sdclr.errors import SdclrError
from sdclr.presentation.progress import Progress


def step(
    backbone: Annotated[
        str, typer.Option(help="resnet10 .. resnet50, torchvision:NAME or timm:NAME.")
    ] = "resnet18",
    width: Annotated[int, typer.Option(min=1, help="Channels of our ResNets' first stage.")] = 64,
    size: Annotated[int, typer.Option(min=4, help="Side of a view in pixels.")] = 32,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Images a step (default: 128; on CUDA 512).")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16 or both with a comma, the main one first (default: what is there)."
        ),
    ] = None,
    compiled: Annotated[
        str, typer.Option("--compile", help="auto, on, off, both or cuda-graphs.")
    ] = "auto",
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds at most; medians are over rounds.")
    ] = 7,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="For all of it; what does not fit is left out and named (default: 4; on CUDA 10).",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Where to write (default: benchmarks/results/, in a checkout)."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output file that exists.")
    ] = False,
) -> None:
    """What a step costs here, as ratios from one run."""
    settings = Settings(
        backbone, width, size, batch, _names(precision), compiled, rounds, minutes, device
    )
    wide = None if sys.stdout.isatty() else 110  # a log shows whole names
    console = Console(width=wide, emoji=False, highlight=False)
    try:
        with Progress(Console(stderr=True, markup=False, emoji=False, highlight=False)) as progress:
            run_bench(
                settings,
                json_file=json_file,
                console=console,
                progress=progress,
                overwrite=overwrite,
            )
    except SdclrError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    typer.run(step)
