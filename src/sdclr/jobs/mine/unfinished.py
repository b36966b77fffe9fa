"""What a killed call has seen, where the collection is another one since: kept, so that only the rest is looked at.

The rows that were finished belong to a list of images, which is written beside them. Where the next call has to look at
other images, those rows move into a folder of their own, which is read as what an earlier call has seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdclr.backbones.encoder import Encoder
from sdclr.data.collections.contents import Content, digest_of, read_record, write_record
from sdclr.errors import DataError, MissingInputError
from sdclr.jobs.mine.collection import BLOCK, Listed
from sdclr.jobs.mine.folder import UNFINISHED, MineRecord, Stored, StoredWriter, read_stored
from sdclr.jobs.mine.looking import Looks
from sdclr.storage.durable_files import make_folder, storage_errors
from sdclr.storage.row_parts import RowParts

UNFINISHED_IMAGES = f"{UNFINISHED}.tsv.gz"
"""Which images the rows of an unfinished call are of, in their order."""
KEPT = "features.kept"
"""What killed calls have seen, as a folder of mining has it."""

Seen = tuple[list[Content], npt.NDArray[np.float32], Looks]
"""Images and what was seen of them, [n], [n, F] and [n]."""


def identity_of(unseen: Sequence[Content], now: Listed, encoder: Encoder) -> str:
    """Of the rows of these images: by which network, how they were read, where they lie, what they hold."""
    return f"{encoder.digest} {now.reading} {now.root} {digest_of(list(unseen))}"


def note_unfinished(out: Path, unseen: Sequence[Content]) -> None:
    """Write which images are about to be looked at."""
    write_record(out / UNFINISHED_IMAGES, {"images": unseen})


def keep_unfinished(out: Path, now: Listed, encoder: Encoder, identity: str) -> bool:
    """Put the rows of a killed call aside, unless those of ``identity`` are to go on; whether there were any.

    Only rows of the same network and folder: others are thrown away by whoever opens them.
    """
    try:
        images = (read_record(out / UNFINISHED_IMAGES) or {}).get("images", [])
    except DataError:  # then they are looked at again
        return False
    theirs = identity_of(images, now, encoder)
    parts = RowParts(out / UNFINISHED, theirs)
    if not images or theirs == identity or not parts.num_present:
        return False
    record = MineRecord(
        state="features",
        encoder=encoder.digest,
        encoder_name=encoder.name,
        reading=now.reading,
        root=now.root,
    )
    killed = [
        (images[first : first + len(part)], part["features"], part["look"])
        for first, part in parts.present()
    ]
    _write(out / KEPT, record, [*killed, *_kept_before(out, record, killed)])
    parts.remove()
    return True


def _kept_before(out: Path, record: MineRecord, since: Sequence[Seen]) -> Iterator[Seen]:
    """What was put aside before, of the same network and folder, without images that were seen ``since``."""
    kept = read_kept(out)
    if kept is None or _kind(kept.record) != _kind(record):
        return
    again = {(one.path, one.digest) for contents, _, _ in since for one in contents}
    rows = [r for r, one in enumerate(kept.contents) if (one.path, one.digest) not in again]
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        yield [kept.contents[row] for row in block], kept.features[block], kept.looks[block]


def _kind(record: MineRecord) -> tuple[object, ...]:
    return record.encoder, record.reading, record.root


def _write(folder: Path, record: MineRecord, seen: Sequence[Seen]) -> None:
    images = [one for contents, _, _ in seen for one in contents]
    with storage_errors(folder):
        make_folder(folder)
    writer, first = StoredWriter(folder, len(images), seen[0][1].shape[1]), 0
    for contents, features, looks in seen:
        writer.put(slice(first, first + len(contents)), features, looks)
        first += len(contents)
    writer.finish(record, images)


def read_kept(out: Path) -> Stored | None:
    """What killed calls have seen; None where there is nothing, or nothing that can be read."""
    try:
        return read_stored(out / KEPT)
    except (MissingInputError, DataError):
        return None


def remove_kept(out: Path) -> None:
    """All of it is in the folder of mining itself."""
    with storage_errors(out):
        (out / UNFINISHED_IMAGES).unlink(missing_ok=True)
        if (out / KEPT).is_dir():
            shutil.rmtree(out / KEPT)
