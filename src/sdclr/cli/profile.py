"""sdclr profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import echo_json, print_next_step_of_mined, stderr
from sdclr.cli.options import AsJson, expanded
from sdclr.safe_text import shown

MinedFolder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="Folder written by sdclr mine.", callback=expanded),
]
Questions = Annotated[
    int,
    typer.Option(
        min=0, help="Ask about this many pairs of images on the terminal: same or different?"
    ),
]
AnswersFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Answers in a file, as FOLDER/questions.csv with its column same filled in.",
        callback=expanded,
    ),
]


def profile(
    folder: MinedFolder,
    ask: Questions = 0,
    answers: AnswersFile = None,
    as_json: AsJson = False,
) -> None:
    """Estimate how many kinds of images a mined collection has, including rare ones."""
    from sdclr.jobs.profile import profile as run_profile
    from sdclr.presentation.progress import Progress

    if ask:  # bars and questions do not share a terminal
        found = run_profile(folder, answers=answers, ask=_AskOnTerminal(ask), num_questions=ask)
    else:
        with Progress(stderr) as progress:
            found = run_profile(folder, answers=answers, progress=progress)
    if as_json:
        echo_json(found.to_dict())
        return
    typer.echo("\n".join(found.lines()))
    typer.echo(
        f"page: {shown(folder / 'profile.html')}\nquestions: {shown(folder / 'questions.csv')}"
    )
    print_next_step_of_mined(folder)


class _AskOnTerminal:
    """Asks on the terminal whether two images are of one kind, at most ``most`` times."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, a: str, b: str) -> bool | None:
        """Ask about one pair; None: no further questions."""
        if self.left == 0:
            return None
        self.left -= 1
        typer.echo(f"\n  {shown(a, 200)}\n  {shown(b, 200)}")
        word = ""
        while word not in ("y", "n", "q"):
            word = typer.prompt("same kind? (y, n, or q to stop)").strip().lower()[:1]
        return None if word == "q" else word == "y"
