"""What a run folder refuses: another run's settings, other classes, to be the folder of something else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sdclr.config import Section, user_place
from sdclr.errors import ConfigError, RunFolderError
from sdclr.run.files import (
    CHOICES_FILE,
    CONTENTS_FILE,
    IMAGES_FILE,
    LOCK_FILE,
    LOG_FILE,
    STATUS_FILE,
)
from sdclr.run.folder import Run
from sdclr.safe_text import command, shown

OF_AN_EVALUATION = frozenset(
    {"data.labels", "data.test_path", "data.on_error", "data.label_column"}
)
"""Settings that an evaluation can override; they change nothing in a finished training."""


def require_same_settings(run: Run, config: Section, *, may_warm_start: bool = True) -> None:
    """Refuse to mix runs: ConfigError if this folder holds a run with settings that give another result, naming them.

    ``may_warm_start``: whether the command takes --weights, which the advice may then name.
    """
    if run.exists:
        if differences := config.differences(run.settings()):
            raise ConfigError(_other_settings(run, differences, may_warm_start))
    elif run.folder.exists() and (not run.folder.is_dir() or _holds_something_else(run.folder)):
        raise RunFolderError(
            f"{run.folder} exists and is not a run folder; choose a new or empty --out."
        )


def _other_settings(run: Run, differences: Sequence[str], may_warm_start: bool) -> str:
    """What to do first, then the differences."""
    names = [line.partition(":")[0] for line in differences]
    if run.backbone_path.is_file() and set(names) <= OF_AN_EVALUATION:
        return (
            f"{shown(run.folder)} is finished, and {', '.join(names)} changes its evaluation alone: "
            f"{command('sdclr', 'evaluate', run.folder)} {' '.join(f'{name}=...' for name in names)}"
        )
    first = f"{shown(run.folder)} holds a run with other settings: give the saved ones to continue it, or "
    same_network = not any(line.startswith("backbone.") for line in differences)
    afresh = "start a new run with another --out."
    if run.backbone_path.is_file():
        first = f"{shown(run.folder)} is finished, with other settings: "
        if (
            may_warm_start
            and same_network
            and not any(line.startswith("weights:") for line in differences)
        ):
            weights = command("--weights", run.folder)
            afresh = f"start a new run, with the same command, {weights} and another --out."
    more = [f"... and {len(differences) - 8} more"] if len(differences) > 8 else []
    return "\n  ".join([f"{first}{afresh}", "saved -> requested:", *differences[:8], *more])


def require_classes(run: Run, class_names: Sequence[str]) -> None:
    """ConfigError unless the classes have the same names as when the run started, in the same order."""
    before = run.read_json("split.json").get("class_names")
    if before is not None and before != list(class_names):
        pairs = zip(before, class_names, strict=False)
        other = next((n for n, (then, now) in enumerate(pairs) if then != now), None)
        difference = f"{len(before)} then, {len(class_names)} now"
        if other is not None:
            difference = (
                f"class {other} was {shown(before[other])} and is {shown(class_names[other])}"
            )
        raise ConfigError(
            f"the classes are not those of {run.folder}: {difference}. Restore the data, or start a new run in another "
            "--out."
        )


def require_elsewhere(run: Run, *places: str | None) -> None:
    """ConfigError where this folder is one of ``places``, folders of images, which must not change."""
    for place in places:
        if place is not None and os.path.realpath(user_place(place)) == os.path.realpath(
            run.folder
        ):
            raise ConfigError(
                f"{run.folder} is the folder of the images; a run needs one of its own. Choose another --out."
            )


def require_store_elsewhere(run: Run, store: str | None) -> None:
    """ConfigError where the store of decoded pixels would be in the run folder, which does not exist before it."""
    if store is None:
        return
    place, folder = os.path.realpath(user_place(store)), os.path.realpath(run.folder)
    if place == folder or place.startswith(os.path.join(folder, "")):
        raise ConfigError(
            f"data.store={shown(store)} is in the run folder {shown(run.folder)}. Give the store a folder of its "
            "own, which other runs can use, too."
        )


def _holds_something_else(folder: Path) -> bool:
    # files left by a start that was killed before config.yaml do not count
    locks = {f"{LOCK_FILE}{end}" for end in ("", ".json", ".held", ".held.json")}
    begun = locks | {
        "environment.json",
        "split.json",
        IMAGES_FILE,
        CONTENTS_FILE,
        CHOICES_FILE,
        STATUS_FILE,
        LOG_FILE,
    }
    return any(
        path.name not in begun and not path.name.endswith(".tmp") for path in folder.iterdir()
    )
