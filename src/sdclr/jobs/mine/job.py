"""JOB: any images -> features -> how rare each one is; scores.csv, scores.parquet and a page in one folder.

N images, F feature dim. Results are stored in the folder, so that a killed command can resume and
the next one only processes new images. Trains nothing and needs no labels.

Several processes (torchrun) process the images together; only the first one ranks and writes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sdclr.backbones.config import WeightsMatch
from sdclr.backbones.encoder import Encoder, open_encoder
from sdclr.compute.device import placed_on, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.config import require_on_disk
from sdclr.data import Data, DataConfig
from sdclr.data.usable import skip_advised
from sdclr.evaluation.rarity import DEFAULT, SCORES
from sdclr.evaluation.rarity.evidence import EXACT_UP_TO
from sdclr.evaluation.rarity.maps import MapName
from sdclr.jobs.mine.collection import listed
from sdclr.jobs.mine.copies import claimed_copies, copies_are_whole, copy_chosen, require_empty
from sdclr.jobs.mine.folder import (
    PAGE,
    PARQUET,
    SCORES_FILE,
    UNFINISHED,
    MineRecord,
    claimed,
    write_state,
)
from sdclr.jobs.mine.given_marks import keep_missing
from sdclr.jobs.mine.handed_over import hand_over, handed_over
from sdclr.jobs.mine.known import Known, known_images
from sdclr.jobs.mine.page import write_page
from sdclr.jobs.mine.ranking import (
    Found,
    Order,
)
from sdclr.jobs.mine.request import MineRequest, known_score, require_possible
from sdclr.jobs.mine.seeing import (
    found_images,
    help_to_see,
    images_and_remarks,
    see,
)
from sdclr.jobs.mine.tables import write_csv, write_parquet
from sdclr.presentation.mined import MinedImages
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.world import MAY_WRITE, World, shared_work
from sdclr.run import Run
from sdclr.run.environment import environment
from sdclr.run.files import RECORDS_FILE
from sdclr.storage.row_parts import RowParts


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
    weights_match: WeightsMatch = "exact",
    image_size: int | None = None,
    groups: Tensor | None = None,
    order: Order = "rarest",
    map: MapName = "pca",
    exact_up_to: int = EXACT_UP_TO,
    device: str = "auto",
    progress: AnyProgress | None = None,
    overwrite: bool = False,
    as_trained: bool = False,
) -> MinedImages:
    """Rank the images of ``data`` (its training part) by how rare they are; write the folder ``out``.

    The folder contains ``scores.csv`` (and ``scores.parquet`` if pyarrow is installed), one row per
    image; ``index.html``, a page to view; ``mine.json``, a record of the call; and ``features.npy``
    float32 [N, F] with other stored results, so that the next call only processes new images.
    docs/mining.md explains the columns. Returns the same as arrays [N].

    ``source``: a run folder, a backbone.safetensors, a checkpoint of the method's authors, or
    timm:NAME or torchvision:NAME (with the file ``weights``, or by default ImageNet's, which are
    downloaded). ``weights_match``: how that file must match: exact, partial or order, as in pre-training.
    ``image_size``: side of the network's input, if not the one it was trained on.
    ``top``: how many images of the sheet the page shows as pictures and ``copy_to`` copies.
    ``score``, ``scores``: rows of rarity's SCORES (or module:Name), the ranking one and those for
    further columns. ``like``: images, by name or path; ranks by likeness to them instead.
    ``feedback``: a table with columns path and wanted; ranks by these marks. ``against``: the folder
    of an earlier call: images are compared with its images, those of ``data`` are shown. ``groups``
    int64 [N]: images of one group (a burst, a tile) are not neighbours of each other; or name a column, a folder or a
    pattern with ``data.group_by``. ``order`` of the sheet: rarest, the group with the highest score first; kinds, the
    group that is least like all before it first, so that many kinds are seen early. ``map`` of the page: pca, or umap,
    which is installed separately. With the images of a run that kept
    records (record_images), the scores loss, loss_average and colt can rank as well.
    ``exact_up_to``: for more images than this, neighbours are searched approximately; the share found is estimated
    and reported in the remarks and in mine.json.
    ``as_trained``: ``data`` should be the images that the run ``source`` was trained on.
    Several processes (torchrun) process the images together, the first one ranks and writes the same
    files as a single process would, and all return the same.

    An interrupted call resumes where it stopped. Raises ConfigError for settings that do not fit
    and for a finished folder unless ``overwrite`` (marks in its scores.csv are kept); DataError for
    fewer than 32 images, equal features or nothing but junk; NonFiniteError for features that are
    not finite; RunFolderError for a folder with other files.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> mined = sdclr.mine(run.folder, config.data, "rare", overwrite=True)
    >>> len(mined), mined.score_name, int(mined.rank.min()), len(mined.sheet) <= len(mined)
    (1437, 'density', 1, True)
    """
    out, show = Path(out), progress or NoProgress()
    for image in like:
        require_on_disk(image)
    looked_at = _LookedAt(
        source,
        data,
        out,
        _path(against),
        _path(weights),
        weights_match,
        image_size,
        as_trained,
    )
    with shared_work(f"mine {out.absolute()}") as world:
        if not world.is_first:
            with silenced_warnings():  # the first process gives the same warnings
                _help(looked_at, device, world)
            return handed_over(out, world)
        request = MineRequest(
            score=known_score(score),
            scores=[known_score(name) for name in scores],
            like=list(like),
            feedback=_path(feedback),
            against=looked_at.against,
            top=top,
            order=order,
            map=map,
            exact_up_to=exact_up_to,
        )
        records = _records(source, request, as_trained=as_trained)
        require_possible(data, request, out, has_records=records is not None)
        if copy_to is not None:
            require_empty(Path(copy_to), out, _folder_of(data))
        where = world.device(resolve_device(device))
        with claimed(out, overwrite=overwrite), claimed_copies(_path(copy_to)):
            RowParts.require_ours(out / UNFINISHED, "mine")
            found, encoder = looked_at.found(), looked_at.encoder()
            world.messages.publish(MAY_WRITE, {})  # downloads are complete, and out may be read
            placed_on(encoder.backbone, where)
            known = known_images(
                found,
                data,
                request,
                encoder,
                out,
                show,
                groups=groups,
                records=records,
                trained_elsewhere=None if as_trained else source,
            )
            with skip_advised(data):
                seen = see(known.now, known.joined, known.earlier, encoder, out, show, world)
            title = f"{len(known.names):,} images by {encoder.name}"
            ranking = known.ranked(seen, title, show)
            record = _write_tables(ranking.mined, known, seen.record, out, show)
            rows = known.joined.listed_row
            write_page(ranking.mined, known.images, rows, out / PAGE, show, top=top)
            if copy_to is not None:
                copy_chosen(ranking.mined, known.images, rows, Path(copy_to), top, show, out)
            copied_to = "" if copy_to is None else os.path.realpath(copy_to)
            finished = _record(record, ranking, request, str(where))
            write_state(out, finished.model_copy(update={"copied_to": copied_to}))
            if copy_to is not None:  # only now, so that a call killed before can be given again
                copies_are_whole(Path(copy_to))
            hand_over(ranking.mined, out, world)
    return ranking.mined


@dataclass(frozen=True)
class _LookedAt:
    """Which images are processed, and by which network: the same on every process."""

    source: Path | str
    data: DataConfig
    out: Path
    against: Path | None
    weights: Path | None
    weights_match: WeightsMatch
    image_size: int | None
    as_trained: bool

    def found(self) -> Data:
        return found_images(self.source, self.data, self.out, as_trained=self.as_trained)

    def encoder(self) -> Encoder:
        return open_encoder(
            self.source,
            weights=self.weights,
            weights_match=self.weights_match,
            image_size=self.image_size,
        )


def _help(looked_at: _LookedAt, device: str, world: World) -> None:
    """In every process but the first: process a shard of the images; writes nothing else."""
    where = world.device(resolve_device(device))
    found, encoder = looked_at.found(), looked_at.encoder()
    images, _ = images_and_remarks(found, looked_at.data, NoProgress())
    now = listed(images)
    placed_on(encoder.backbone, where)
    with skip_advised(looked_at.data):
        help_to_see(now, encoder, looked_at.out, looked_at.against, world)


def _write_tables(
    mined: MinedImages, known: Known, seen: MineRecord, out: Path, show: AnyProgress
) -> MineRecord:
    """Write the tables; return the new content of mine.json, including the facts about them."""
    # until all is written again
    write_state(out, seen.model_copy(update={"state": "features"}))
    keep_missing(known.marks.parked, out)  # saved before they disappear from scores.csv
    write_csv(mined, out / SCORES_FILE)
    keep_missing(known.marks.missing, out)  # without the returned ones, which scores.csv now has
    record = seen.model_copy(update={**known.table_facts(mined), "state": "features"})
    write_state(out, record)
    if not write_parquet(mined, out / PARQUET):
        show.print("scores.parquet needs pyarrow and is left out; scores.csv has the same.")
    return record


def _folder_of(data: DataConfig) -> Path | None:
    """The folder whose images are mined; None for a list, an archive, images in memory."""
    is_folder = data.name == "images" and data.path is not None and os.path.isdir(data.path)
    return Path(str(data.path)) if is_folder else None


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _records(source: Path | str, request: MineRequest, *, as_trained: bool) -> Run | None:
    """The run whose image records a score needs; None if no score does, or if there are no records."""
    needs = {need for name in (request.score, *request.scores) for need in SCORES[name].needs}
    if not as_trained or request.against is not None or not needs & {"losses", "masses"}:
        return None
    run = Run(source)
    return run if (run.folder / RECORDS_FILE).is_file() else None


def _record(seen: MineRecord, ranking: Found, request: MineRequest, device: str) -> MineRecord:
    mined = ranking.mined
    return seen.model_copy(
        update={
            "state": "finished",
            "title": mined.title,
            "settings": request.as_facts(),
            "copy_rules": ranking.copy_rules,
            "approximations": {name: one._asdict() for name, one in ranking.approximations.items()},
            "quality": {**ranking.measures, "sentence": mined.quality.sentence},
            "remarks": list(mined.remarks),
            "environment": environment(device),
        }
    )
