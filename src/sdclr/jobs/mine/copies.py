"""--copy-to: copy the chosen pictures to a folder of their own, under safe and distinct names."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from sdclr.data import Images
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import Member, open_bytes
from sdclr.errors import ConfigError, RunFolderError, SdclrError
from sdclr.jobs.mine.folder import read_state
from sdclr.planes import in_colours
from sdclr.presentation.mined import MinedImages, Rows
from sdclr.presentation.progress import AnyProgress
from sdclr.run.files import looks_like_a_run
from sdclr.storage.durable_files import make_folder, storage_errors
from sdclr.storage.locks import Lock
from sdclr.storage.output_files import require_parent

LONGEST_STEM = 80
UNFINISHED = ".sdclr-copying"
"""A file in the folder until the call is recorded in its --out: a line of JSON for that folder, and for each name of a
copy. A name is recorded once no file has it, and nothing else is ever removed."""
_LOCK = f"{UNFINISHED}.lock"
_COPY = re.compile(r"\d{4,}_[A-Za-z0-9_.-]*")
_RECORDED = {"recorded": True}
_OURS = {UNFINISHED, _LOCK, f"{_LOCK}.json"}


def require_empty(folder: Path, out: Path | None = None, photos: Path | None = None) -> None:
    """Raise ConfigError unless ``folder`` is missing, empty or unfinished: nothing else is ever overwritten.

    It may be a new folder in ``out``, which may be missing too; it may not be ``out`` or contain it. It may not be in
    the folder ``photos`` that is mined, unless in a run there: the copies would be images of it next time.
    """
    # not Path.resolve: for circular links it raises an unexpected error
    place, home = (Path(os.path.realpath(path)) for path in (folder, out or folder))
    if photos is not None and _would_be_listed(place, Path(os.path.realpath(photos))):
        raise ConfigError(
            f"--copy-to {folder} is in {photos}, whose images are mined: the copies would be images of it next time. "
            "Give a folder elsewhere."
        )
    if out is not None and place in (home, *home.parents):
        raise ConfigError(
            f"--copy-to {folder} is the folder of --out {out} or holds it; "
            f"give another one, such as {out / 'top'}."
        )
    with storage_errors(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            raise RunFolderError(f"--copy-to {folder} is not a folder; choose another.")
        if folder.is_dir() and os.listdir(folder) and not _is_unfinished(folder):
            raise ConfigError(f"--copy-to {folder} holds files already; give a new folder.")
        in_out = out is not None and place.parent == home
        if not in_out:
            require_parent(folder, "--copy-to")


@contextmanager
def claimed_copies(folder: Path | None) -> Iterator[None]:
    """Hold ``folder``, if any, for the copies; InUseError where another call does, ConfigError if it is not empty.

    It is made, and removed again if nothing was copied. The lock is inside: a path beside it depends on its spelling.
    """
    if folder is None:
        yield
        return
    is_new = not folder.is_dir()
    make_folder(folder)
    try:
        what = f"--copy-to {folder}"
        with Lock(folder / _LOCK, what, removed=True, advice="choose another folder"):
            require_empty(folder)  # again, now that no other call copies there
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it has copies
                folder.rmdir()


def copy_chosen(
    mined: MinedImages,
    images: Images,
    listed_row: Rows,
    folder: Path,
    top: int,
    show: AnyProgress,
    out: Path,
) -> int:
    """Copy the first ``top`` images of the sheet to ``folder``, which is claimed; return how many were copied.

    A file is copied unchanged; a box of a picture, or an image in memory, becomes a PNG. Names
    begin with the place on the sheet: 0001_NAME. What a killed call left there is copied again.
    """
    rows = [row for row in mined.sheet[:top].tolist() if listed_row[row] >= 0]
    files = images.files
    whole = files is not None and files.boxes is None
    digits = max(4, len(str(len(rows))))
    names = [
        f"{place:0{digits}d}_{safe_name(mined.names[row], keep_suffix=whole)}{'' if whole else '.png'}"
        for place, row in enumerate(rows, start=1)
    ]
    require_empty(folder)  # again: hours may have passed
    with storage_errors(folder):
        for name in _copied_before(folder):
            (folder / name).unlink(missing_ok=True)
    task = show.add(f"copying {len(rows)} images", total=len(rows), unit="images")
    with storage_errors(folder), (folder / UNFINISHED).open("w", encoding="utf-8") as record:
        record.write(f"{json.dumps({'out': os.path.realpath(out)})}\n")
        for name, row in zip(names, rows, strict=True):
            path, position = folder / name, int(listed_row[row])
            if os.path.lexists(path):
                raise ConfigError(f"--copy-to: {path} was put there by somebody else meanwhile.")
            record.write(f"{json.dumps(name)}\n")
            record.flush()
            with storage_errors(path):
                if whole:
                    assert files is not None
                    _copy_file(files, position, path)
                else:
                    with path.open("xb") as file:
                        file.write(_png(images, position))
            show.advance(task)
    show.finish(task)
    return len(rows)


def copies_are_whole(folder: Path) -> None:
    """Remove the record of what was copied: from now on, no other call copies there."""
    with storage_errors(folder):
        with (folder / UNFINISHED).open("a", encoding="utf-8") as record:
            record.write(f"{json.dumps(_RECORDED)}\n")  # whatever becomes of --out
        (folder / UNFINISHED).unlink()


def _copied_before(folder: Path) -> list[str]:
    """The names that a killed call has recorded; none where no call was killed, or where it was done but for this."""
    try:
        text = (folder / UNFINISHED).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.split("\n")[:-1]]  # whole lines
    except (OSError, ValueError):
        return []
    if _RECORDED in lines or any(_is_recorded(line, folder) for line in lines[:1]):
        return []
    return [name for name in lines if isinstance(name, str) and _COPY.fullmatch(name)]


def _is_recorded(line: Any, folder: Path) -> bool:
    """Whether the --out in a record's first line says that the call is finished which copied to ``folder``."""
    if not isinstance(line, dict) or not isinstance(line.get("out"), str):
        return False
    try:
        mined = read_state(Path(line["out"]))
    except SdclrError:
        return False
    return mined.state == "finished" and mined.copied_to == os.path.realpath(folder)


def _is_unfinished(folder: Path) -> bool:
    """Whether the folder holds only what a killed call has copied."""
    ours = {*_OURS, *_copied_before(folder)}
    with os.scandir(folder) as entries:
        return all(one.name in ours and one.is_file(follow_symlinks=False) for one in entries)


def _would_be_listed(place: Path, photos: Path) -> bool:
    """Whether images in ``place`` are among those of the folder ``photos``: in it, and not in a run or hidden there."""
    below = [place, *place.parents]
    if photos not in below:
        return False
    on_the_way = below[: below.index(photos)]
    return not any(one.name.startswith(".") or _is_run(one) for one in on_the_way)


def _is_run(folder: Path) -> bool:
    with storage_errors(folder):
        return folder.is_dir() and looks_like_a_run(os.listdir(folder))


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
