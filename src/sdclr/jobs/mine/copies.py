"""--copy-to: copy the chosen pictures to a folder of their own, under safe and distinct names."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path

import torch

from sdclr.data import Images
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import Member, open_bytes
from sdclr.errors import ConfigError, RunFolderError
from sdclr.planes import in_colours
from sdclr.presentation.mined import MinedImages, Rows
from sdclr.presentation.progress import AnyProgress
from sdclr.storage.durable_files import is_leftover, make_folder, storage_errors, write_atomically
from sdclr.storage.output_files import require_parent

LONGEST_STEM = 80
UNFINISHED = ".sdclr-copying"
"""A file in the folder until it is complete: what is there was copied by us."""
_COPY = re.compile(r"\d{4,}_[A-Za-z0-9_.-]*$")
"""The names of copies."""


def require_empty(folder: Path, out: Path | None = None, photos: Path | None = None) -> None:
    """Raise ConfigError unless ``folder`` is missing, empty or unfinished: nothing else is ever overwritten.

    It may be a new folder in ``out``, which may be missing too; it may not be ``out`` or contain it. Elsewhere it may
    not be in the folder ``photos`` that is mined, whose images the copies would be next time.
    """
    # not Path.resolve: for circular links it raises an unexpected error
    place, home = (Path(os.path.realpath(path)) for path in (folder, out or folder))
    if out is not None and place in (home, *home.parents):
        raise ConfigError(
            f"--copy-to {folder} is the folder of --out {out} or holds it; "
            f"give another one, such as {out / 'top'}."
        )
    if photos is not None and home not in place.parents:
        mined = Path(os.path.realpath(photos))
        if mined in (place, *place.parents):
            raise ConfigError(
                f"--copy-to {folder} is in {photos}, whose images are mined: the copies would be images of it next "
                f"time. Give a folder elsewhere, or one of the results, such as {(out or folder) / 'top'}."
            )
    with storage_errors(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            raise RunFolderError(f"--copy-to {folder} is not a folder; choose another.")
        if folder.is_dir() and os.listdir(folder) and not _is_unfinished(folder):
            raise ConfigError(f"--copy-to {folder} holds files already; give a new folder.")
        in_out = out is not None and place.parent == home
        if not in_out:
            require_parent(folder, "--copy-to")


def copy_chosen(
    mined: MinedImages, images: Images, listed_row: Rows, folder: Path, top: int, show: AnyProgress
) -> int:
    """Copy the first ``top`` images of the sheet; return how many were copied.

    A file is copied unchanged; a box of a picture, or an image in memory, becomes a PNG. Names
    begin with the place on the sheet: 0001_NAME. What a killed call left there is copied again.
    """
    require_empty(folder)
    make_folder(folder)
    with storage_errors(folder):
        (folder / UNFINISHED).touch()
        for name in os.listdir(folder):
            if name != UNFINISHED:
                (folder / name).unlink()
    rows = [row for row in mined.sheet[:top].tolist() if listed_row[row] >= 0]
    task = show.add(f"copying {len(rows)} images", total=len(rows), unit="images")
    digits = max(4, len(str(len(rows))))
    for place, row in enumerate(rows, start=1):
        position = int(listed_row[row])
        files = images.files
        whole = files is not None and files.boxes is None
        name = f"{place:0{digits}d}_{safe_name(mined.names[row], keep_suffix=whole)}"
        path = folder / (name if whole else f"{name}.png")
        with storage_errors(path):
            if whole:
                assert files is not None
                _copy_file(files, position, path)
            else:
                write_atomically(path, _png(images, position))
        show.advance(task)
    show.finish(task)
    with storage_errors(folder):
        (folder / UNFINISHED).unlink()
    return len(rows)


def _is_unfinished(folder: Path) -> bool:
    """Whether the folder holds only what a killed call has copied."""
    names = os.listdir(folder)
    return UNFINISHED in names and all(
        name == UNFINISHED or _COPY.match(name) or is_leftover(name) for name in names
    )


def safe_name(name: str, *, keep_suffix: bool) -> str:
    """The last part of a name, with _ for characters that may be unsafe in a shell, spreadsheet or other system.

    >>> safe_name("a/=b c.jpg", keep_suffix=True), safe_name("x.png#1,2,3,4", keep_suffix=False)
    ('_b_c.jpg', 'x_png_1_2_3_4')
    """
    stem, dot, suffix = name.rsplit("/", 1)[-1].rpartition(".")
    if not keep_suffix or not dot or not re.fullmatch(r"[A-Za-z0-9]{1,8}", suffix):
        stem, suffix = name.rsplit("/", 1)[-1], ""
    safe = re.sub(r"[^A-Za-z0-9-]", "_", stem)[:LONGEST_STEM]
    return f"{safe}.{suffix}" if suffix else safe


def _copy_file(files: ImageFiles, position: int, path: Path) -> None:
    source = files.file(position)
    if isinstance(source, Member):
        with open_bytes(source) as member, path.open("xb") as file:
            shutil.copyfileobj(member, file)
    else:
        with open(source, "rb") as original, path.open("xb") as file:
            shutil.copyfileobj(original, file)
        shutil.copystat(source, path)


def _png(images: Images, position: int) -> bytes:
    from PIL import Image

    one = images.at(torch.tensor([position]).numpy())
    if one.files is not None:
        one = one.to(torch.device("cpu"))
    ((_, (pixels,)),) = one.looked_at(1, lambda picture: picture.pixels(0, 0, *picture.size))
    buffer = io.BytesIO()
    Image.fromarray(in_colours(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
