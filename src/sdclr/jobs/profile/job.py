"""JOB: a folder of sdclr mine -> a profile of the whole collection: modes, copies, junk.

N images. Reads features.npy and scores.csv, which mining has written; writes profile.json, profile.html and
questions.csv beside them. Only a person can judge whether two images are of one kind: questions.csv asks.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdclr.backbones.encoder import digest_of_file
from sdclr.data.collections.contents import read_record
from sdclr.data.decoding.decode import open_image
from sdclr.data.sources.tables import read_table
from sdclr.errors import DataError, MissingInputError, SdclrError
from sdclr.evaluation.rarity.modes import (
    MOST_MODES,
    Between,
    CollectionModes,
    Covering,
    collection_modes,
)
from sdclr.jobs.profile.questions import Questions, given_answers, own_questions
from sdclr.presentation.profile import CollectionProfile, Interval
from sdclr.presentation.profile_page import render_profile_html
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.run.files import MINED_FOLDER, PROFILE_FILE
from sdclr.safe_text import command, counted, shown, table_text
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import write_atomically
from sdclr.storage.locks import remove_leftovers, writing

QUESTIONS = 50
SHOWN = 12
"""Modes for which a typical image is named."""
FEATURES_FILE, SCORES_FILE, RECORD_FILE = "features.npy", "scores.csv", "mine.json"
QUESTIONS_FILE, PAGE_FILE = "questions.csv", "profile.html"
PICTURE_SIDE = 128
AGAIN = "Mine again with --overwrite, which keeps features and marks."
AFRESH = "Mine into another folder."
Ask = Callable[[str, str], bool | None]
"""Two names of images -> whether they are of the same kind; None: no more questions."""


def profile(
    folder: Path | str,
    *,
    answers: Path | str | None = None,
    ask: Ask | None = None,
    num_questions: int = QUESTIONS,
    progress: AnyProgress | None = None,
) -> CollectionProfile:
    """Profile the collection of ``folder``, which :func:`sdclr.mine` has written.

    Without labels the number of kinds is an interval, and usually a wide one. ``questions.csv`` in the folder contains
    ``num_questions`` pairs of images with an empty column ``same``; filling it in with yes or no narrows the interval.
    So does ``ask``, which is called with the two names of each unanswered pair; there are then ``num_questions`` such
    pairs, if there are enough images. Answers are kept when the collection changes. ``answers``: another
    file of the same form. Writes ``profile.json``. Raises MissingInputError if the folder is not one of mining, and
    DataError for answers that are neither yes nor no, or about unknown images.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> mined = sdclr.mine(run.folder, config.data, "rare", overwrite=True)
    >>> found = sdclr.profile("rare")
    >>> found.num_images, found.modes.low <= found.modes.estimate <= found.modes.high
    (1437, True)
    """
    folder = Path(folder)
    mined = _read_mined(folder)
    features = _features(folder)
    names = mined.names
    if len(features) != len(names):
        raise DataError(
            f"{folder} is inconsistent: {len(names)} images and {len(features)} rows in {FEATURES_FILE}. {AFRESH}"
        )
    covering = _covering(features, progress or NoProgress())
    path = folder / QUESTIONS_FILE
    with writing(path):
        remove_leftovers(folder, [PROFILE_FILE, PAGE_FILE])
        sheet = own_questions(path, names)
        if answers is not None:
            sheet.add(given_answers(Path(answers), names))
        _prepare_questions(sheet, covering, num_questions, are_asked=ask is not None)
        if ask is not None:
            _ask(sheet, ask, path)
        sheet.write(path)
        modes = collection_modes(covering, sheet.answers(), sheet.random_answers())
        found = _profile(mined, covering, modes, str(folder))
        pictures = _pictures(mined.root, [*found.largest, *found.rarest])
        content = {**found.to_dict(), "backbone": _backbone(folder), "pictures": pictures}
        if covering.approximation is not None:
            content["approximation"] = covering.approximation._asdict()
        write_atomically(folder / PROFILE_FILE, json.dumps(content, indent=1) + "\n")
        write_atomically(folder / PAGE_FILE, render_profile_html(found, pictures))
    return found


def _features(folder: Path) -> Tensor:
    try:
        found = np.load(folder / FEATURES_FILE)
    except (OSError, ValueError, EOFError) as error:
        path = shown(folder / FEATURES_FILE)
        raise DataError(f"{path} cannot be read: {shown(error, 300)}. {AFRESH}") from None
    return torch.from_numpy(found)


def _backbone(folder: Path) -> str | None:
    """The backbone of the run that contains ``folder``, if it gave the features; the run's page then shows the profile.

    None if that backbone cannot be read: such a run has no page, but the profile is still valid.
    """
    run = Run(folder.absolute().parent)
    if not run.exists or not run.backbone_path.is_file():
        return None
    encoder = str(read_json_file(folder / RECORD_FILE).get("encoder"))
    with contextlib.suppress(SdclrError):
        return run.backbone_identity() if digest_of_file(run.folder) == encoder else None
    return None


def _covering(features: Tensor, show: AnyProgress) -> Covering:
    total = min(MOST_MODES, len(features)) - 1
    task = show.add(f"modes of {len(features)} images", total=total, unit="modes")
    found = Covering(features, advance=lambda done: show.advance(task, done))
    show.finish(task)
    if found.approximation is not None:
        show.print(
            f"Neighbours were searched approximately: {found.approximation.in_words()}. Modes are "
            "averaged over those found."
        )
    return found


class _Mined(NamedTuple):
    """The results of mining, one row per image in the order of the features."""

    title: str
    root: str
    names: list[str]
    """[N], as scores.csv writes them."""
    is_copy: list[bool]
    junk: list[list[str]]
    """[N], kinds of suspected junk."""


def _read_mined(folder: Path) -> _Mined:
    """Read the results in the order of images.tsv.gz: a spreadsheet may have sorted or rewritten scores.csv."""
    scores, record = folder / SCORES_FILE, folder / RECORD_FILE
    if not scores.is_file() or not record.is_file():
        made = command("sdclr", "mine", "RUN", "IMAGES", "--out", "rare")
        made = f"{made}, then {command('sdclr', 'profile', 'rare')}"
        if Run(folder).exists:
            mined = folder / MINED_FOLDER
            made = f"{command('sdclr', 'mine', folder)}, then {command('sdclr', 'profile', mined)}"
        raise MissingInputError(
            f"{shown(folder)} is not a finished folder of sdclr mine. Make one: {made}."
        )
    try:
        facts = read_json_file(record)
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(record)} is damaged: {shown(error, 300)}. {AFRESH}") from None
    if not isinstance(facts, dict):
        raise DataError(f"{shown(record)} is damaged, it is not a JSON object. {AFRESH}")
    contents = (read_record(folder / "images.tsv.gz") or {}).get("images", [])
    names = [table_text(one.path) for one in contents]
    table = read_table(scores, known=("path", "score"))
    if missing := {"path", "duplicate_of", "junk"} - set(table.columns):
        raise DataError(f"{shown(scores)} has no column {min(missing)}. {AGAIN}")
    row_of = {path: row for row, path in enumerate(table.columns["path"])}
    if lost := [name for name in names if name not in row_of]:
        raise DataError(
            f"{shown(scores)} has no row for {len(lost)} images (first: {shown(lost[0])}). {AGAIN}"
        )
    rows = [row_of[name] for name in names]
    copies, junk = table.columns["duplicate_of"], table.columns["junk"]
    return _Mined(
        str(facts.get("title", "")),
        str(facts.get("root", "")),
        names,
        [bool(copies[row]) for row in rows],
        [[kind for kind in junk[row].split(";") if kind] for row in rows],
    )


def _ask(sheet: Questions, ask: Ask, path: Path) -> None:
    """Ask the open questions; every answer is saved at once, so that none is asked twice."""
    for number, question in enumerate(sheet.items):
        if question.same is not None:
            continue
        answer = ask(sheet.names[question.a], sheet.names[question.b])
        if answer is None:
            break
        sheet.items[number] = question._replace(same=answer)
        sheet.write(path)


def _prepare_questions(
    sheet: Questions, covering: Covering, num_questions: int, *, are_asked: bool
) -> None:
    """Draw the missing pairs, counting all and, if they ``are_asked`` now, open ones. Warns if there are too few."""
    lacking = num_questions - len(sheet.items)
    if are_asked:
        lacking = max(QUESTIONS - len(sheet.items), num_questions - sheet.num_open)
    sheet.draw(covering, max(0, lacking))
    if are_asked and sheet.num_open < num_questions:
        warnings.warn(
            f"{counted(sheet.num_open, 'pair')} of images are left to ask about, not {num_questions}.",
            stacklevel=3,
        )


def _profile(
    mined: _Mined, covering: Covering, modes: CollectionModes, folder: str
) -> CollectionProfile:
    num_images = len(mined.names)
    kinds = sorted({kind for found in mined.junk for kind in found})
    largest, rarest = _typical(covering, modes.radius.estimate)
    return CollectionProfile(
        title=mined.title,
        num_images=num_images,
        modes=_interval(modes.number),
        rare_modes=_interval(modes.rare),
        effective_modes=None if modes.effective is None else _interval(modes.effective),
        gini=round(modes.gini, 4),
        copies=sum(mined.is_copy) / num_images,
        junk={kind: sum(kind in found for found in mined.junk) / num_images for kind in kinds},
        sizes=modes.sizes,
        largest=[mined.names[row] for row in largest],
        rarest=[mined.names[row] for row in rarest],
        num_answers=modes.num_answers,
        radius_by=modes.radius_by,
        folder=folder,
    )


def _typical(covering: Covering, radius: float) -> tuple[list[int], list[int]]:
    """The centres of the largest and of the smallest modes."""
    sizes = torch.bincount(covering.modes(radius))
    order = sizes.argsort(descending=True, stable=True)
    centres = covering.centres[order].tolist()
    return centres[:SHOWN], centres[SHOWN:][::-1][:SHOWN]


def _pictures(root: str, names: list[str]) -> dict[str, str]:
    """Small JPEGs in base64 of the names that are image files; there are none for members of archives and boxes."""
    found: dict[str, str] = {}
    for name in names:
        path = Path(root) / name
        if not root or not path.is_file():
            continue
        with contextlib.suppress(SdclrError):  # its name is shown in any case
            picture = open_image(path)
            picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=80)
            found[name] = base64.b64encode(content.getvalue()).decode("ascii")
    return found


def _interval(value: Between) -> Interval:
    return Interval(*value, value.is_known)
