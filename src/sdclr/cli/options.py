"""Options shared by several verbs."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sdclr.errors import ConfigError
from sdclr.evaluation.probes import PROBES


def expanded(value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Paths with ~ and ~name expanded, as the shell does unless they are quoted.

    Raises ConfigError for a URL (s3://bucket/x), which as a path would be a folder called s3: here.
    """
    paths = value if isinstance(value, list) else [value]
    for path in paths:
        _require_path(path)
    if not any(str(path).startswith("~") for path in paths):
        return value
    from sdclr.config import user_path

    return (
        [user_path(str(path)) for path in value]
        if isinstance(value, list)
        else user_path(str(value))
    )


def _require_path(path: Path | None) -> None:
    first = "" if path is None or path.is_absolute() or not path.parts else path.parts[0]
    if (
        path is None
        or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", first)
        or os.path.lexists(first)
    ):
        return
    raise ConfigError(
        f"an address ({first}//) was given where a path on this machine is needed. Only images in shards are read from "
        f"other machines; for a folder that is called {first} write ./{first}"
    )


Source = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Run folder, backbone.safetensors or model of finetune.",
        callback=expanded,
    ),
]
RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", callback=expanded)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)
]
WeightsFit = Annotated[
    str,
    typer.Option(
        "--weights-match",
        metavar="exact|partial|order",
        help="How the file of --weights must fit: exact; partial: what it lacks stays fresh; order: by the order of "
        "its tensors, whatever their names.",
    ),
]
OnlyPlan = Annotated[
    bool, typer.Option("--plan", help="Show what is done and what is missing, and stop.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Run folder; a run that stopped there is resumed. (default: runs/RECIPE)",
        callback=expanded,
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
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")]
Log = Annotated[
    str,
    typer.Option(
        "--log",
        metavar="NAMES",
        help="Log to tensorboard, wandb (offline), mlflow, or several with commas (docs/health.md).",
        show_default=False,
    ),
]
Observe = Annotated[
    list[str] | None,
    typer.Option(
        "--observe",
        metavar="MODULE:CLASS",
        help="An observer of your own (sdclr.Observer) that watches the training; may be given several times.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]


def import_used(words: list[str] | None) -> None:
    """Import the entries of --use: after the command line is parsed, never for --help or completion."""
    if words:
        from sdclr.workflows.own_entries import use

        use(words)


Use = Annotated[
    list[str] | None,
    typer.Option(
        "--use",
        metavar="MODULE:NAME",
        help="A method, probe, backbone, data set or views of your own that a saved file names; "
        "nothing else is imported.",
    ),
]


def probe_names(text: str | None) -> list[str] | None:
    """Names of probes from ``a,b,module:Name``; module:Name is imported. None: all of them."""
    from sdclr.evaluation.probes import load_probe
    from sdclr.outside import is_outside

    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [load_probe(word).name if is_outside(word) else word for word in words]


def probes_help() -> str:
    known = "; ".join(f"{row.name}, {row.summary}" for row in PROBES.values())
    return (
        f"Which probes, comma-separated ({known}); one of your own as module:Name (docs/extending.md). "
        "Default: all of the protocol's."
    )


GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|folder|PATTERN",
        help="Images that belong together (a burst, a patient): they are never neighbours of each other, and none is "
        "learned from while another is tested. A column of the table, folder, or a pattern such as '(.*)_[0-9]+' "
        "(data.group_by).",
    ),
]


class Groups(StrEnum):
    """The two conventions by which classes are many, medium or few."""

    thirds = "thirds"
    thresholds = "thresholds"
