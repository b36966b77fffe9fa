"""What to do next with a run folder, as a command to type."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdclr.errors import EXIT_BUG, CheckpointError, DataError, MissingInputError, NonFiniteError
from sdclr.run.files import FEATURES_FILE, FEWEST_MINED, IMAGES_FILE, MINED_FOLDER, PROFILE_FILE
from sdclr.run.folder import Run
from sdclr.run.outside import section, use_options, use_options_of
from sdclr.safe_text import command

KINDS = ("method", "backbone", "data", "views")
"""The parts of a training that may be from outside the package."""


def report_command(*runs: Run, protocol: str | None = None, more: Sequence[str] = ()) -> str:
    """The command that reports these runs and their examinations, which need the views.

    Of several protocols under which all were evaluated: ``protocol``, otherwise the newest.
    """
    uses = use_options_of(runs, "backbone", "data", "views")
    rule = _protocol_option(runs, protocol)
    return command("sdclr", "report", *(run.folder for run in runs), *rule, *uses, *more)


def evaluate_command(*runs: Run, more: Sequence[object] = (), labels: bool | None = None) -> str:
    """The command that evaluates these runs, with ``more`` options and those that these runs need.

    ``labels``: whether it needs --labels FILE; None: where an earlier evaluation had its own labels.
    """
    folders = (run.folder for run in runs)
    rule = max(map(_untested_option, runs))
    uses = use_options_of(runs, "backbone", "data")
    found = command("sdclr", "evaluate", *folders, *more, *rule, *uses)
    needed = any(map(_labels_came_later, runs)) if labels is None else labels
    return f"{found} --labels FILE" if needed else found


def _untested_option(run: Run) -> list[str]:
    with contextlib.suppress(DataError, MissingInputError):
        return _evaluable(run.read_json("split.json").get("counts") or {}) or []
    return []


def _labels_came_later(run: Run) -> bool:
    for protocol in run.evaluated_protocols():
        with contextlib.suppress(DataError, MissingInputError):
            if run.read_json(f"evaluation/{protocol}.json").get("labels"):
                return True
    return False


def _protocol_option(runs: Sequence[Run], wanted: str | None) -> list[str]:
    """The option that chooses a protocol, where all runs were evaluated under several."""
    shared = set.intersection(*(run.evaluated_protocols() for run in runs)) if runs else set()
    if len(shared) < 2:
        return []
    if wanted in shared:
        return ["--protocol", wanted]
    newest = max(sorted(shared), key=lambda name: runs[-1].evaluation_path(name).stat().st_mtime_ns)
    return ["--protocol", newest]


def next_command(run: Run, state: str, exit_code: int | None = None) -> str | None:
    """What to do with a run in this state; ``exit_code``: of a failed run. None: wait, or not known."""
    if state == "running":
        return None
    if not run.exists:  # it ended before its settings were written
        return None
    if state == "done":
        return _next_when_done(run)
    uses = use_options(run, *KINDS)
    afresh = command("sdclr", "pretrain", "--config", run.config_path, "--out", "ANOTHER", *uses)
    if exit_code == CheckpointError.exit_code:
        return afresh
    settings: dict[str, Any] = {}
    with contextlib.suppress(DataError):
        settings = run.settings()
    if exit_code == NonFiniteError.exit_code:  # the same settings would end in the same step
        rate = section(settings, "optimizer").get("learning_rate")
        smaller = f"{rate / 10:g}" if isinstance(rate, int | float) else "SMALLER"
        return f"{afresh} optimizer.learning_rate={smaller}"
    if exit_code == EXIT_BUG:
        return "report it, or mend your own method, network or reader if the error is of that"
    if section(settings, "backbone").get("name") == "custom":
        return f"from Python: sdclr.resume({str(run.folder)!a}, network=...)"
    return command("sdclr", "resume", run.folder, *uses)


def _next_when_done(run: Run) -> str | None:
    """Evaluate where there are labels, report; for a user's own images, embed, mine, profile, report again."""
    split: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    with contextlib.suppress(DataError, MissingInputError):
        split, settings = run.read_json("split.json"), run.settings()
    evaluations = [run.evaluation_path(name).stat().st_mtime for name in run.evaluated_protocols()]
    if not evaluations and not split:
        return evaluate_command(run)
    if not evaluations and _evaluable(split.get("counts") or {}) is not None:
        return evaluate_command(run)
    page, mined = run.folder / "report.html", run.folder / MINED_FOLDER
    profiled = [path.stat().st_mtime for path in [mined / PROFILE_FILE] if path.is_file()]
    if not page.is_file() or page.stat().st_mtime < max([*evaluations, *profiled], default=0.0):
        return report_command(run)
    data, features = section(settings, "data"), run.folder / FEATURES_FILE
    if data.get("name") in ("images", "arrays") and not features.is_file():
        return command("sdclr", "embed", run.folder, *use_options(run, "backbone", "data"))
    if _minable(run) and not (mined / "scores.csv").is_file():
        return command("sdclr", "mine", run.folder, *use_options(run, "backbone", "data"))
    return next_when_mined(mined) if mined.is_dir() else None


def next_when_mined(folder: Path) -> str | None:
    """What to do with a folder of ranked images; None where nothing is left to do."""
    if (folder / "features.npy").is_file() and not (folder / PROFILE_FILE).is_file():
        return command("sdclr", "profile", folder)
    return None


def _minable(run: Run) -> bool:
    """Whether the run is on a folder or list with enough images for mining."""
    with contextlib.suppress(DataError, MissingInputError):
        facts = run.read_json(IMAGES_FILE)
        return int(facts["found"]) - len(facts["skipped"]) >= FEWEST_MINED
    return False


def _evaluable(counts: Mapping[str, Sequence[int]]) -> list[str] | None:
    """The options with which an evaluation with these images per class succeeds; None where none does.

    Without a test set the images are cross-validated: a class needs two, one to train on and one to predict.
    """
    train, test = counts.get("train") or [], counts.get("test") or []
    if len(train) < 2:  # no labels, or a single class
        return None
    if test:
        measurable = [bool(known and tested) for known, tested in zip(train, test, strict=False)]
    else:
        measurable = [known > 1 for known in train]
    if sum(measurable) < (1 if test else 2):
        return None
    return [] if all(measurable) else ["--untested", "leave_out"]
