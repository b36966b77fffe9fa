"""JOB: any images -> features -> how rare each one is; scores.csv, scores.parquet and a page in one folder.

N images, F feature dim. What was seen of the images stays in the folder, so that a killed command
goes on, and the next one looks at new images only. Trains nothing, needs no label.

Several processes (torchrun) look at the images together; the first one alone ranks and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdclr.backbones.encoder import Encoder, open_encoder
from sdclr.compute.device import placed_on, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.data import Data, DataConfig, Images
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity import DEFAULT, SCORES, load_score
from sdclr.evaluation.rarity.evidence import EXACT_UP_TO
from sdclr.image_records import read_records
from sdclr.jobs.mine.collection import Joined, listed
from sdclr.jobs.mine.copies import copy_chosen, require_empty
from sdclr.jobs.mine.folder import (
    PAGE,
    PARQUET,
    SCORES_FILE,
    UNFINISHED,
    MineRecord,
    claimed,
    write_state,
)
from sdclr.jobs.mine.grouped import groups_of
from sdclr.jobs.mine.handed_over import hand_over, handed_over
from sdclr.jobs.mine.marks import (
    Marks,
    by_feedback,
    by_likeness,
    mark_column,
    read_marks,
    require_both_kinds,
)
from sdclr.jobs.mine.page import write_page
from sdclr.jobs.mine.ranking import (
    Found,
    Order,
    Wish,
    check_order,
    ranked,
    require_enough,
)
from sdclr.jobs.mine.seeing import (
    found_images,
    help_to_see,
    joined_with_earlier,
    remarks_on_training,
    see,
    usable_images,
)
from sdclr.jobs.mine.tables import write_csv, write_parquet
from sdclr.outside import is_outside
from sdclr.presentation.mined import Flags, MinedImages
from sdclr.presentation.mining.columns import WANTED
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.world import BEGUN, World, shared_work
from sdclr.run import Run
from sdclr.run.environment import environment
from sdclr.run.files import RECORDS_FILE
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
    order: Order
    exact_up_to: int

    def as_facts(self) -> dict[str, Any]:
        """For mine.json."""
        facts = {"score": self.score, "scores": list(self.scores), "like": list(self.like)}
        paths = {"feedback": self.feedback, "against": self.against}
        said = {name: None if path is None else str(path) for name, path in paths.items()}
        chosen = {"top": self.top, "order": self.order, "exact_up_to": self.exact_up_to}
        return {**facts, **said, **chosen}


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
    order: Order = "rarest",
    exact_up_to: int = EXACT_UP_TO,
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
    int64 [N]: images of one group (a burst, a tile) are no neighbours of each other; or name a column, a folder or a
    pattern by ``data.group_by``. ``order`` of the sheet: rarest, the group with the highest score first; kinds, the
    group that is least like all before it first, so that many kinds are seen early. With the images of a run that kept
    records (record_images), the scores loss, loss_average and colt can rank as well.
    ``exact_up_to``: of more images neighbours are searched approximately; how many are found is estimated, and said in
    the remarks and in mine.json.
    ``as_trained``: ``data`` are to be those that the run ``source`` was trained on.
    Several processes (torchrun) look at the images together, the first one ranks and writes the same
    files as one process, and all return the same.

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
    looked_at = _LookedAt(source, data, out, _path(against), _path(weights), image_size, as_trained)
    with shared_work(f"mine {out.absolute()}") as world:
        if not world.is_first:
            with silenced_warnings():  # the first process has said the same
                _help(looked_at, device, world)
            return handed_over(out, world)
        asked = Asked(
            score=_known_score(score),
            scores=[_known_score(name) for name in scores],
            like=list(like),
            feedback=_path(feedback),
            against=looked_at.against,
            top=top,
            order=order,
            exact_up_to=exact_up_to,
        )
        records = _records(source, asked, as_trained=as_trained)
        check_order(order)
        _check(data, asked, has_records=records is not None)
        if copy_to is not None:
            require_empty(Path(copy_to))
        where = world.device(resolve_device(device))
        with claimed(out, overwrite=overwrite):
            RowParts.require_ours(out / UNFINISHED, "mine")
            found, encoder = looked_at.found(), looked_at.encoder()
            world.publish(BEGUN, {})  # what is downloaded is there, and out may be read
            images, remarks = usable_images(found, data, show)
            now = listed(images, data)
            if not as_trained:
                remarks += remarks_on_training(source, now)
            joined, earlier = joined_with_earlier(now, encoder, out, asked.against)
            names = [one.path for one in joined.contents]
            require_enough(len(names))
            columns = _columns(images, found.class_names, joined)
            listable, said = _shown(asked, joined, columns)
            marks = _marks(asked, out, names)
            if marks:
                columns[WANTED] = mark_column(len(names), marks)
            placed_on(encoder.backbone, where)
            groups = groups_of(data, images, joined, earlier, groups)
            wish = _wish(asked, marks, names, joined, encoder, data)
            wish = _with_what_is_known(wish, images, found.class_names, joined, records)
            seen = see(now, joined, earlier, encoder, out, show, world)
            ranking = ranked(
                torch.from_numpy(seen.features),
                seen.looks,
                names,
                wish,
                show,
                title=f"{len(names):,} images by {encoder.name}",
                root=joined.root,
                groups=groups,
                columns=columns,
                shown=listable,
                remarks=[*remarks, *joined.remarks, *said],
            )
            _write_tables(ranking.mined, out, show)
            write_page(ranking.mined, images, joined.listed_row, out / PAGE, show, top=top)
            if copy_to is not None:
                copy_chosen(ranking.mined, images, joined.listed_row, Path(copy_to), top, show)
            write_state(out, _record(seen.record, ranking, asked, str(where)))
            hand_over(ranking.mined, out, world)
    return ranking.mined


@dataclass(frozen=True)
class _LookedAt:
    """Which images are looked at, and by which network: the same on every process."""

    source: Path | str
    data: DataConfig
    out: Path
    against: Path | None
    weights: Path | None
    image_size: int | None
    as_trained: bool

    def found(self) -> Data:
        return found_images(self.source, self.data, self.out, as_trained=self.as_trained)

    def encoder(self) -> Encoder:
        return open_encoder(self.source, weights=self.weights, image_size=self.image_size)


def _help(looked_at: _LookedAt, device: str, world: World) -> None:
    """In every process but the first: look at a share of the images; writes nothing else."""
    where = world.device(resolve_device(device))
    found, encoder = looked_at.found(), looked_at.encoder()
    images, _ = usable_images(found, looked_at.data, NoProgress())
    now = listed(images, looked_at.data)
    joined, _ = joined_with_earlier(now, encoder, looked_at.out, looked_at.against)
    placed_on(encoder.backbone, where)
    help_to_see(now, joined, encoder, looked_at.out, world)


def _write_tables(mined: MinedImages, out: Path, show: AnyProgress) -> None:
    write_csv(mined, out / SCORES_FILE)
    if not write_parquet(mined, out / PARQUET):
        show.print("scores.parquet needs pyarrow and is left out; scores.csv has the same.")


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _known_score(name: str) -> str:
    """A row of SCORES; what is named as module:Name is imported. ConfigError for an unknown one."""
    return load_score(name).name if is_outside(name) else SCORES.require(name).name


def _records(source: Path | str, asked: Asked, *, as_trained: bool) -> Run | None:
    """The run whose records of its images a score needs; None where none does, or where there are none."""
    needs = {need for name in (asked.score, *asked.scores) for need in SCORES[name].needs}
    if not as_trained or asked.against is not None or not needs & {"losses", "masses"}:
        return None
    run = Run(source)
    return run if (run.folder / RECORDS_FILE).is_file() else None


def _check(data: DataConfig, asked: Asked, *, has_records: bool) -> None:
    """Before any work."""
    if data.store is not None:
        raise ConfigError(
            "data.store saves decoding when images are seen again; mine sees each once. Leave it out."
        )
    if asked.like and asked.feedback is not None:
        raise ConfigError("--like and --feedback are two rankings; give one of them.")
    for name in (asked.score, *asked.scores):
        known = {"features", *(("losses", "masses") if has_records else ())}
        if lacking := [need for need in SCORES[name].needs if need not in known]:
            raise DataError(
                f"the score {name} needs {' and '.join(lacking)}, which are not given: mining knows features, and "
                "losses and masses of the own images of a run that was trained with record_images=true."
            )
    if asked.top < 1:
        raise ConfigError(f"--top must be 1 or more, got {asked.top}.")
    if asked.exact_up_to < 0:
        raise ConfigError(f"--exact-up-to must be 0 or more, got {asked.exact_up_to}.")


def _shown(
    asked: Asked, joined: Joined, columns: dict[str, Sequence[str]]
) -> tuple[Flags | None, list[str]]:
    """Which images may come onto the sheet: against an earlier collection the new ones; and a remark."""
    if asked.against is None:
        return None, []
    is_new = joined.is_listed & (joined.stored_row < 0)
    columns["new"] = ["yes" if new else "" for new in is_new.tolist()]
    counts = f"{int(is_new.sum()):,} images are new, of {len(is_new):,}"
    if is_new.any():
        return is_new, [f"{counts}; shown are these."]
    return joined.is_listed, [f"{counts}; no image is new, shown are all that are listed."]


def _marks(asked: Asked, out: Path, names: Sequence[str]) -> Marks:
    """The user's marks: those in an earlier scores.csv, which are never lost, and those of the feedback."""
    earlier = out / SCORES_FILE
    marks = read_marks(earlier, names, strict=False) if earlier.is_file() else {}
    if asked.feedback is not None:
        marks |= read_marks(asked.feedback, names)
        require_both_kinds(marks, asked.feedback)
    return marks


def _wish(
    asked: Asked,
    marks: Marks,
    names: Sequence[str],
    joined: Joined,
    encoder: Encoder,
    data: DataConfig,
) -> Wish:
    wish = Wish(asked.score, asked.scores, asked.order, exact_up_to=asked.exact_up_to)
    if asked.feedback is not None:
        return replace(wish, other=by_feedback(marks), other_name="feedback")
    if asked.like:
        other = by_likeness(asked.like, names, joined.root, encoder, data)
        return replace(wish, other=other, other_name="likeness")
    return wish


def _with_what_is_known(
    wish: Wish, images: Images, class_names: Sequence[str], joined: Joined, records: Run | None
) -> Wish:
    """The labels of the images, where all have one, and what a run has recorded of them."""
    if images.labels is not None and joined.is_listed.all():
        labels = images.labels[joined.listed_row]
        wish = replace(wish, labels=labels, class_names=class_names)
    if records is not None:
        num_epochs = len(records.metrics())
        recorded = read_records(records.folder, len(joined.contents), num_epochs)
        wish = replace(wish, records=recorded)
    return wish


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
            "approximations": {name: one._asdict() for name, one in ranking.approximations.items()},
            "quality": {**ranking.measures, "sentence": mined.quality.sentence},
            "remarks": list(mined.remarks),
            "environment": environment(device),
        }
    )
