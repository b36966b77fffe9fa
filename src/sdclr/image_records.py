"""What a run records for each training image by epoch: RUN/image_records.f32, and RUN/images.parquet at its end.

N images, E epochs. The first is float32 [E, N, 3], little-endian, one epoch after another, so that it can grow, be cut
where a run resumes, and be mapped; the second has the same contents as a table.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.run.files import RECORDS_FILE, TABLE_FILE
from sdclr.safe_text import visible
from sdclr.storage.durable_files import append_bytes, storage_errors, temporary_name

COLUMNS = ("loss", "hardest_mass", "disagreement")
"""For an image in an epoch: its loss; COLT's mass of its 10 hardest negatives at temperature 0.2 (low = rare); 1 -
cosine of its two projections, from the two branches where there is a competitor."""
MEMORY = 0.97
"""Momentum of the moving average of the loss, as in BCL (Zhou et al., ICML 2022)."""
BYTES_EACH = 4 * len(COLUMNS)
"""Bytes for an image in an epoch."""


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """Records of N images over E epochs, NaN where an epoch left an image out.

    >>> records = ImageRecords(np.ones((2, 3, 3), np.float32))
    >>> records.losses.shape, records.num_epochs
    (torch.Size([2, 3]), 2)
    """

    values: npt.NDArray[np.float32]
    """[E, N, 3], in the order of COLUMNS; mapped where it comes from a run."""

    @property
    def num_epochs(self) -> int:
        """E."""
        return len(self.values)

    @property
    def losses(self) -> Tensor:
        """[E, N]"""
        return self._column(0)

    @property
    def masses(self) -> Tensor:
        """[E, N], of the 10 hardest negatives; low = rare."""
        return self._column(1)

    @property
    def disagreements(self) -> Tensor:
        """[E, N], 1 - cosine of the two projections."""
        return self._column(2)

    def _column(self, number: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.values[:, :, number]))


def moving_average(values: Tensor, momentum: float) -> Tensor:
    """Exponential moving average over epochs [E, N], float64 [N], NaN where an image never occurred.

    m = v at the first occurrence, later m <- (1 - momentum) v + momentum m.

    >>> moving_average(torch.tensor([[1.0], [3.0]]), momentum=0.5).tolist()
    [2.0]
    """
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}.")
    memory = values[0].double().clone()
    for epoch in values[1:].double():
        memory = next_average(memory, epoch, momentum)
    return memory


def next_average(memory: Tensor, epoch: Tensor, momentum: float) -> Tensor:
    """The average [N] after one more epoch [N], which has NaN where an image did not occur."""
    later = (1 - momentum) * epoch + momentum * memory
    met = torch.where(memory.isnan(), epoch, later)
    return torch.where(epoch.isnan(), memory, met)


def append_records(folder: Path, records: Tensor) -> None:
    """Append one more epoch [N, 3] of a run; it is on the disk when this returns."""
    append_bytes(folder / RECORDS_FILE, records.numpy().astype("<f4").tobytes())


def cut_records(folder: Path, epochs: int, num_images: int) -> None:
    """Remove records written after the checkpoint that a run resumes from; lost epochs become NaN, with a warning."""
    path, size = folder / RECORDS_FILE, epochs * num_images * BYTES_EACH
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        warnings.warn(
            f"{path} has {found} bytes, and had {size} when the checkpoint was written: records of some epochs are "
            "lost and are NaN from here on. The weights are not affected.",
            stacklevel=3,
        )
        whole = found // (num_images * BYTES_EACH)
        with storage_errors(path):
            if path.exists():
                os.truncate(path, whole * num_images * BYTES_EACH)
        for _ in range(whole, epochs):
            append_records(folder, torch.full((num_images, len(COLUMNS)), torch.nan))
    elif found > size:
        with storage_errors(path):
            os.truncate(path, size)


def read_records(folder: Path, num_images: int, num_epochs: int | None = None) -> ImageRecords:
    """The records of a run of ``num_images`` training images (and ``num_epochs`` epochs, where that is known), mapped.

    Raises MissingInputError where it kept none, and DataError where the file is damaged or of other images.
    """
    path = folder / RECORDS_FILE
    if not path.is_file():
        raise MissingInputError(
            f"{path} does not exist: the run kept no records of its images. Train with record_images=true."
        )
    size = path.stat().st_size
    each = max(num_images, 1) * BYTES_EACH
    if size == 0 or size % each or num_epochs not in (None, size // each):
        raise DataError(f"{path} is damaged, or holds records of other than {num_images} images.")
    shape = (size // (num_images * BYTES_EACH), num_images, len(COLUMNS))
    return ImageRecords(np.memmap(path, dtype="<f4", mode="r", shape=shape))


def write_table(folder: Path, names: Sequence[str]) -> None:
    """RUN/images.parquet: epoch, path, COLUMNS and the loss's moving average, a row for each image and epoch.

    Without pyarrow, only warns what is missing; the records themselves exist in any case.
    """
    if importlib.util.find_spec("pyarrow") is None:
        warnings.warn(
            f'{TABLE_FILE} needs pyarrow: pip install "sdclr[parquet]". The records are in {RECORDS_FILE}.',
            stacklevel=2,
        )
        return
    import pyarrow
    import pyarrow.parquet

    records = read_records(folder, len(names))
    paths = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(np.arange(len(names), dtype=np.int32)), [visible(name) for name in names]
    )
    fields = [("epoch", pyarrow.int32()), ("path", paths.type)]
    fields += [(name, pyarrow.float32()) for name in (*COLUMNS, "loss_average")]
    schema = pyarrow.schema(fields)
    memory: Tensor | None = None
    path = folder / TABLE_FILE
    temporary = temporary_name(path)
    with storage_errors(path), pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for epoch, rows in enumerate(records.values, start=1):
            loss = torch.from_numpy(rows[:, 0].astype(np.float64))
            memory = loss if memory is None else next_average(memory, loss, MEMORY)
            columns = [pyarrow.array(rows[:, column]) for column in range(len(COLUMNS))]
            columns.append(pyarrow.array(memory.numpy().astype(np.float32)))
            epochs = pyarrow.array(np.full(len(names), epoch, dtype=np.int32))
            writer.write_table(pyarrow.table([epochs, paths, *columns], schema=schema))
    with storage_errors(path):
        os.replace(temporary, path)
