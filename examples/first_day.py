"""The first day with a folder of photos: train, look, take the features away; labels come later.

    python examples/first_day.py PHOTOS
    python examples/first_day.py PHOTOS --labels labels.csv --test more-photos
    python examples/first_day.py PHOTOS epochs=1 backbone.name=timm:vit_tiny_patch16_224

After each command sdclr says what comes next. This script takes it at its word, until there is
nothing left to do.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Run = Callable[[list[str]], str]
"""Runs `sdclr` with these words and returns its standard output; raises where it fails."""


def sdclr(words: list[str]) -> str:
    """The command line, with its progress shown as it comes."""
    process = subprocess.run(
        [sys.executable, "-m", "sdclr", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    print(process.stdout)
    return process.stdout


def follow(words: list[str], run: Run = sdclr) -> list[list[str]]:
    """Run a command, then whatever is proposed as the next one; the commands in order."""
    done: list[list[str]] = []
    while words:
        print("$", shlex.join(["sdclr", *words]))
        output = run(words)
        done.append(words)
        words = proposed(output)
    return done


def proposed(output: str) -> list[str]:
    """The words behind `next: sdclr`; none where nothing is proposed."""
    for line in reversed(output.splitlines()):
        before, sign, command = line.partition("next: sdclr ")
        if sign and not before.strip():
            return shlex.split(command)
    return []


def walk(
    photos: str,
    out: str,
    settings: list[str],
    *,
    labels: str | None = None,
    test: str | None = None,
    run: Run = sdclr,
) -> list[list[str]]:
    """The whole road: without labels, with some that came later, with a test set."""
    done = follow(["pretrain", photos, "--out", out, *settings], run)
    if labels is not None:
        done += follow(["evaluate", out, "--labels", labels], run)
    if test is not None:
        classes = ["data.labels=folders"] if labels is None else ["--labels", labels]
        done += follow(["evaluate", out, *classes, f"data.test_path={test}"], run)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", help="a folder, a list or table, a .zip, ...")
    parser.add_argument("settings", nargs="*", help="section.key=value, as for sdclr pretrain")
    parser.add_argument(
        "--out", default="runs/first-day", help="the run folder (default: %(default)s)"
    )
    parser.add_argument("--labels", help="a table with the names and labels of some of the photos")
    parser.add_argument(
        "--test", help="a folder of class folders, or a list with labels, to measure on"
    )
    arguments = parser.parse_args()
    walk(
        arguments.photos,
        arguments.out,
        arguments.settings,
        labels=arguments.labels,
        test=arguments.test,
    )
    print("The page to look at:", Path(arguments.out) / "report.html")


if __name__ == "__main__":
    main()
