"""Images in tar shards, as WebDataset writes them: which there are and where their bytes are. Opens no image.

An uncompressed tar allows random access: once its headers are known, images in shards are like images in files, read in
any order, each exactly once per epoch. So there is no stream, no shuffle buffer and no order but that of every
collection. Shards are on a disk, or at addresses (:mod:`sdclr.data.sources.shard_index`).
:mod:`sdclr.data.sources.webdataset_samples` decides which of their members are images, and of which class.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdclr.addresses import Address, Place
from sdclr.any_progress import late_task
from sdclr.data.choices import Unlabelled
from sdclr.data.collections.members import Members
from sdclr.data.collections.packed_names import PackedNames, packed, starts_of
from sdclr.data.decoding.decode import FileState, printable
from sdclr.data.look_ahead import in_pieces
from sdclr.data.remote.limits import INDEX_CONNECTIONS, require_valid
from sdclr.data.remote.ranges import Version, version_of
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.headers_read import headers_read
from sdclr.data.sources.listing import IMAGE_SUFFIXES
from sdclr.data.sources.shard_index import Reached, indexed_members, is_indexed, kept_arrays
from sdclr.data.sources.shard_members import CLASS_SUFFIX, ShardMember, members_on_disk
from sdclr.data.sources.webdataset_samples import Unused, images_of, rules
from sdclr.data.splits import Positions
from sdclr.errors import DataError, MissingInputError
from sdclr.storage.array_files import Arrays

_ARRAYS = ("letters", "lengths", "starts", "sizes", "label_of")
_BRACES = re.compile(r"\{([0-9]{1,15})\.\.([0-9]{1,15})\}")
_MOST_SHARDS = 100_000
_MEMBERS_PER_REPORT = 256
"""Headers on a disk between two progress reports, as they are read fast."""


class ShardedImages(NamedTuple):
    """The images of some shards, in the order of the shards and, inside each, of the tar."""

    paths: PackedNames
    """[N], SHARD/MEMBER."""
    labels: list[str] | None
    """[N], the class of each, where all have one that is to be used."""
    members: Members
    remarks: list[str]
    """What was left out, a phrase for each kind."""


def expand_braces(name: str) -> list[str]:
    """``train-{000..146}.tar`` -> 147 names; a name without a range is itself. Several ranges multiply.

    Raises DataError for a range that descends, and for more than 100,000 names.
    """
    names = [""]
    rest = name
    while match := _BRACES.search(rest):
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        if not 0 <= last - first < _MOST_SHARDS // len(names):
            raise DataError(
                f"{printable(name)}: the range {match[0]} must ascend, and all ranges name {_MOST_SHARDS:,} at most."
            )
        numbers = [f"{number:0{width}d}" for number in range(first, last + 1)]
        names = [f"{begun}{rest[: match.start()]}{number}" for begun in names for number in numbers]
        rest = rest[match.end() :]
    names = [begun + rest for begun in names]
    if any(brace in names[0] for brace in "{}"):
        raise DataError(f"{printable(name)}: ranges are written {{000..146}}, and do not nest.")
    return names


def read_shards(
    root: Place,
    shards: list[str],
    unwanted: Exclusion | None = None,
    also: tuple[str, ...] = (),
    unlabelled: Unlabelled = "refuse",
) -> ShardedImages:
    """The images in tar files below ``root``, from their headers alone; members that are ``unwanted`` do not count.

    A glob is matched against the member's name and SHARD/MEMBER. ``unlabelled``: what becomes of images without a class
    where others have one.

    Raises MissingInputError for an absent shard, and DataError for one that is compressed, cut off or not a tar, and
    for one that holds a name twice.
    """
    at_address = isinstance(root, Address)
    if not at_address and (absent := [one for one in shards if not (root / one).exists()]):
        raise MissingInputError(
            f"{len(absent)} of {len(shards)} shards do not exist (first: {printable(root / absent[0])}). Restore them."
        )
    if repeated := [shard for shard, times in Counter(shards).items() if times > 1]:
        raise DataError(f"shard {printable(repeated[0])} is named twice.")
    unwanted = unwanted or Exclusion()
    versions: tuple[Version, ...] | None = None
    states: tuple[FileState, ...] | None = None
    if isinstance(root, Address):
        found, versions = _images_at(root, shards, unwanted, also)
    else:
        found, states = _images_on_disk(root, shards, unwanted, also)
    unused = Unused()
    for one in found:
        unused.add(one.unused)
    if not any(len(one.lengths) for one in found):
        but = f"; {', '.join(unused.remarks())}" if unused.remarks() else ""
        raise DataError(
            f"{len(shards)} shards below {printable(root)} hold no images ({', '.join(IMAGE_SUFFIXES)}){but}."
        )
    joined = _joined(shards, found, unlabelled)
    return joined._replace(
        members=replace(joined.members, versions=versions, states=states),
        remarks=[*joined.remarks, *unused.remarks()],
    )


class _ShardImages(NamedTuple):
    """The images of one shard, n of them, as arrays."""

    letters: npt.NDArray[np.uint8]
    """The letters of all names, in UTF-8."""
    lengths: npt.NDArray[np.int32]
    """[n], of each name."""
    starts: Positions
    """[n], first bytes."""
    sizes: Positions
    """[n], in bytes."""
    label_of: npt.NDArray[np.int32]
    """[n], which of ``labels``; -1: it has none."""
    labels: list[str]
    unused: Unused


def _shard_images(
    members: Iterable[ShardMember],
    path: Place,
    shard: str,
    unwanted: Exclusion,
    also: tuple[str, ...],
) -> _ShardImages:
    found, unused = images_of(members, path, shard, unwanted, also)
    letters, lengths = packed(one.name for one in found)
    labels = list(dict.fromkeys(one.label for one in found if one.label is not None))
    number_of = {label: number for number, label in enumerate(labels)}
    return _ShardImages(
        letters,
        lengths,
        np.array([one.start for one in found], dtype=np.int64),
        np.array([one.size for one in found], dtype=np.int64),
        np.array([number_of.get(one.label or "", -1) for one in found], dtype=np.int32),
        labels,
        unused,
    )


def _joined(shards: list[str], found: list[_ShardImages], unlabelled: Unlabelled) -> ShardedImages:
    """The images of all shards, one shard after the other. Empties ``found``, as two copies may not fit in memory."""
    num_images = [len(one.lengths) for one in found]
    texts = [one.labels for one in found]
    columns = {name: [getattr(one, name) for one in found] for name in _ARRAYS}
    found.clear()

    def column(name: str) -> npt.NDArray[Any]:
        joined: npt.NDArray[Any] = np.concatenate(columns[name])
        columns[name].clear()
        return joined

    letters, lengths = column("letters"), column("lengths")
    which = np.repeat(np.arange(len(shards), dtype=np.int32), num_images)
    paths = PackedNames(
        [f"{shard}/" for shard in shards], which, letters, starts_of(lengths), lengths
    )
    starts, sizes = column("starts"), column("sizes")
    if sizes.max() < 1 << 32:
        sizes = sizes.astype(np.uint32)  # half the memory for very many
    members = Members(tuple(shards), which, starts, sizes)
    labelled = np.concatenate([one >= 0 for one in columns["label_of"]])
    if not labelled.any():
        return ShardedImages(paths, None, members, [])
    remarks = []
    if num_missing := int((~labelled).sum()):
        _refuse_or_warn(paths, labelled, unlabelled)
        if unlabelled == "keep_all":
            return ShardedImages(paths, None, members, [])
        rows = np.flatnonzero(labelled)
        paths, members = paths.at(rows), members.at(rows)
        remarks = [f"images without a .{CLASS_SUFFIX} beside them left out: {num_missing}"]
    return ShardedImages(paths, _labels(columns["label_of"], texts), members, remarks)


def _refuse_or_warn(
    paths: PackedNames, labelled: npt.NDArray[np.bool_], unlabelled: Unlabelled
) -> None:
    """DataError for images without a class, or a warning where those of the others are not used for that reason."""
    some = (
        f"{(~labelled).sum()} of {len(paths)} images have no .{CLASS_SUFFIX} beside them, and others have one "
        f"(first: {printable(paths[int(labelled.argmin())])})"
    )
    if unlabelled == "refuse":
        raise DataError(
            f"{some}. Give every image a class, or none; leave out with data.exclude what is not an image of its own."
        )
    if unlabelled == "keep_all":
        warnings.warn(
            f"{some}: all images are taken without labels. Give every image a class, or use those that are there with "
            "`sdclr finetune`; leave out with data.exclude what is not an image of its own.",
            stacklevel=5,
        )


def _labels(numbers: list[npt.NDArray[np.int32]], texts: list[list[str]]) -> list[str]:
    """The class of each image that has one. ``numbers``: by shard, which of the ``texts`` of that shard."""
    one_text: dict[str, str] = {}
    found: list[str] = []
    for row, of_shard in enumerate(numbers):
        # the same text for the same class in all shards: one object each
        own = [one_text.setdefault(text, text) for text in texts[row]]
        found += [own[number] for number in of_shard.tolist() if number >= 0]
    return found


def _images_on_disk(
    root: Path, shards: list[str], unwanted: Exclusion, also: tuple[str, ...]
) -> tuple[list[_ShardImages], tuple[FileState, ...]]:
    """The images of each shard of a folder, one after the other, and the state of each before it was read."""
    for shard in shards:
        _require_shard(root / shard)
    states = [FileState.of((root / shard).stat()) for shard in shards]
    sizes = {shard: state.size for shard, state in zip(shards, states, strict=True)}
    found: list[_ShardImages] = []
    with headers_read(f"reading the headers of {len(shards)} shards", sizes) as reach:
        for shard in shards:
            path = root / shard
            members = _with_progress(members_on_disk(path), partial(reach, shard))
            try:
                with _tar_errors(path):
                    found.append(_shard_images(members, path, shard, unwanted, also))
            except OSError as error:
                raise DataError(
                    f"shard {printable(path)} cannot be read: {error.strerror}."
                ) from None
            reach(shard, sizes[shard])
    return found, tuple(states)


def _with_progress(members: Iterable[ShardMember], reached: Reached) -> Iterator[ShardMember]:
    for number, member in enumerate(members):
        if number % _MEMBERS_PER_REPORT == 0:
            reached(member.start)
        yield member


def _images_at(
    root: Address, shards: list[str], unwanted: Exclusion, also: tuple[str, ...]
) -> tuple[list[_ShardImages], tuple[Version, ...]]:
    """The images of shards at addresses, and the state of each: many requests are made at once.

    The states of all are requested first, so that a missing shard is reported before the others are indexed.
    """
    require_valid()
    # with globs, all members are needed to find which globs have matched, whatever images were kept
    what = "members" if unwanted else kept_images_name(also)
    versions: dict[str, Version] = {}
    indexed = set[str]()
    found: dict[str, _ShardImages] = {}

    def ask(shard: str) -> None:
        address = str(root / shard)
        versions[shard] = version_of(address)
        if is_indexed(address, versions[shard], what):
            indexed.add(shard)

    with late_task(f"requesting {len(shards)} shards", len(shards), "shards") as task:
        _at_once(ask, shards, task.advance)

    def read(shard: str) -> None:
        address, version = root / shard, versions[shard]
        reached = partial(reach, shard)
        with _tar_errors(address):
            if unwanted:
                members = indexed_members(str(address), version, reached)
                found[shard] = _shard_images(members, address, shard, unwanted, also)
            else:
                found[shard] = _kept_images(address, shard, version, also, reached)
        reached(version.size)

    sizes = {shard: version.size for shard, version in versions.items()}
    with headers_read(f"indexing {len(shards) - len(indexed)} shards", sizes, indexed) as reach:
        _at_once(read, shards, lambda _: None)
    return [found[one] for one in shards], tuple(versions[one] for one in shards)


def _at_once(
    work: Callable[[str], None], shards: list[str], advance: Callable[[int], None]
) -> None:
    """Call ``work`` for each of the shards, for many at once."""

    def piece(rows: range) -> None:
        for row in rows:
            work(shards[row])

    in_pieces(len(shards), 1, piece, advance, num_workers=INDEX_CONNECTIONS)


def _kept_images(
    address: Address, shard: str, version: Version, also: tuple[str, ...], reached: Reached
) -> _ShardImages:
    """The images of a shard at an address, where nothing is left out by name: found once, and then kept."""

    def look() -> Arrays:
        members = indexed_members(str(address), version, reached)
        images = _shard_images(members, address, shard, Exclusion(), also)
        facts = {"labels": images.labels, "unused": vars(images.unused)}
        return Arrays(facts, {name: getattr(images, name) for name in _ARRAYS})

    kept = kept_arrays(str(address), version, kept_images_name(also), look)
    unused = Unused(**kept.facts["unused"])
    for name in ("beside", "pictures", "others"):
        setattr(unused, name, Counter(kept.facts["unused"][name]))
    arrays = {name: kept.arrays[name] for name in _ARRAYS}
    return _ShardImages(**arrays, labels=kept.facts["labels"], unused=unused)


def kept_images_name(also: tuple[str, ...]) -> str:
    """The name of the file of a shard's images, which differs where other members would count as images."""
    digest = hashlib.blake2b(repr(rules(also)).encode(), digest_size=8).hexdigest()
    return f"images-{digest}"


@contextlib.contextmanager
def _tar_errors(shard: Place) -> Iterator[None]:
    try:
        yield
    except tarfile.ReadError as error:
        raise DataError(
            f"shard {printable(shard)} cannot be read as an uncompressed tar: {error}. Copy it again if it is cut off; "
            "unpack it if it is compressed (images in it are)."
        ) from None


def _require_shard(shard: Path) -> None:
    """DataError for anything that is not a regular file."""
    if not shard.is_file():
        raise DataError(f"shard {printable(shard)} is a folder, a pipe, a socket or a device.")
