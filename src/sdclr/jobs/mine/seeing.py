"""Images -> features and looks of all of them: those of earlier calls, and those of the others, computed here.

N images. Which images there are and which of them are known is decided before any is processed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdclr.backbones.encoder import Encoder
from sdclr.data import Data, DataConfig, Images, build_data
from sdclr.data.collections.contents import Content, read_record
from sdclr.data.rows_wanted import keys_of_contents
from sdclr.data.trained_images import images_of, warn_of_changes
from sdclr.data.usable import usable_images
from sdclr.errors import ConfigError, DistributedError
from sdclr.jobs.mine.collection import Joined, Listed, join, keep, require_same_kind, written
from sdclr.jobs.mine.folder import UNFINISHED, MineRecord, Stored, read_state, read_stored
from sdclr.jobs.mine.looking import look_at
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.world import ALONE, World
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE
from sdclr.safe_text import counted, shown
from sdclr.storage.row_parts import RowParts


def found_images(source: Path | str, data: DataConfig, out: Path, *, as_trained: bool) -> Data:
    if not as_trained:
        return build_data(data, exclude=[out])
    run = Run(source)
    found = images_of(run, data, "data.path=")
    warn_of_changes(run, found)
    return replace(found, train=found.pretraining_images(data.subset))


def images_and_remarks(
    found: Data, data: DataConfig, show: AnyProgress
) -> tuple[Images, list[str]]:
    """The images that can be used, and remarks on how they were found and on those that are left out."""
    images, bad = usable_images(found.train, data, show)
    are = "is" if len(bad) == 1 else "are"
    left = [f"{counted(len(bad), 'image')} cannot be decoded and {are} left out."] if bad else []
    return images, [*found.remarks, *left]


def remarks_on_training(source: Path | str, now: Listed) -> list[str]:
    """A remark if a run has not seen all of these images; a warning if it has seen none."""
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


def joined_with_earlier(
    now: Listed, encoder: Encoder, out: Path, against: Path | None
) -> tuple[Joined, Stored | None]:
    """The images to rank, and the earlier call that knows some of them: ``against``, or the last one with ``out``.

    Raises ConfigError if ``against`` is unfinished or used another backbone or other reading settings.
    """
    own = read_stored(out)
    if own is not None and not _is_like(own, now, encoder):
        own = None
    if against is None:
        return join(now, own, keep_others=False), own
    earlier = read_stored(against)
    if earlier is None:
        raise ConfigError(f"--against {shown(against)}: that call has not finished.")
    require_same_kind(earlier, encoder.digest, encoder.name, now.reading)
    others = [] if own is None else [own]
    return join(now, earlier, keep_others=True, own=others), earlier


def see(
    now: Listed,
    joined: Joined,
    earlier: Stored | None,
    encoder: Encoder,
    out: Path,
    show: AnyProgress,
    world: World = ALONE,
) -> Stored:
    """Features and looks of the ``joined`` images, stored in ``out``; only images that no call knows are processed.

    The other processes of ``world`` must call :func:`help_to_see`.
    """
    own = _seen_before(now, joined, encoder, out)
    parts = None if own is not None else _unfinished(now, joined, encoder, out, world)
    world.messages.publish(_TO_SEE, {"parts": parts and parts.stamp})
    if own is not None:
        if (out / UNFINISHED).is_dir():  # from images that were removed again
            RowParts(out / UNFINISHED, "").remove()
        return own
    assert parts is not None
    look_at(now.images.at(joined.unseen), encoder, parts, show)
    before = read_state(out)  # its facts about scores.csv hold until that is rewritten
    record = MineRecord(
        state="features",
        table_root=before.table_root,
        table_columns=before.table_columns,
        encoder=encoder.digest,
        encoder_name=encoder.name,
        reading=now.reading,
    )
    kept = keep(out, record, joined, [(earlier, joined.stored_row), *joined.own], parts)
    parts.remove()
    return kept


def help_to_see(
    now: Listed, encoder: Encoder, out: Path, against: Path | None, world: World
) -> None:
    """Process this process's shard of the first one's images.

    Raises DistributedError if this process would process other images.
    """
    wanted = world.messages.wait_for(_TO_SEE)["parts"]
    # the first process changes nothing there until this one has read it
    joined, _ = joined_with_earlier(now, encoder, out, against)
    parts = None
    if _seen_before(now, joined, encoder, out) is None:
        parts = _unfinished(now, joined, encoder, out, world)
    if wanted != (parts and parts.stamp):
        raise DistributedError(
            f"process {world.rank} sees other images or another backbone than process 0. Every process needs the same "
            "files, on a file system that all of them see."
        )
    if parts is not None:
        look_at(now.images.at(joined.unseen), encoder, parts, NoProgress())


_TO_SEE = "what is to be looked at"


def _seen_before(now: Listed, joined: Joined, encoder: Encoder, out: Path) -> Stored | None:
    """The results of an earlier call with this folder, if they cover exactly these images."""
    own = read_stored(out)
    if own is None or not _is_like(own, now, encoder) or not _holds(own, joined):
        return None
    return own


def _unfinished(now: Listed, joined: Joined, encoder: Encoder, out: Path, world: World) -> RowParts:
    """Rows of all images that no call has finished, including those of killed calls; each process computes a shard."""
    keys = keys_of_contents([now.contents[row] for row in joined.unseen.tolist()])
    identity = f"{encoder.digest} {now.reading} {now.root}"
    return RowParts(out / UNFINISHED, identity, keys=keys, team=world.messages)


def _is_like(stored: Stored, now: Listed, encoder: Encoder) -> bool:
    return (stored.record.encoder, stored.record.reading) == (encoder.digest, now.reading)


def _holds(own: Stored, joined: Joined) -> bool:
    """Whether an earlier call with this folder has processed exactly these images."""
    return own.record.root == joined.root and _contents(own.contents) == _contents(joined.contents)


def _contents(images: Sequence[Content]) -> list[tuple[str, str, int]]:
    return [(one.path, *written(one)) for one in images]
