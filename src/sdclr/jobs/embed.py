"""JOB: a trained backbone + any images -> their features in one file, streamed and resumable.

N images, F feature dim. Finished parts are kept beside the output in OUT.partial/ until all are done; the same command
resumes from there. Trains nothing and is independent of the method.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sdclr.backbones.backbone import other_channels
from sdclr.backbones.weights import load_backbone, read_backbone
from sdclr.compute.device import placed_on, resolve_device
from sdclr.compute.process_state import silenced_warnings
from sdclr.data import DataConfig, Images, build_data
from sdclr.data.decoding.decode import printable
from sdclr.data.rows_wanted import rows_wanted
from sdclr.data.trained_images import images_of, warn_of_changes
from sdclr.data.usable import skip_advised, usable_images
from sdclr.errors import ConfigError
from sdclr.evaluation.features import extract_features
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.world import MAY_WRITE, World, shared_work
from sdclr.run import Run
from sdclr.safe_text import as_text, csv_row, shown
from sdclr.storage.durable_files import (
    storage_errors,
    sync_folder,
    temporary_name,
    write_atomically,
)
from sdclr.storage.output_files import lexists, output_file, require_free
from sdclr.storage.row_parts import RowParts

FORMATS = (".npz", ".parquet", ".csv")


def embed(
    source: Path | str,
    data: DataConfig,
    out: Path | str,
    *,
    device: str = "auto",
    progress: AnyProgress | None = None,
    overwrite: bool = False,
    as_trained: bool = False,
    images_per_shard: int | None = None,
) -> Path:
    """Write the features of every image of ``data`` (its training part) to ``out``, a .npz, .parquet or .csv file.

    ``source``: a run folder or backbone.safetensors. The file holds ``path`` [N] (the position, for arrays),
    ``features`` float32 [N, F], and ``label`` with ``class_names`` where labels are known. The other columns of a table
    (camera, date, ...) are arrays of text [N] under their own names; a column whose name is taken or is not valid for
    an array is called table_NAME, with _ for every character but letters, digits, spaces, dots and hyphens. An
    interrupted call resumes where it stopped, even if image files have been added, removed or changed since: unchanged
    images are not computed again, unless the backbone has changed. Files that cannot be decoded are an error, or
    are left out with a warning (data.on_error=skip). ``as_trained``: ``data`` should be the images that the run
    ``source`` was trained on; a warning lists any that are not. ``images_per_shard``: ``out`` is a new folder instead,
    with files part-00000.npz, part-00001.npz, ... of that many images each, and index.json. Several processes
    (torchrun) divide the images and write the same file as a single one would. Raises ConfigError for an unsupported
    output format, and for an existing output unless ``overwrite``; RunFolderError if another process is writing it, or
    if OUT.partial was not made by this command.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> import numpy as np
    >>> out = sdclr.embed(run, config.data, "features.npz", overwrite=True)
    >>> np.load(out)["features"].shape
    (1437, 32)
    """
    out, show = Path(out), progress or NoProgress()
    _check_output(out, images_per_shard)
    if data.store is not None:
        raise ConfigError(
            "data.store saves decoding when images are seen again; embed sees each once. Leave it out."
        )
    replaced = overwrite and images_per_shard is None
    trained = Run(source) if as_trained else None
    finish: Callable[..., None] = partial(_finish, overwrite=replaced)
    if images_per_shard is not None:
        finish = partial(_finish_shards, images_per_shard=images_per_shard)
    with shared_work(f"embed {out.absolute()}") as world:
        if world.is_first:
            with output_file(out, overwrite=replaced):
                RowParts.require_ours(RowParts.beside(out), "embed")
                world.messages.publish(MAY_WRITE, {})
                _write_features(trained, source, data, out, device, show, finish, world)
        else:
            with silenced_warnings():  # the first process gives the same warnings
                _write_features(trained, source, data, out, device, NoProgress(), finish, world)
    return out


def _write_features(
    trained: Run | None,
    source: Path | str,
    data: DataConfig,
    out: Path,
    device: str,
    show: AnyProgress,
    finish: Callable[[RowParts, Path, dict[str, Any]], None],
    world: World,
) -> None:
    backbone = load_backbone(source)
    size = read_backbone(source).require_image_size()
    ours = [RowParts.beside(out)]  # a folder of .npy files, possibly among the images
    found = (
        build_data(data, exclude=ours)
        if trained is None
        else images_of(trained, data, "data.path=", exclude=ours)
    )
    for remark in found.remarks:
        show.print(remark)
    if trained is not None:
        warn_of_changes(trained, found)
    images, _ = usable_images(found.train, data, show)
    if images.channels != backbone.channels:  # before OUT.partial is created
        raise other_channels(images.channels, backbone.channels)
    columns = _other_columns(images, out)  # before any work: it may be an error
    where = world.device(resolve_device(device))
    backbone = placed_on(backbone, where)
    identity, keys = rows_wanted(found, images)
    identity = f"{_digest_of_weights(source)} {size} {identity}"
    parts = RowParts(RowParts.beside(out), identity, keys=keys, team=world.messages)

    def features_of(
        places: npt.NDArray[np.int64], advance: Callable[[int], None]
    ) -> npt.NDArray[np.float32]:
        part = images.at(places)
        return (
            extract_features(backbone, part.stills(size), advance, partial(_name, part))
            .float()
            .numpy()
        )

    with skip_advised(data):
        parts.compute(len(images), f"features of {len(images)} images", features_of, show)
    if not world.is_first:
        return
    facts: dict[str, Any] = {"path": _names(images)}
    if images.labels is not None:
        facts |= {"label": images.labels, "class_names": np.array(found.class_names)}
    facts |= columns
    finish(parts, out, facts)


def _check_output(out: Path, images_per_shard: int | None) -> None:
    if images_per_shard is not None:
        if images_per_shard < 1:
            raise ConfigError(f"--shards must be at least 1 image a shard, got {images_per_shard}.")
        if out.suffix in FORMATS:
            raise ConfigError(
                f"--shards writes a folder of .npz files; give --out without {out.suffix}."
            )
        if lexists(out):
            raise ConfigError(f"{out} exists; --shards makes a new folder. Choose another --out.")
        return
    if out.suffix not in FORMATS:
        raise ConfigError(f"--out must be named *.npz, *.parquet or *.csv, got {out}.")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            'a .parquet file needs pyarrow: pip install "sdclr[parquet]", or write a .npz.'
        )


def _digest_of_weights(source: Path | str) -> str:
    path = Path(source)
    weights = (path / "backbone.safetensors" if path.is_dir() else path).read_bytes()
    return hashlib.sha256(weights).hexdigest()


RESERVED = frozenset({"path", "features", "label", "class", "class_names", "file", "allow_pickle"})
"""Names that a table's columns cannot have: ours, and two that NumPy's savez uses itself."""
LARGEST_COLUMN = 1 << 30
"""Bytes of a column in a .npz, where every text takes as much space as the longest."""


def _other_columns(images: Images, out: Path) -> dict[str, npt.NDArray[Any]]:
    """A table's columns other than path and label: arrays of text [N] under safe, distinct names."""
    found: dict[str, npt.NDArray[Any]] = {}
    if images.files is None:
        return found
    for name, cells in images.files.columns.items():
        longest = max((len(cell) for cell in cells), default=0)
        if out.suffix not in (".parquet", ".csv") and 4 * longest * len(cells) > LARGEST_COLUMN:
            raise ConfigError(
                f"column {shown(name, 80)} has a text of {longest:,} characters, and a .npz takes as much for each of "
                f"{len(cells):,} images. Write a .parquet, or take the column out of the table."
            )
        found[_array_name(name, found, is_csv=out.suffix == ".csv")] = (
            cells if out.suffix == ".parquet" else cells.astype(np.str_)
        )
    return found


def _array_name(column: str, taken: Container[str], *, is_csv: bool) -> str:
    """A name that is valid for an array: not a path, not one of ours, not taken.

    ``is_csv``: whether f0, f1, ... are reserved, too.
    """
    safe = re.sub(r"[^\w .-]", "_", column).lstrip(".").strip() or "_"
    ours = r"(arr_|f)[0-9]+" if is_csv else r"arr_[0-9]+"
    if safe != column or safe in RESERVED or re.fullmatch(ours, safe):
        safe = f"table_{safe}"
    name, times = safe[:200], 1
    while name in taken:
        times += 1
        name = f"{safe[:200]}_{times}"
    return name


def _name(images: Images, row: int) -> str:
    return printable(str(_names(images)[row]))


def _names(images: Images) -> npt.NDArray[np.str_]:
    return np.array(images.names)


def _finish(parts: RowParts, out: Path, facts: dict[str, Any], *, overwrite: bool) -> None:
    """Join the parts into the requested output and remove them."""

    def write(file: IO[bytes]) -> None:
        if out.suffix == ".npz":
            np.savez(file, features=parts.as_mapped_file(), **facts)
        elif out.suffix == ".csv":
            _write_csv(file, parts.parts(), facts)
        else:
            _write_parquet(file, parts.parts(), facts)

    parts.keep_as(out, write, overwrite=overwrite)


def _finish_shards(
    parts: RowParts, out: Path, facts: dict[str, Any], *, images_per_shard: int
) -> None:
    """Write a folder of .npz files with the same arrays as one file, and an index; complete or absent."""
    temporary = temporary_name(out)
    try:
        with storage_errors(out):
            temporary.mkdir()
            features = parts.as_mapped_file()
            shards: list[dict[str, Any]] = []
            for first in range(0, len(features), images_per_shard):
                rows = slice(first, min(first + images_per_shard, len(features)))
                name = f"part-{len(shards):05d}.npz"
                arrays = {
                    key: values if key == "class_names" else values[rows]
                    for key, values in facts.items()
                }
                with (temporary / name).open("xb") as file:
                    np.savez(file, features=features[rows], **arrays)
                    file.flush()
                    os.fsync(file.fileno())
                shards.append({"file": name, "first": first, "num_images": rows.stop - first})
            index = {
                "num_images": len(features),
                "feature_dim": features.shape[1],
                "columns": ["features", *facts],
                "shards": shards,
            }
            write_atomically(temporary / "index.json", json.dumps(index, indent=1) + "\n")
            require_free(out, overwrite=False)  # hours may have passed since the first check
            os.replace(temporary, out)
            sync_folder(out.parent)
            parts.remove()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_parquet(
    file: IO[bytes], parts: Iterator[npt.NDArray[np.float32]], facts: dict[str, Any]
) -> None:
    """Columns path, features (a fixed-size list), label and class if known, and a table's; one row group per part."""
    import pyarrow
    import pyarrow.parquet

    writer, first = None, 0
    for part in parts:
        rows = slice(first, first + len(part))
        first += len(part)
        values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.ravel()), part.shape[1])
        columns = {
            "path": pyarrow.array([as_text(path) for path in facts["path"][rows].tolist()]),
            "features": values,
        }
        if "label" in facts:
            labels = facts["label"][rows]
            columns |= {
                "label": pyarrow.array(labels),
                "class": pyarrow.array(facts["class_names"][labels].tolist()),
            }
        for name in [name for name in facts if name not in RESERVED]:
            columns[name] = pyarrow.array(
                [as_text(cell) for cell in facts[name][rows]], pyarrow.string()
            )
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_csv(
    file: IO[bytes], parts: Iterator[npt.NDArray[np.float32]], facts: dict[str, Any]
) -> None:
    """Columns path, label and class where known, a table's, then f0, f1, ...; numbers that read back to the same bits.

    For tools that read no other format: it takes three times the space of a .npz.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    others = [name for name in facts if name not in RESERVED]
    first = 0
    for part in parts:
        if first == 0:
            known = ["label", "class"] if "label" in facts else []
            features = [f"f{number}" for number in range(part.shape[1])]
            writer.writerow(["path", *known, *csv_row(map(as_text, others)), *features])
        for row, values in enumerate(part, start=first):
            cells: list[object] = [as_text(str(facts["path"][row]))]
            if "label" in facts:
                label = int(facts["label"][row])
                cells += [label, as_text(str(facts["class_names"][label]))]
            cells += [as_text(str(facts[name][row])) for name in others]
            writer.writerow([*csv_row(cells), *map(str, values)])
        first += len(part)
    text.detach()
