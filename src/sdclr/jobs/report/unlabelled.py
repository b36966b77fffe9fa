"""JOB run folders without an evaluation -> a report of what is known without labels.

Reads config.yaml, choices.json, images.json, environment.json, metrics.jsonl and, if it exists, examination/.
"""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdclr.backbones.config import settings_without_effect
from sdclr.backbones.table import row_of
from sdclr.data.own_views import OWN_VIEWS
from sdclr.data.table import SOURCES
from sdclr.errors import DataError, MissingInputError
from sdclr.jobs.report.arms import flatten, setting_text, source_name
from sdclr.jobs.report.curves import gathered, measured_by_epoch, share_of_few
from sdclr.jobs.report.details import counts_trained_on, duration, read_details
from sdclr.methods.table import method_title
from sdclr.presentation.report import CURVES, Curves, RunRecord
from sdclr.presentation.unlabelled import (
    ImageList,
    Measure,
    Picture,
    PictureRow,
    Reason,
    UnlabelledReport,
    UnlabelledRun,
)
from sdclr.run import Run
from sdclr.run.consistency import require_own_backbone
from sdclr.run.files import CHOICES_FILE, EXAMINATION_FOLDER, IMAGES_FILE, MAP_FILE
from sdclr.run.next_step import evaluate_command, next_command, report_command
from sdclr.safe_text import counted, visible
from sdclr.storage import durable_files

EXAMINATION = f"{EXAMINATION_FOLDER}/numbers.json"
LONGEST_LIST = 20
LARGEST_PICTURE = 200_000
"""Largest size of one small JPEG in bytes; a hundredth of it is usual."""
MEANINGS = {
    "found": (
        "views that find their partner",
        "of all second views, that of the same image is the nearest",
    ),
    "view_distance": (
        "distance of two views",
        "mean squared distance of normalised features: lower is more alike",
    ),
    "effective_rank": (
        "effective rank",
        "directions that the features use (RankMe); 1 is a collapse",
    ),
}


def build_unlabelled_report(
    runs: Sequence[Path | str], why_missing: Mapping[str, Mapping[str, str]] | None = None
) -> UnlabelledReport:
    """Gather finished runs without an evaluation. Raises MissingInputError for one that is not finished.

    Damaged or missing side files (choices, pictures, the examination, versions) are left out with a warning.
    ``why_missing``: run folder -> section of the page -> why it is missing.
    """
    why = why_missing or {}
    return UnlabelledReport(
        [read_without_labels(Run(run), why_missing=why.get(str(run))) for run in runs]
    )


def read_without_labels(
    run: Run,
    *,
    protocol: str | None = None,
    why_missing: Mapping[str, str] | None = None,
    label: str | None = None,
) -> UnlabelledRun:
    """What is known of a finished run without labels; ``protocol``: that of the evaluation shown beside it.

    ``why_missing``: section of the page -> why it is missing. ``label``: the arm's label, if it is not the method.
    """
    run.require()
    if not run.backbone_path.is_file():
        raise MissingInputError(
            f"{run.folder} is not finished. Continue with: {next_command(run, 'interrupted')}"
        )
    require_own_backbone(run)
    settings = flatten(run.settings())
    environment, split = run.read_side_file("environment.json"), run.read_side_file("split.json")
    images = run.read_side_file(IMAGES_FILE, optional=True)
    examination = _examination(run)
    method = method_title(settings, environment.get("method"))
    measures = _measures(examination)
    source = source_name(settings, str(split.get("dataset") or settings.get("data.name")))
    pictures = _Pictures(run)
    gallery = [_neighbours(pictures, row) for row in examination.get("gallery", [])]
    views = [_pair(pictures, row) for row in examination.get("views", [])]
    pictures.warn_of_damage()
    return UnlabelledRun(
        title=f"{method} on {source}",
        description=_description(run, method, settings, source, is_evaluated=protocol is not None),
        verdict=_verdict(examination),
        measures=measures,
        why_not_examined="" if measures else _why_not_examined(run, settings, why_missing or {}),
        why_no_comparison=str(examination.get("why_no_comparison") or ""),
        num_images=_num_images(split, settings, images, examination),
        num_sampled=int(examination.get("num_images", 0)),
        curves=_curves(run, method),
        gallery=[row for row in gallery if row is not None],
        views=[row for row in views if row is not None],
        lists=_lists(images),
        choices=_choices(run),
        settings=_with_effect(settings),
        record=_record(run, label or method, settings, environment),
        hardware=str(environment.get("device") or "unknown hardware"),
        versions={
            key: str(environment.get(key) or "unknown")
            for key in ("sdclr", "torch", "torchvision", "numpy", "python")
        },
        details=read_details(run, source, _verdict(examination), why_missing, protocol),
    )


def _with_effect(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, without the settings that do not affect the run's backbone."""
    unused = settings_without_effect(str(settings.get("backbone.name")))
    hidden = {f"backbone.{name}" for name in unused}
    return [(name, setting_text(value)) for name, value in settings.items() if name not in hidden]


def _record(
    run: Run, label: str, settings: Mapping[str, Any], environment: Mapping[str, Any]
) -> RunRecord:
    """The run's row in the table of runs."""
    split, seed = int(settings.get("data.split") or 1), int(settings.get("seed") or 0)
    origin = {key: str(environment.get(key) or "") for key in ("command", "commit", "created")}
    return RunRecord(str(run.folder), label, split, seed, **origin)


def _examination(run: Run) -> Mapping[str, Any]:
    """numbers.json for the run's own backbone; empty if there is none, with a warning if it is damaged."""
    content = run.read_side_file(EXAMINATION, optional=True)
    return content if content and content["backbone"] == run.backbone_identity() else {}


def is_analysed(run: Run, name: str) -> bool:
    """Whether a file of RUN/examination/ is sound and describes the current backbone."""
    try:
        content = run.read_json(name)
    except (DataError, MissingInputError):
        return False
    return content.get("backbone") in (None, run.backbone_identity())


def is_examined(run: Run) -> bool:
    """Whether RUN/examination/ is complete and describes the current backbone."""
    try:
        content = run.read_json(EXAMINATION)
        run.read_json(MAP_FILE)  # an earlier version did not write it
    except (DataError, MissingInputError):
        return False
    names = [row["image"]["file"] for row in (*content["gallery"], *content["views"])]
    for row in content["gallery"]:
        names += [one["file"] for one in row["neighbours"]]
    for row in content["views"]:
        names += [row["a"], row["b"]]
    whole = all(_jpeg_of(run, name) is not None for name in set(names))
    return whole and bool(content["backbone"] == run.backbone_identity())


def has_own_images(run: Run) -> bool:
    """Whether a run was trained on the user's own images, for which a report shows more than numbers."""
    try:
        return flatten(run.settings()).get("data.name") in ("images", "arrays")
    except DataError:  # reported where the settings are read
        return False


def _why_not_examined(run: Run, settings: Mapping[str, Any], why_missing: Mapping[str, str]) -> str:
    """Why the run was not examined, and the command that does so, which depends on what is missing."""
    reason = why_missing.get("neighbours")  # a section that an examination creates
    if reason is None:
        return f"{run.folder} was not examined yet: {report_command(run)}"
    sentence = f"{run.folder} was not examined: {' '.join(reason.split())}"
    if settings.get("backbone.name") == "custom":
        return f"{sentence} From Python: sdclr.examine({str(run.folder)!a}, network=...)"
    if _lacks_code(settings):
        return f"{sentence} Here: {report_command(run)}"
    return f"{sentence} Where its images are: {report_command(run, more=['--data'])} PATH"


def _lacks_code(settings: Mapping[str, Any]) -> bool:
    """Whether the views, the backbone or the data set are from outside the package and not named here."""
    views = {settings.get("views.own"), settings.get("views.own_batch")} - {None}
    is_known = row_of(str(settings.get("backbone.name"))) is not None
    return not (views <= OWN_VIEWS.keys() and is_known and settings.get("data.name") in SOURCES)


def _num_images(
    split: Mapping[str, Any],
    settings: Mapping[str, Any],
    images: Mapping[str, Any],
    examination: Mapping[str, Any],
) -> int:
    if isinstance(found := images.get("found"), int):
        return found - len(images.get("skipped", []))
    return sum(counts_trained_on(split, settings)) or int(examination.get("num_images", 0))


def _description(
    run: Run, method: str, settings: Mapping[str, Any], source: str, *, is_evaluated: bool
) -> str:
    entries = run.metrics()
    loss = (
        f"; the loss ended at {entries[-1]['loss']:.3f}"
        if entries and entries[-1].get("loss") is not None
        else ""
    )
    seconds = sum(entry.get("seconds") or 0.0 for entry in entries)
    time = f" in {duration(seconds)}" if seconds else ""
    trained = (
        f"{settings.get('backbone.name')} pre-trained by {method} on {source} for "
        f"{counted(settings.get('epochs'), 'epoch')}{time}{loss}."
    )
    if is_evaluated:
        return trained
    if run.read_side_file("split.json", optional=True).get("source") != "unlabelled":
        return f"{trained} Nothing was evaluated."
    later = evaluate_command(run, labels=True)
    return f"{trained} Nothing was evaluated. With labels for some of the images: {later}"


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
            meaning += (
                f"; at most {min(examination['num_images'] - 1, examination['feature_dim'])} here"
            )
        rows.append(
            Measure(
                key,
                name,
                meaning,
                before.get(key, math.nan),
                widths[0],
                after[key],
                widths[1],
                key == "found",
            )
        )
    return rows


def _verdict(examination: Mapping[str, Any]) -> str:
    """What the views show; a direction is named only if the 95 % interval of the difference excludes zero.

    The two shares are treated as independent; they are of the same images, so the true interval is narrower.
    """
    if not examination:
        return ""
    after, before = examination["trained"], examination.get("before")
    chance = 100 * examination["chance_to_find"]
    now = f"The first view of an image finds its second one for {100 * after['found']:.1f} % of the images"
    if before is None:
        return f"{now} (by chance {chance:.1f} %)."
    gap = after["found"] - before["found"]
    width = math.hypot(after["found_half_width"], before["found_half_width"])
    word = "no clear change" if abs(gap) <= width else ("a gain" if gap > 0 else "a loss")
    return f"{now}, before training for {100 * before['found']:.1f} % ({word}; by chance {chance:.1f} %)."


def _curves(run: Run, label: str) -> list[Curves]:
    logged = {label: [measured_by_epoch(run)]}
    return gathered(CURVES.values(), logged, share_of_few(run), with_marks=True)


def _choices(run: Run) -> list[Reason]:
    rows = run.read_side_file(CHOICES_FILE, optional=True).get("choices", [])
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
        _list(
            f"{len(skipped)} files left out, which cannot be decoded",
            [visible(cause) for _, cause in skipped],
        ),
        _list(
            f"{copies} copies of other images, byte for byte; they are still trained on",
            [" = ".join(map(visible, group)) for group in groups],
        ),
    ]
    if tests := images.get("test_copies"):
        lines = [f"{visible(copy)} = {visible(original)}" for copy, original in tests]
        lists.append(_list(f"{len(tests)} test images are copies of training images", lines))
    return lists


def _list(title: str, lines: Sequence[str]) -> ImageList:
    return ImageList(title, lines[:LONGEST_LIST], max(len(lines) - LONGEST_LIST, 0))


class _Pictures:
    """The small pictures of RUN/examination/; missing or damaged ones are counted."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.damaged: dict[str, None] = {}

    def read(self, name: str, path: str, note: str = "") -> Picture | None:
        """The picture as a data: URL; None if it is missing or is not a small JPEG."""
        content = _jpeg_of(self.run, name)
        if content is None:
            self.damaged[name] = None
            return None
        return Picture(path, f"data:image/jpeg;base64,{base64.b64encode(content).decode()}", note)

    def warn_of_damage(self) -> None:
        if self.damaged:
            folder = self.run.folder / EXAMINATION_FOLDER
            warnings.warn(
                f"{len(self.damaged)} pictures in {folder} are lost or damaged (first: {next(iter(self.damaged))}) and "
                f"are left out. {_remade(self.run)}",
                stacklevel=4,
            )


def _remade(run: Run) -> str:
    """How to restore an examination."""
    return f"Where the images are available they are made again: {report_command(run, more=['--data'])} PATH"


def _jpeg_of(run: Run, name: str) -> bytes | None:
    """A JPEG of examination/; None for anything else under that name."""
    file = run.folder / EXAMINATION_FOLDER / name
    try:
        content = durable_files.files.read(file) if file.stat().st_size <= LARGEST_PICTURE else b""
    except OSError:
        return None
    return content if content.startswith(b"\xff\xd8\xff") else None


def _neighbours(pictures: _Pictures, row: Mapping[str, Any]) -> PictureRow | None:
    """An image and its neighbours, without those whose pictures are missing; None if its own is."""
    image = pictures.read(row["image"]["file"], row["image"]["path"])
    found = [
        pictures.read(one["file"], one["path"], f"{one['similarity']:.2f}")
        for one in row["neighbours"]
    ]
    others = [picture for picture in found if picture is not None]
    return None if image is None else PictureRow([image, *others])


def _pair(pictures: _Pictures, row: Mapping[str, Any]) -> PictureRow | None:
    """An image and its two views; None if one of the three pictures is missing."""
    path = row["image"]["path"]
    parts = ((row["image"]["file"], "image"), (row["a"], "view a"), (row["b"], "view b"))
    found = [pictures.read(file, path, note) for file, note in parts]
    sound = [picture for picture in found if picture is not None]
    return PictureRow(sound) if len(sound) == len(parts) else None
