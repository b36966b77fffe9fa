"""Short digests of image files, so that changed pixels are noticed without reading every file again.

A digest covers the size of a file and 4 KB each from its beginning, middle and end. A record keeps it with size and
modification time. Where both are as recorded, the recorded digest is used; where they are not, as for data that were
copied elsewhere, it is computed again, and equal digests mean the same image. Decodes nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import Member, Source, open_bytes, printable, state_of
from sdclr.data.look_ahead import in_pieces
from sdclr.data.splits import Positions
from sdclr.errors import ChangedDataError, ConfigError, DataError, RemoteError, SdclrError
from sdclr.safe_text import command, counted
from sdclr.storage.durable_files import write_atomically

SAMPLE = 4096
"""Bytes read from each of three places."""
FILES_PER_CALL = 64
ABSENT = "absent"
_LONGEST_RECORD = 1 << 31
"""The most bytes of an unpacked record: 20 million files."""
_LONGEST_SIDE = 1 << 31
"""The most pixels of an image's side; a record with more is damaged."""


class Content(NamedTuple):
    """One image file."""

    path: str
    """Below the root of its collection."""
    digest: str
    """16 hex digits, or ABSENT."""
    size: int
    """In bytes."""
    mtime_ns: int
    """When it was last written; for a member, when its shard was."""
    height: int = 0
    """Of the image that a run makes of it, in pixels; 0 where it is not known."""
    width: int = 0


def read_contents(
    images: ImageFiles,
    known: Iterable[Content] = (),
    advance: Callable[[int], None] = lambda done: None,
) -> list[Content]:
    """The content of every file now, in the order of the collection; ``known``: what was recorded earlier.

    A file that is missing or cannot be read is ABSENT: opening it raises the reason.
    """
    recorded = {one.path: one for one in known}
    found: list[Content | None] = [None] * len(images)

    def call(rows: range) -> None:
        for row in rows:
            path = images.paths[row]
            found[row] = _content(images.file(row), path, recorded.get(path))

    in_pieces(len(images), FILES_PER_CALL, call, advance, num_workers=images.num_workers)
    return [one for one in found if one is not None]


def _content(source: Source, path: str, recorded: Content | None) -> Content:
    try:
        size, changed = _state(source)
        if recorded is not None and (recorded.size, recorded.mtime_ns) == (size, changed):
            return recorded
        return Content(path, _digest(source, size), size, changed)
    except (RemoteError, ChangedDataError):  # neither says anything about the image
        raise
    except (OSError, SdclrError):
        return Content(path, ABSENT, 0, 0)


def _digest(source: Source, size: int) -> str:
    digest = hashlib.blake2b(f"{size} ".encode(), digest_size=8)
    with open_bytes(source) as file:
        for start in sorted({0, max(size // 2 - SAMPLE // 2, 0), max(size - SAMPLE, 0)}):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def with_pixels(contents: Sequence[Content], images: ImageFiles) -> list[Content]:
    """The same contents, with height and width of those that are in ``images``."""
    sizes = dict(zip(images.paths, images.sizes.tolist(), strict=True))
    return [
        one._replace(height=sizes[one.path][0], width=sizes[one.path][1])
        if one.path in sizes
        else one
        for one in contents
    ]


def recorded_sizes(images: ImageFiles, recorded: Iterable[Content]) -> Positions | None:
    """int64 [N, 2]: heights and widths as recorded, no header read; None unless every file is unchanged since."""
    known = {one.path: one for one in recorded if one.height}
    sizes = np.zeros((len(images), 2), np.int64)
    for row, path in enumerate(images.paths):
        one = known.get(path)
        try:
            if one is None or _state(images.file(row)) != (one.size, one.mtime_ns):
                return None
        except (OSError, SdclrError):  # reading its header raises the reason
            return None
        sizes[row] = one.height, one.width
    return sizes


def _state(source: Source) -> tuple[int, int]:
    """Size in bytes and when it was last written; for a member, when its shard was."""
    state = state_of(source)
    return source.size if isinstance(source, Member) else state.size, state.changed_ns


def digest_of(contents: Sequence[Content]) -> str:
    """16 hex digits over names and digests: equal for equal images, wherever they are."""
    digest = hashlib.sha256()
    for one in contents:
        digest.update(f"{one.path}\0{one.digest}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def differences(before: Sequence[Content], now: Sequence[Content]) -> list[str]:
    """Phrases for what has changed: files added, missing, and with other content, each with the first few names."""
    old, new = {one.path: one.digest for one in before}, {one.path: one.digest for one in now}
    gone = [path for path in old if new.get(path, ABSENT) == ABSENT and old[path] != ABSENT]
    added = [path for path in new if path not in old]
    changed = [path for path in old if path in new and path not in gone and new[path] != old[path]]
    named = {"new": added, "missing": gone, "of other content": changed}
    return [f"{len(paths)} {what} ({_first(paths)})" for what, paths in named.items() if paths]


def changes(before: Sequence[Content], now: Sequence[Content]) -> list[str]:
    """:func:`differences` among the files that are in both."""
    here, recorded = {one.path for one in now}, {one.path for one in before}
    return differences(
        [one for one in before if one.path in here], [one for one in now if one.path in recorded]
    )


def name_differences(before: Sequence[Content], paths: Sequence[str]) -> list[str]:
    """:func:`differences` of names alone; nothing is read."""
    return differences(
        [one._replace(digest="") for one in before], [Content(path, "", 0, 0) for path in paths]
    )


def _left_aside(run: Path) -> list[Content]:
    """The images that a run has left out, which are not in its record of contents."""
    try:
        skipped = json.loads((run / "images.json").read_bytes()).get("skipped", [])
        return [Content(str(path), "", 0, 0) for path, _ in skipped]
    except (OSError, ValueError, TypeError, AttributeError):  # this only improves an error message
        return []


def _other_data(
    run: Path, parts: Iterable[tuple[Sequence[str], Sequence[Content]]], trained_on: str, found: str
) -> ConfigError:
    """An error with the number of new and missing names and advice; with fingerprints where the names are the same.

    ``parts``: the current names, and what was recorded.
    """
    new: list[str] = []
    gone: list[str] = []
    for paths, before in parts:
        here = set(paths)
        new += sorted(here.difference(one.path for one in before))
        gone += [one.path for one in before if one.digest != ABSENT and one.path not in here]
    if not new and not gone:
        return ConfigError(
            f"other images, other labels or another split: {_afresh(run)}\n{run} was trained on other data: "
            f"fingerprint {trained_on}, now {found}."
        )
    firsts = {"new": new, "missing": gone}
    first = ", ".join(
        f"first {what}: {printable(names[0])}" for what, names in firsts.items() if names
    )
    if not new:  # there is nothing new to learn from
        return ConfigError(
            f"{counted(len(gone), 'image')} that {run} was trained on {'is' if len(gone) == 1 else 'are'} missing "
            f"({first}). Restore {'it' if len(gone) == 1 else 'them'} (--data, if they have moved); to do without, "
            f"{_afresh(run)}"
        )
    return ConfigError(
        f"{len(new)} new, {len(gone)} missing: {_afresh(run)}\n{run} was trained on other data ({first}); to continue "
        "it, give it those (--data, if they have moved)."
    )


def _afresh(run: Path) -> str:
    """Advice for images that a run was not started with."""
    # it is not finished, and has no weights to start from
    if not (run / "backbone.safetensors").is_file():
        return "start a new run in another --out."
    return f"start a new run with {command('--weights', run)} and another --out."


def _first(paths: Sequence[str]) -> str:
    shown = ", ".join(map(printable, paths[:3]))
    return f"{shown}, ..." if len(paths) > 3 else shown


def write_record(path: Path, parts: Mapping[str, Sequence[Content]]) -> None:
    """Write gzipped lines, one per file: part, digest, size, modification time, name in JSON; pixels where known."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        for part, contents in parts.items():
            for one in contents:
                cells = [part, one.digest, one.size, one.mtime_ns, json.dumps(one.path)]
                if one.height:
                    cells += [one.height, one.width]
                packed.write(("\t".join(map(str, cells)) + "\n").encode())
    write_atomically(path, buffer.getvalue())


def read_record(
    path: Path, cure: str = " Restore it from a backup, or remove it."
) -> dict[str, list[Content]] | None:
    """What :func:`write_record` has written; None where there is no such file.

    DataError when it is damaged, with the advice ``cure``.
    """
    if not path.is_file():
        return None
    parts: dict[str, list[Content]] = {}
    num_bytes = 0
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            for line in lines:
                num_bytes += len(line)
                if num_bytes > _LONGEST_RECORD:
                    raise ValueError("it is too long")
                part, content = _line(line)
                parts.setdefault(part, []).append(content)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is damaged: {str(error)[:200]}.{cure}") from None
    return parts


def _line(line: str) -> tuple[str, Content]:
    """Part and content; ValueError for a damaged line."""
    part, digest, size, mtime, name, *pixels = line.rstrip("\n").split("\t")
    text = json.loads(name)
    if not isinstance(text, str):
        raise ValueError("a name is not text")
    if len(pixels) not in (0, 2):
        raise ValueError("a line has too many cells")
    height, width = map(int, pixels or (0, 0))
    if not 0 <= min(height, width) <= max(height, width) <= _LONGEST_SIDE:
        raise ValueError(f"an image of {height} x {width} pixels")
    if (height == 0) != (width == 0):
        raise ValueError(f"an image of {height} x {width} pixels")
    return part, Content(text, digest, int(size), int(mtime), height, width)


def require_same_names(record: Path, files: Mapping[str, ImageFiles]) -> None:
    """ConfigError that lists the first few unless the ``files`` of each part have the names in a run's ``record``."""
    recorded = read_record(record) or {}
    problems = [
        f"{part}: {one}"
        for part, images in files.items()
        if part in recorded
        for one in name_differences(recorded[part], images.paths)
    ]
    if problems:
        raise ConfigError(
            f"{record.parent} was trained on other images: {'; '.join(problems)}. Give those it was trained on "
            "(--data, if they have moved)."
        )


def require_recorded(
    record: Path, files: Mapping[str, ImageFiles], trained_on: str, found: str
) -> bool:
    """ConfigError that names the first few files unless the images are those of a run's ``record``.

    ``files``: the current collections by part. ``trained_on`` and ``found``: fingerprints over names, labels and split.
    Returns whether there was a record; runs of earlier versions have none, and only their fingerprints are compared.
    """
    recorded = read_record(record)
    parts = [
        (part, images, recorded[part])
        for part, images in files.items()
        if recorded and part in recorded
    ]
    if found != trained_on:
        aside = _left_aside(record.parent)
        compared = [
            (images.paths, [*old, *(one for one in aside if part == "train")])
            for part, images, old in parts
        ]
        raise _other_data(record.parent, compared, trained_on, found)
    problems = []
    for part, images, old in parts:
        # opening an absent file raises its own error
        now = [one for one in read_contents(images, old) if one.digest != ABSENT]
        problems += [f"{part}: {one}" for one in changes(old, now)]
    if problems:
        raise ConfigError(
            f"the images are not those that {record.parent} was trained on, though their names are: "
            f"{'; '.join(problems)}. Restore them, or {_afresh(record.parent)}"
        )
    return recorded is not None
