"""JOB: any images -> features -> how rare each one is; scores.csv, scores.parquet and a page in one folder.

N images, F feature dim. What was seen of the images stays in the folder, so that a killed command
goes on, and the next one looks at new images only. Trains nothing, needs no label.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdclr.compute.device import resolve_device
from sdclr.data import Data, DataConfig, Images, build_data
from sdclr.data.collections.contents import Content, digest_of, read_record
from sdclr.data.trained_images import images_of, warn_of_changes
from sdclr.data.usable import look_at as look_at_all
from sdclr.data.usable import warn_of_bad_files
from sdclr.errors import ConfigError
from sdclr.evaluation.rarity import DEFAULT, SCORES, load_score
from sdclr.jobs.mine.collection import Joined, Listed, join, keep, listed, require_same_kind
from sdclr.jobs.mine.copies import copy_chosen, require_empty
from sdclr.jobs.mine.encoder import Encoder, open_encoder
from sdclr.jobs.mine.folder import (
    PAGE,
    PARQUET,
    SCORES_FILE,
    UNFINISHED,
    MineRecord,
    Stored,
    claimed,
    read_stored,
    write_state,
)
from sdclr.jobs.mine.looking import look_at
from sdclr.jobs.mine.marks import (
    Marks,
    by_feedback,
    by_likeness,
    mark_column,
    read_marks,
    require_both_kinds,
)
from sdclr.jobs.mine.page import write_page
from sdclr.jobs.mine.ranking import Found, OtherScore, Wish, ranked, require_enough
from sdclr.jobs.mine.tables import WANTED, write_csv, write_parquet
from sdclr.outside import is_outside
from sdclr.presentation.mined import MinedImages
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import CONTENTS_FILE, Run, environment
from sdclr.safe_text import counted, shown
from sdclr.storage.row_parts import RowParts


@dataclass(frozen=True)
class Asked:
    """What the ranking is asked for."""

    score: str
    scores: Sequence[str]
    like: Sequence[str]
    feedback: Path | None
    against: Path | None
    top: int

    def as_facts(self) -> dict[str, Any]:
        """For mine.json."""
        facts = {"score": self.score, "scores": list(self.scores), "like": list(self.like)}
        paths = {"feedback": self.feedback, "against": self.against}
        said = {name: None if path is None else str(path) for name, path in paths.items()}
        return {**facts, **said, "top": self.top}


def mine(
    source: Path | str,
    data: DataConfig,
    out: Path | str,
    *,
    top: int = 200,
    score: str = DEFAULT,
    scores: Sequence[str] = (),
    like: Sequence[str] = (),
    feedback: Path | str | None = None,
    against: Path | str | None = None,
    copy_to: Path | str | None = None,
    weights: Path | str | None = None,
    image_size: int | None = None,
    groups: Tensor | None = None,
    device: str = "auto",
    progress: AnyProgress | None = None,
    overwrite: bool = False,
    as_trained: bool = False,
) -> MinedImages:
    """Rank the images of ``data`` (its training part) by how rare they are; writes the folder ``out``.

    The folder holds ``scores.csv`` (and ``scores.parquet`` where pyarrow is installed), a row an
    image; ``index.html``, a page to look at; ``mine.json``, what was done; and ``features.npy``
    float32 [N, F] with what else was seen, so that the next call looks at new images only.
    docs/mining.md says what the columns mean. Returns the same as arrays [N].

    ``source``: a run folder, a backbone.safetensors, a checkpoint of the method's authors, or
    timm:NAME or torchvision:NAME (with ``weights``, a file, or else ImageNet's, which are
    downloaded). ``image_size``: which images the network sees, where not those it was trained on.
    ``top``: how many images of the sheet the page shows as pictures, and ``copy_to`` copies.
    ``score``, ``scores``: rows of rarity's SCORES (or module:Name), the one that ranks and further
    columns. ``like``: images, by name or path, to rank by likeness to instead. ``feedback``: a
    table with columns path and wanted, to rank by what was marked. ``against``: a folder of an
    earlier call: its images are what is compared with, those of ``data`` are shown. ``groups``
    int64 [N]: images of one group (a burst, a tile) are no neighbours of each other.
    ``as_trained``: ``data`` are to be those that the run ``source`` was trained on.

    An interrupted call goes on where it stopped. Raises ConfigError for settings that do not fit
    and for a finished folder unless ``overwrite`` (marks in its scores.csv are kept); DataError for
    fewer than 32 images, equal features or junk alone; NonFiniteError for features that are not
    finite; RunFolderError for a folder with other files.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> mined = sdclr.mine(run.folder, config.data, "rare", overwrite=True)
    >>> len(mined), mined.score_name, int(mined.rank.min()), len(mined.sheet) <= len(mined)
    (1437, 'density', 1, True)
    """
    out, show = Path(out), progress or NoProgress()
    asked = Asked(
        score=_known_score(score),
        scores=[_known_score(name) for name in scores],
        like=list(like),
        feedback=_path(feedback),
        against=_path(against),
        top=top,
    )
    _check(data, asked)
    if copy_to is not None:
        require_empty(Path(copy_to))
    with claimed(out, overwrite=overwrite):
        RowParts.require_ours(out / UNFINISHED, "mine")
        found = _images(source, data, out, as_trained=as_trained)
        encoder = open_encoder(source, weights=_path(weights), image_size=image_size)
        images, remarks = _usable(found, data, show)
        if asked.against is None:
            require_enough(len(images))
        now = listed(images, data)
        if not as_trained:
            remarks += _of_other_data(source, now)
        where = resolve_device(device)
        seen, joined = _seen(now, encoder, out, asked.against, where, show)
        ranking = _ranking(
            asked, seen, joined, found, images, data, encoder, out, groups, remarks, show
        )
        mined = ranking.mined
        write_csv(mined, out / SCORES_FILE)
        if not write_parquet(mined, out / PARQUET):
            show.print("scores.parquet needs pyarrow and is left out; scores.csv has the same.")
        if not write_page(mined, images, joined.listed_row, out / PAGE, show, top=top):
            show.print("this version writes no page; scores.csv has all that was found.")
        if copy_to is not None:
            copy_chosen(mined, images, joined.listed_row, Path(copy_to), top, show)
        write_state(out, _record(seen.record, ranking, asked, str(where)))
    return mined


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _known_score(name: str) -> str:
    """A row of SCORES; what is named as module:Name is imported. ConfigError for an unknown one."""
    return load_score(name).name if is_outside(name) else SCORES.require(name).name


def _check(data: DataConfig, asked: Asked) -> None:
    """Before any work."""
    if data.store is not None:
        raise ConfigError(
            "data.store saves decoding when images are seen again; mine sees each once. Leave it out."
        )
    if asked.like and asked.feedback is not None:
        raise ConfigError("--like and --feedback are two rankings; give one of them.")
    if asked.top < 1:
        raise ConfigError(f"--top must be 1 or more, got {asked.top}.")


def _images(source: Path | str, data: DataConfig, out: Path, *, as_trained: bool) -> Data:
    if not as_trained:
        return build_data(data, exclude=[out])
    run = Run(source)
    found = images_of(run, data, "data.path=")
    warn_of_changes(run, found)
    return found


def _usable(found: Data, data: DataConfig, show: AnyProgress) -> tuple[Images, list[str]]:
    """The images, looked for by their headers; with data.on_error=skip decoded once, and the bad ones left out."""
    if data.on_error == "raise":
        return found.train.to(torch.device("cpu")), list(found.remarks)
    images, bad = look_at_all(found.train, data.on_error, show, max_skipped=data.max_skipped)
    warn_of_bad_files(bad, len(found.train))
    left = [f"{counted(len(bad), 'image')} cannot be decoded and are left out."] if bad else []
    return images, [*found.remarks, *left]


def _of_other_data(source: Path | str, now: Listed) -> list[str]:
    """A remark where a run has not seen all of these images; a warning where it has seen none."""
    record = Path(source) / CONTENTS_FILE
    trained_on = (read_record(record) or {}).get("train", []) if record.is_file() else []
    if not trained_on or now.images.files is None:
        return []
    seen = {one.digest for one in trained_on}
    num_other = sum(one.digest not in seen for one in now.contents)
    if num_other == len(now.contents):
        warnings.warn(
            f"{shown(source)} was trained on none of these images. Its features may not tell their "
            "kinds apart; a run on these images, or timm:NAME, may be better.",
            stacklevel=4,
        )
    if not num_other:
        return []
    return [f"The backbone was not trained on {num_other:,} of {len(now.contents):,} images."]


def _seen(
    now: Listed,
    encoder: Encoder,
    out: Path,
    against: Path | None,
    device: torch.device,
    show: AnyProgress,
) -> tuple[Stored, Joined]:
    """What is seen of all images: that of earlier calls, and of new ones, which are looked at here."""
    own = read_stored(out)
    if own is not None and (own.record.encoder, own.record.reading) != (
        encoder.digest,
        now.reading,
    ):
        own = None
    earlier = own
    if against is not None:
        earlier = read_stored(against)
        if earlier is None:
            raise ConfigError(f"--against {shown(against)}: that call has not come to its end.")
        require_same_kind(earlier, encoder.digest, encoder.name, now.reading)
    joined = join(now, earlier, keep_others=against is not None)
    require_enough(len(joined.contents))
    if own is not None and _holds(own, joined):
        return own, joined
    unseen = now.images.at(joined.unseen)
    contents = [now.contents[row] for row in joined.unseen.tolist()]
    identity = f"{encoder.digest} {now.reading} {now.root} {digest_of(contents)}"
    parts = RowParts(out / UNFINISHED, identity)
    parts.open(len(unseen))
    if len(unseen):
        encoder.backbone.to(device).to(memory_format=torch.channels_last)
        look_at(unseen, encoder, parts, show)
    record = MineRecord(
        state="features",
        encoder=encoder.digest,
        encoder_name=encoder.name,
        reading=now.reading,
    )
    kept = keep(out, record, joined, earlier, parts)
    parts.remove()
    return kept, joined


def _holds(own: Stored, joined: Joined) -> bool:
    """Whether an earlier call with this folder has seen these very images."""
    return own.record.root == joined.root and _contents(own.contents) == _contents(joined.contents)


def _contents(images: Sequence[Content]) -> list[tuple[str, str]]:
    return [(one.path, one.digest) for one in images]


def _ranking(
    asked: Asked,
    seen: Stored,
    joined: Joined,
    found: Data,
    images: Images,
    data: DataConfig,
    encoder: Encoder,
    out: Path,
    groups: Tensor | None,
    remarks: Sequence[str],
    show: AnyProgress,
) -> Found:
    names = [one.path for one in joined.contents]
    marks = _marks(asked, out, names)
    columns = _columns(images, found.class_names, joined)
    is_new = joined.is_listed & (joined.stored_row < 0)
    remarks = [*remarks, *joined.remarks]
    listable = None
    if asked.against is not None:
        columns["new"] = ["yes" if new else "" for new in is_new.tolist()]
        listable = is_new if is_new.any() else joined.is_listed
        what = (
            "shown are these" if is_new.any() else "no image is new; shown are all that are listed"
        )
        remarks.append(f"{int(is_new.sum()):,} images are new, of {len(names):,}; {what}.")
    if marks:
        columns[WANTED] = mark_column(len(names), marks)
    return ranked(
        torch.from_numpy(seen.features),
        seen.looks,
        names,
        Wish(
            asked.score, asked.scores, *_other_ranking(asked, marks, names, joined, encoder, data)
        ),
        show,
        title=f"{len(names):,} images by {encoder.name}",
        root=joined.root,
        groups=groups,
        columns=columns,
        shown=listable,
        remarks=remarks,
    )


def _marks(asked: Asked, out: Path, names: Sequence[str]) -> Marks:
    """The user's marks: those in an earlier scores.csv, which are never lost, and those of the feedback."""
    earlier = out / SCORES_FILE
    marks = read_marks(earlier, names, strict=False) if earlier.is_file() else {}
    if asked.feedback is not None:
        given = read_marks(asked.feedback, names)
        require_both_kinds(given, asked.feedback)
        marks |= given
    return marks


def _other_ranking(
    asked: Asked,
    marks: Marks,
    names: Sequence[str],
    joined: Joined,
    encoder: Encoder,
    data: DataConfig,
) -> tuple[OtherScore | None, str]:
    if asked.feedback is not None:
        return by_feedback(marks), "feedback"
    if asked.like:
        return by_likeness(asked.like, names, joined.root, encoder, data), "likeness"
    return None, ""


def _columns(
    images: Images, class_names: Sequence[str], joined: Joined
) -> dict[str, Sequence[str]]:
    """What else is known of each image, text [N]; nothing of those that only an earlier call had."""
    known: dict[str, Sequence[str]] = {}
    if images.labels is not None:
        known["class"] = [class_names[label] for label in images.labels.tolist()]
    if images.files is not None:
        for name, cells in images.files.columns.items():
            known[name] = [str(cell) for cell in cells.tolist()]
    rows = joined.listed_row.tolist()
    return {name: [cells[row] if row >= 0 else "" for row in rows] for name, cells in known.items()}


def _record(seen: MineRecord, ranking: Found, asked: Asked, device: str) -> MineRecord:
    mined = ranking.mined
    return seen.model_copy(
        update={
            "state": "finished",
            "title": mined.title,
            "settings": asked.as_facts(),
            "copy_rules": ranking.copy_rules,
            "quality": {**ranking.measures, "sentence": mined.quality.sentence},
            "remarks": list(mined.remarks),
            "environment": environment(device),
        }
    )
