"""JOB run folders without an evaluation -> a report of what can be said without labels.

Reads config.yaml, choices.json, images.json, environment.json, metrics.jsonl and, where it is there, examination/.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdclr.checkpoint import files
from sdclr.errors import DataError, MissingInputError
from sdclr.jobs.report.arms import curve_points, flatten, setting_text
from sdclr.methods.table import display_name
from sdclr.presentation.report import CURVES, ArmCurves, Curves, RunRecord
from sdclr.presentation.unlabelled import (
    ImageList,
    Measure,
    Picture,
    PictureRow,
    Reason,
    UnlabelledReport,
    UnlabelledRun,
)
from sdclr.run import CHOICES_FILE, EXAMINATION_FOLDER, IMAGES_FILE, Run
from sdclr.run_consistency import require_own_backbone
from sdclr.safe_text import command, visible

EXAMINATION = f"{EXAMINATION_FOLDER}/numbers.json"
LONGEST_LIST = 20
LARGEST_PICTURE = 200_000
"""Bytes of one small JPEG, a hundredth of which is usual."""
MEANINGS = {
    "found": ("views that find each other", "of all second views, that of the same image is the nearest"),
    "view_distance": ("distance of two views", "mean squared distance of normalised features: lower is more alike"),
    "effective_rank": ("effective rank", "directions that the features use (RankMe); 1 is a collapse"),
}


def build_unlabelled_report(runs: Sequence[Path | str]) -> UnlabelledReport:
    """Gather finished runs that nothing was evaluated of. Raises MissingInputError for one that is not finished."""
    return UnlabelledReport([_read(Run(run)) for run in runs])


def _read(run: Run) -> UnlabelledRun:
    run.require()
    if not run.backbone_path.is_file():
        raise MissingInputError(f"{run.folder} is not finished. Go on with: {run.next_command('interrupted')}")
    require_own_backbone(run)
    settings = flatten(run.settings())
    environment, split = run.read_json("environment.json"), run.read_json("split.json")
    images = run.read_json(IMAGES_FILE) if (run.folder / IMAGES_FILE).is_file() else {}
    examination = _examination(run)
    method = display_name(str(settings.get("method.name")), environment.get("method"))
    measures = _measures(examination)
    place = settings.get("data.path")
    source = str(split.get("dataset")) if place is None else Path(str(place)).name
    return UnlabelledRun(
        title=f"{method} on {source}",
        description=_description(run, method, settings, source),
        verdict=_verdict(examination),
        measures=measures,
        why_not_examined="" if measures else _why_not_examined(run),
        why_no_comparison=str(examination.get("why_no_comparison") or ""),
        num_images=_num_images(run, images, examination),
        num_sampled=int(examination.get("num_images", 0)),
        curves=_curves(run, method),
        gallery=[_neighbours(run, row) for row in examination.get("gallery", [])],
        views=[_pair(run, row) for row in examination.get("views", [])],
        lists=_lists(images),
        choices=_choices(run),
        settings=[(name, setting_text(value)) for name, value in settings.items()],
        record=RunRecord(
            str(run.folder),
            method,
            int(settings.get("data.split") or 1),
            int(settings.get("seed") or 0),
            **{key: str(environment.get(key) or "") for key in ("command", "commit", "created")},
        ),
        hardware=str(environment.get("device")),
        versions={key: str(environment.get(key)) for key in ("sdclr", "torch", "torchvision", "numpy", "python")},
    )


def _examination(run: Run) -> Mapping[str, Any]:
    """numbers.json of the run's own backbone; empty where there is none."""
    if not (run.folder / EXAMINATION).is_file():
        return {}
    content = run.read_json(EXAMINATION)
    return content if content["backbone"] == run.backbone_identity() else {}


def is_examined(run: Run) -> bool:
    """Whether RUN/examination/ belongs to the backbone that lies there now; a damaged one does not."""
    try:
        return bool(_examination(run))
    except DataError:
        return False


def _why_not_examined(run: Run) -> str:
    return (
        f"{run.folder} was not examined: the images it was trained on were not at hand. Where they are: "
        f"{command('sdclr', 'report', run.folder, '--data')} PATH"
    )


def _num_images(run: Run, images: Mapping[str, Any], examination: Mapping[str, Any]) -> int:
    if isinstance(found := images.get("found"), int):
        return found - len(images.get("skipped", []))
    counts = run.read_json("split.json").get("counts") or {}
    return sum(counts.get("long_tail", [])) or int(examination.get("num_images", 0))


def _description(run: Run, method: str, settings: Mapping[str, Any], source: str) -> str:
    entries = run.metrics()
    loss = f"; the loss ended at {entries[-1]['loss']:.3f}" if entries and entries[-1].get("loss") is not None else ""
    seconds = sum(entry.get("seconds") or 0.0 for entry in entries)
    time = f" in {_duration(seconds)}" if seconds else ""
    later = command("sdclr", "evaluate", run.folder, "--labels")
    return (
        f"{settings.get('backbone.name')} pre-trained by {method} on {source} for {settings.get('epochs')} epochs{time}"
        f"{loss}. Nothing was evaluated. With labels for some of the images: {later} FILE"
    )


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _measures(examination: Mapping[str, Any]) -> list[Measure]:
    if not examination:
        return []
    before, after = examination.get("before") or {}, examination["trained"]
    rows = []
    for key, (name, meaning) in MEANINGS.items():
        widths = [part.get(f"{key}_half_width", math.nan) for part in (before, after)]
        if key == "found":
            meaning += f"; by chance {100 * examination['chance_to_find']:.1f} %"
        elif key == "effective_rank":
            meaning += f"; at most {min(examination['num_images'] - 1, examination['feature_dim'])} here"
        rows.append(
            Measure(key, name, meaning, before.get(key, math.nan), widths[0], after[key], widths[1], key == "found")
        )
    return rows


def _verdict(examination: Mapping[str, Any]) -> str:
    """What the views say; a direction is named only where the 95 % interval of the difference excludes zero.

    The two shares are taken for independent; they are of the same images, so that the true interval is narrower.
    """
    if not examination:
        return ""
    after, before = examination["trained"], examination.get("before")
    chance = 100 * examination["chance_to_find"]
    now = f"The two views of an image find each other for {100 * after['found']:.1f} % of the images"
    if before is None:
        return f"{now} (by chance {chance:.1f} %)."
    gap = after["found"] - before["found"]
    width = math.hypot(after["found_half_width"], before["found_half_width"])
    word = "no clear change" if abs(gap) <= width else ("a gain" if gap > 0 else "a loss")
    return f"{now}, before training for {100 * before['found']:.1f} % ({word}; by chance {chance:.1f} %)."


def _curves(run: Run, label: str) -> list[Curves]:
    metrics = run.metrics()
    logged = {key: curve_points(metrics, key) for key in CURVES}
    return [Curves(CURVES[key], [ArmCurves(label, [points])]) for key, points in logged.items() if points]


def _choices(run: Run) -> list[Reason]:
    if not (run.folder / CHOICES_FILE).is_file():
        return []
    rows = run.read_json(CHOICES_FILE)["choices"]
    return [Reason(row["setting"], _value_text(row["value"]), row["reason"]) for row in rows]


def _value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lists(images: Mapping[str, Any]) -> list[ImageList]:
    """Files that were left out, copies among the training images, and copies in the test set."""
    if not images:
        return []
    skipped, groups = images.get("skipped", []), images.get("duplicates", [])
    copies = sum(map(len, groups)) - len(groups)
    lists = [
        _list(f"{len(skipped)} files left out, which cannot be decoded", [visible(cause) for _, cause in skipped]),
        _list(
            f"{copies} copies of other images, byte for byte; they are trained on all the same",
            [" = ".join(map(visible, group)) for group in groups],
        ),
    ]
    if tests := images.get("test_copies"):
        lines = [f"{visible(copy)} = {visible(original)}" for copy, original in tests]
        lists.append(_list(f"{len(tests)} test images are copies of training images", lines))
    return lists


def _list(title: str, lines: Sequence[str]) -> ImageList:
    return ImageList(title, lines[:LONGEST_LIST], max(len(lines) - LONGEST_LIST, 0))


def _neighbours(run: Run, row: Mapping[str, Any]) -> PictureRow:
    pictures = [_picture(run, row["image"]["file"], row["image"]["path"])]
    for one in row["neighbours"]:
        note = f"{one['similarity']:.2f}"
        pictures.append(_picture(run, one["file"], one["path"], note))
    return PictureRow(pictures)


def _pair(run: Run, row: Mapping[str, Any]) -> PictureRow:
    path = row["image"]["path"]
    parts = ((row["image"]["file"], "image"), (row["a"], "view a"), (row["b"], "view b"))
    return PictureRow([_picture(run, file, path, note) for file, note in parts])


def _picture(run: Run, name: str, path: str, note: str = "") -> Picture:
    """A JPEG of examination/ as a data: address; DataError for anything else under that name."""
    file = run.folder / EXAMINATION_FOLDER / name
    try:
        content = files.read(file) if file.stat().st_size <= LARGEST_PICTURE else b""
    except OSError:
        content = b""
    if not content.startswith(b"\xff\xd8\xff"):
        raise DataError(f"{file} is damaged: it is no small JPEG. Remove {file.parent}, and report again.")
    return Picture(path, f"data:image/jpeg;base64,{base64.b64encode(content).decode()}", note)
