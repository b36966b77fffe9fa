"""The paper's comparison on one data set: the whole matrix of arms, splits and seeds, ending in the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sdclr.errors import ConfigError
from sdclr.evaluation.probes import PROBES, PROTOCOLS, Protocol, published_probes
from sdclr.jobs.report import require_replaceable, write_paper_table, write_report
from sdclr.presentation.progress import AnyProgress
from sdclr.recipes import ARM_SETS, SYSTEMS
from sdclr.safe_text import command
from sdclr.workflows.matrix import Cell, carry_out, require_all

SPLITS: Mapping[str, tuple[int, ...]] = {
    "cifar10": (1, 2, 3, 4, 5),
    "cifar100": (1, 2, 3, 4, 5),
    "imagenet100": (1,),
    "imagenet_lt_exp": (1,),
    "digits": (1, 2, 3),
}
"""The splits of the paper; those of digits are ours."""


LONGEST_RANGE = 1000


@dataclass(frozen=True)
class Scale:
    """The size of the runs."""

    overrides: tuple[str, ...]
    protocol: Protocol


_NARROW = (
    "backbone.name=resnet10",
    "backbone.width=16",
    "epochs=10",
    "batch_size=128",
    "optimizer.learning_rate=0.12",  # the paper's 0.5 at batch 512, scaled to batch 128
    "checkpoint_every_epochs=1",
)
SCALES: Mapping[str, Mapping[str, Scale]] = {
    "full": {dataset: Scale((), "sdclr") for dataset in SYSTEMS},
    "tiny": {dataset: Scale(_NARROW, "cached") for dataset in ("cifar10", "cifar100")}
    | {
        dataset: Scale((*_NARROW, "views.size=64"), "cached")
        for dataset in ("imagenet100", "imagenet_lt_exp")
    }
    | {"digits": Scale(("backbone.width=8", "epochs=10", "checkpoint_every_epochs=1"), "cached")},
}
"""full: as published, protocol sdclr. tiny: a narrow ResNet-10 for ten epochs, protocol cached.

About ten minutes per run on two CPU cores for CIFAR-10 (docs/results.md).
"""


def choose_arms(dataset: str, text: str) -> list[str]:
    """The arms of "paper", "matched", or names separated by commas. Raises ConfigError, listing the available ones."""
    if dataset not in SYSTEMS:
        raise ConfigError(
            f"there is no data set {dataset!r} to reproduce; choose from {', '.join(SYSTEMS)}."
        )
    known = SYSTEMS[dataset]
    arms = [
        arm
        for word in text.split(",")
        if (name := word.strip())
        for arm in ARM_SETS.get(name, (name,))
    ]
    unknown = [arm for arm in arms if arm not in known]
    if unknown or not arms:
        what = f"no arm {unknown[0]!r}" if unknown else "no arm without a name"
        sets = [name for name, members in ARM_SETS.items() if set(members) <= set(known)]
        raise ConfigError(f"{dataset} has {what}; choose from {', '.join([*sets, *known])}.")
    return list(dict.fromkeys(arms))


def choose_probes(names: Sequence[str] | None, protocol: Protocol) -> tuple[str, ...]:
    """The paper's probes, or the named ones.

    Raises ConfigError, before any work, for one that cannot be measured, and if none of the paper's is named.
    """
    if not (defined := published_probes(protocol)):
        known = ", ".join(one for one in PROTOCOLS if published_probes(one))
        raise ConfigError(
            f"protocol {protocol} has none of the probes of the paper's table; choose from {known}, "
            "or measure a grid by it (docs/grid.md)."
        )
    if names is None:
        return defined
    for name in names:
        PROBES.require(name).require(protocol)
    if not set(names) & set(published_probes()):
        needed = " or ".join(published_probes())
        raise ConfigError(
            f"the paper's table needs {needed}; got {', '.join(names) or 'no probe'}."
        )
    return tuple(dict.fromkeys(names))


def choose_scale(dataset: str, name: str) -> Scale:
    """The scale of this name. Raises ConfigError, listing the available ones."""
    if name not in SCALES:
        raise ConfigError(f"--scale must be {' or '.join(SCALES)}, got {name!r}.")
    return SCALES[name][dataset]


def parse_numbers(text: str, what: str) -> list[int]:
    """Parse numbers and ranges: "1-3,5" -> [1, 2, 3, 5]."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if (
            not first.isdecimal()
            or (dash and not last.isdecimal())
            or (dash and int(last) < int(first))
        ):
            raise ConfigError(
                f"cannot read {what} {text!r}; write numbers and ranges, for example 1-3,5."
            )
        if int(last or first) - int(first) >= LONGEST_RANGE:
            raise ConfigError(f"{what} {text!r} names more than {LONGEST_RANGE} numbers.")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))


def reproduce(
    cells: Sequence[Cell],
    out: Path,
    *,
    protocol: Protocol,
    probes: Sequence[str] | None = None,
    progress: AnyProgress,
    console: Console,
    download: bool = False,
) -> None:
    """Run the matrix and print the paper's table, which is also written to OUT/paper.md, .csv and .tex.

    ``probes``: by default the paper's. OUT/report.html has the paired comparisons.
    Raises RunFolderError if other processes hold some of the runs: the table then covers the rest.
    """
    require_replaceable(*report_files(out))
    probes = choose_probes(probes, protocol)
    done = carry_out(cells, protocol=protocol, probes=probes, progress=progress, download=download)
    summarise(done, out, protocol, console)
    require_all(done, cells)


def report_files(out: Path) -> list[Path]:
    """The files that :func:`summarise` writes."""
    return [out / name for name in ("report.html", "paper.md", "paper.csv", "paper.tex")]


def report_command(cells: Sequence[Cell], protocol: str, out: Path) -> str:
    """The shell line that makes the table once all the other lines have finished."""
    folders = [cell.run.folder for cell in cells]
    files = ["--format", "terminal,markdown,csv,latex", "--out", out, "--overwrite"]
    return command("sdclr", "report", "--paper", *folders, "--protocol", protocol, *files)


def summarise(cells: Sequence[Cell], out: Path, protocol: str, console: Console) -> None:
    """Write the paper's table to the terminal and OUT/paper.*, the comparisons to OUT/report.html."""
    folders = [
        cell.run.folder
        for arm in dict.fromkeys(c.arm for c in cells)
        for cell in cells
        if cell.arm == arm
    ]
    if not folders:
        return
    console.print()
    formats = {"terminal", "markdown", "csv", "latex"}
    write_paper_table(folders, formats, out=out, protocol=protocol, console=console, ours=True)
    write_report(
        folders, {"html"}, out=out / "report.html", protocol=protocol, console=console, ours=True
    )
