"""sdclr report and sdclr figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdclr.cli.consoles import print_next_step, stderr, terminal
from sdclr.cli.options import Groups, Overwrite, RunFolders, Use, expanded, import_used
from sdclr.cli.settings import moved_to
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="terminal, markdown, csv, json, html (with --paper: latex instead of html and json); comma-separated. "
        "Default: terminal,html; with --paper terminal.",
    ),
]
ReportOut = Annotated[
    Path | None,
    typer.Option(help="File (or folder) for markdown, csv or html.", callback=expanded),
]
WhichProtocol = Annotated[
    str | None, typer.Option(help="Which protocol, if the runs have several.")
]
GroupsBy = Annotated[
    Groups | None,
    typer.Option(help="thirds of the classes, or thresholds (> 100, 20-100, < 20 images)."),
]
AsPaper = Annotated[
    bool,
    typer.Option("--paper", help="The paper's table: every split, mean ± std, the published rows."),
]
ImagesNow = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Where the images of an unlabelled run are now."),
]
NumbersAsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="The numbers as one JSON object on standard output (--format json)."
    ),
]


def report(
    folders: RunFolders,
    formats: Formats = None,
    out: ReportOut = None,
    protocol: WhichProtocol = None,
    groups: GroupsBy = None,
    paper: AsPaper = False,
    data: ImagesNow = None,
    as_json: NumbersAsJson = False,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Tables and an HTML page over one run or many: mean ± std over splits or seeds, paired differences with intervals.

    For runs that were not evaluated: loss, settings with reasons, copies and files left out, views, nearest
    neighbours, and what training has changed in the network. No labels are needed.
    For evaluated runs on your own images the same is shown below the numbers.
    """
    from sdclr.jobs.report import write_paper_table
    from sdclr.presentation.progress import Progress
    from sdclr.run import Run
    from sdclr.workflows.reports import report as run_report

    import_used(use)
    if as_json and (formats is not None or paper):
        raise ConfigError("--json is --format json; give one of them, and no --paper.")
    if formats is None:
        formats = "json" if as_json else "terminal" if paper else "terminal,html"
    chosen = {name.strip() for name in formats.split(",") if name.strip()}
    options: dict[str, Any] = {
        "out": out,
        "protocol": protocol,
        "groups": groups.value if groups else None,
        "console": terminal(),
        "overwrite": overwrite,
    }
    if paper:
        if data is not None:
            raise ConfigError("--data is for runs without an evaluation; leave it out of --paper.")
        write_paper_table(folders, chosen, **options)
        return
    with Progress(stderr) as progress:
        run_report(folders, chosen, data_path=moved_to(data), progress=progress, **options)
    if len(folders) == 1 and "terminal" in chosen:
        print_next_step(Run(folders[0]))


FiguresOut = Annotated[Path, typer.Option(help="Folder of the figures.", callback=expanded)]
FiguresImagesNow = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Where the images of the runs are now."),
]


def figures(
    folders: RunFolders,
    out: FiguresOut = Path("figures"),
    protocol: WhichProtocol = None,
    groups: GroupsBy = None,
    data: FiguresImagesNow = None,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Draw each figure that the runs allow, as SVG, PNG and CSV; for the others, print the command they need."""
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.reports import figures as draw

    import_used(use)
    with Progress(stderr) as progress:
        written = draw(
            folders,
            out,
            data_path=moved_to(data),
            progress=progress,
            protocol=protocol,
            groups=groups.value if groups else None,
            overwrite=overwrite,
        )
    for path in written.files:
        typer.echo(shown(path))
    for title, needs in written.missing.items():
        typer.echo(f'not drawn: "{title}" {needs}')
