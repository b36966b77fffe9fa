"""Hostile inputs that know their format: for each, an endless series of files and what reads them.

Case n of a format is a function of n alone. :func:`violations` runs some cases and reports whatever is not one of our
own errors, and whatever reads more bytes or takes more memory than its format may. As a program (python
hostile_formats.py FORMAT FIRST COUNT [BOUND]) it does so under limits of memory and time, with one bound of the
package taken out, to show that the series would notice.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from counted_work import bytes_read
from hostile_files import Witness, header, peak_bytes
from sdclr import PretrainConfig, Run, load_backbone, recipe
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.data.decoding import npy_files
from sdclr.data.decoding.decode import open_image, read_size
from sdclr.data.sources.arrays import read_npz
from sdclr.data.sources.image_lists import read_listed_images, read_txt_list
from sdclr.data.sources.split_files import read_image_list, read_positions
from sdclr.data.sources.tar_shards import read_shards
from sdclr.errors import SdclrError
from sdclr.jobs.report import build_report
from sdclr.jobs.status import read_status
from sdclr.run.consistency import require_own_backbone
from sdclr.storage.tensor_files import read_tensors, write_tensors

MB = 1 << 20
Draw = random.Random


class Format(NamedTuple):
    """A format: how a case is written below a folder, what reads it, and how much that may take."""

    write: Callable[[Draw, Path], None]
    readers: tuple[Callable[[Path], Any], ...]
    memory: int
    """Bytes above those in use before."""
    reads: int
    """Bytes read, besides a few times those that are there."""
    events: tuple[str, ...] = ()
    """What it may do besides reading."""


# ---- tar

ODD_SIZES = [
    b"-1",
    b"0",
    b"1",
    b"99999999999",
    b"1" * 30,
    b"abc",
    b"0x10",
    b"",
    b"1e9",
    b"9223372036854775807",
]


def tar_block(draw: Draw, name: bytes, size: int, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A header with a right checksum, whatever it says; now and then a field is nonsense."""
    sizes = [
        b"%011o\0" % (size % 8**11),
        b"\x80" + struct.pack(">Q", size % 2**64).rjust(11, b"\0"),
    ]
    sizes += [b"\xff" * 12, b"77777777777\0", b"zzzzzzzzzzz\0", b"\x80" + b"\xff" * 11]
    field = sizes[0] if draw.random() < 0.8 else draw.choice(sizes)
    block = bytearray(512)
    block[:100] = name[:100].ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[124:136] = field
    block[148:156] = b"        "
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000" if draw.random() < 0.9 else b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(draw: Draw, records: dict[bytes, bytes]) -> bytes:
    text = b""
    for key, value in records.items():
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 2
        length += len(str(length + len(body))) - 2 if length > 99 else 0
        said = draw.choice([length, length, length, 0, 10**9, -5])
        text += str(said).encode() + body
    return tar_block(draw, b"pax", len(text), draw.choice([b"x", b"x", b"g"])) + padded(text)


def tar_piece(draw: Draw) -> bytes:
    name = draw.choice(
        [
            b"a.jpg",
            b"b.png",
            b"b.cls",
            b"../c.jpg",
            b"/d.jpg",
            b"e.jpg.cls",
            b"./f.jpg",
            b"\xff.jpg",
            b".",
        ]
    )
    content = draw.choice(
        [b"", b"7", b"-1", b"9" * 5000, b"\xd9\xa3", draw.randbytes(700), png(2, 2)]
    )
    kind = draw.randrange(9)
    if kind == 0:  # extended headers in a row
        number = draw.choice([2, 20, 3000])
        one = pax(draw, {b"comment": b"x"})
        return one * number
    if kind == 1:
        return (
            pax(draw, {b"size": draw.choice(ODD_SIZES)})
            + tar_block(draw, name, len(content))
            + padded(content)
        )
    if kind == 2:  # a long name that claims a size and may lie in a hole
        return tar_block(
            draw, b"././@LongLink", draw.choice([10, 600, 1 << 29]), draw.choice([b"L", b"K"])
        )
    if kind == 3:  # maps of holes
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": b"a.jpg",
        }
        records |= {b"GNU.sparse.realsize": draw.choice(ODD_SIZES), b"GNU.sparse.map": b"0,1," * 50}
        numbers = b"999999999\n" + b"1\n" * 600
        return pax(draw, records) + tar_block(draw, name, len(numbers)) + padded(numbers)
    if kind == 4:
        return tar_block(draw, name, 512 * 3, b"S") + draw.randbytes(1536)
    if kind == 5:
        return tar_block(
            draw,
            name,
            0,
            draw.choice([b"1", b"2", b"3", b"6", b"Z"]),
            draw.choice([name, b"b.png", b"../x"]),
        )
    if kind == 6:
        return draw.choice([draw.randbytes(512), bytes(512), bytes(1024)])
    return tar_block(draw, name, len(content)) + padded(content)


def write_tar(draw: Draw, folder: Path) -> None:
    content = b"".join(tar_piece(draw) for _ in range(draw.randrange(1, 6)))
    content += draw.choice([bytes(1024), bytes(1024), bytes(10240), b""])
    if draw.random() < 0.2:
        content = content[: draw.randrange(len(content) + 1)]
    path = folder / "x.tar"
    path.write_bytes(content)
    if draw.random() < 0.15:
        # a hole: no bytes on the disk
        os.truncate(path, len(content) + draw.choice([1 << 20, 6 << 30, 50 << 30]))


def read_tar(folder: Path) -> None:
    found = read_shards(folder, ["x.tar"])
    size = (folder / "x.tar").stat().st_size
    for start, length in zip(found.members.start, found.members.size, strict=True):
        assert 0 <= start <= start + length <= size


# ---- arrays

DESCRIPTIONS = [
    "'|u1'", "'<i8'", "'|O'", "'|V8'", "'|S0'", "'<U99999999'", "'<M8[ns]'", "[('a','<i4')]", "'<f16'", "'<c16'",
    "'|b1'", "'x'", "None", "__import__('this')", "('|u1',(9,9))", "'>i4'",
]  # fmt: skip
SHAPES = [
    "(3,4,4,3)", "(3,4,4)", "(3,)", "()", "(0,)", "(10**15,)", "(1000000000000000,)", "(-1,4)", "(2**33,)",
    "3", "('a',)", "(3,4,4,3,1,1,1)", "(1.5,)", "(" * 50 + ")" * 50, "(True,)",
]  # fmt: skip


def npy(draw: Draw, description: str, shape: str, body: bytes) -> bytes:
    text = f"{{'descr': {description}, 'fortran_order': {draw.choice(['False', 'True', '7'])}, 'shape': {shape}, }}"
    if draw.random() < 0.05:
        text = text.ljust(draw.choice([20_000, 300_000]))
    raw = text.encode() + b"\n"
    version = draw.choice([1, 1, 1, 2, 3, 9])
    length = struct.pack(
        "<H" if version == 1 else "<I", min(len(raw), 65_535) if version == 1 else len(raw)
    )
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + body


def any_npy(draw: Draw) -> bytes:
    if draw.random() < 0.4:
        arrays = [
            np.zeros((3, 4, 4, 3), np.uint8),
            np.arange(3),
            np.array([5, 10**12, -1]),
            np.array(["a", "b", "c"]),
        ]
        arrays += [
            np.array([0, 2**63 - 1, 1]),
            np.array([[0], [1], [2]]),
            np.zeros(3),
            np.array("x"),
        ]
        buffer = io.BytesIO()
        np.save(buffer, draw.choice(arrays))
        content = bytearray(buffer.getvalue())
        if draw.random() < 0.3:
            content[draw.randrange(len(content))] = draw.randrange(256)
        return bytes(content)
    body = draw.choice([b"", bytes(144), bytes(24), draw.randbytes(100), bytes(300_000)])
    return npy(draw, draw.choice(DESCRIPTIONS), draw.choice(SHAPES), body)


@cache
def bomb() -> bytes:
    buffer = io.BytesIO()
    side = 400 * MB
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({side},), }}".encode() + b"\n"
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for _ in range(400):
            file.write(bytes(MB))
    return buffer.getvalue()


def write_npz(draw: Draw, folder: Path) -> None:
    names = [
        "train_images",
        "images",
        "train_labels",
        "labels",
        "test_images",
        "test_labels",
        "class_names",
        "x",
    ]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        with zipfile.ZipFile(buffer, "w") as archive:
            for _ in range(draw.randrange(1, 5)):
                packing = draw.choice(
                    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
                )
                name = draw.choice(names) + draw.choice([".npy", ".npy", ".npy", "", ".npy.npy"])
                archive.writestr(zipfile.ZipInfo(name), any_npy(draw), packing)
    content = bytearray(buffer.getvalue())
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    if draw.random() < 0.1:  # sizes that the directory only claims
        place = content.rfind(b"PK\x01\x02")
        if place >= 0:
            content[place + 20 : place + 28] = struct.pack("<II", draw.randrange(2**32), 2**32 - 2)
    if draw.random() < 0.05:  # 400 MB of zeros, well described, in a few hundred kilobytes
        content = bytearray(bomb())
    (folder / "x.npz").write_bytes(
        content[: draw.choice([len(content), len(content), draw.randrange(len(content))])]
    )
    (folder / "x.npy").write_bytes(any_npy(draw))


# ---- lists

PATHS = [
    "a.jpg",
    "b/c.png",
    "../x.jpg",
    "/etc/passwd",
    "~/x",
    "a\\b.jpg",
    "a//b.jpg",
    ".",
    "",
    "é.jpg",
    "e\u0301.jpg",
]
PATHS += [
    "a b.jpg",
    "x" * 5000,
    "\0.jpg",
    "=1+1.jpg",
    "\x1b[31m.jpg",
    '"a.jpg"',
    "'",
    "a,b.jpg",
    "🐱.jpg",
    " a.jpg ",
]
WORDS = [
    "0",
    "1",
    "7" * 5000,
    "-1",
    "1e400",
    "cat",
    "",
    "٣",
    "nan",
    "0x10",
    "1.0",
    " 1",
    "=cmd()",
    "\x07",
]


def write_lists(draw: Draw, folder: Path) -> None:
    rows = [(draw.choice(PATHS), draw.choice(WORDS)) for _ in range(draw.randrange(0, 8))]
    rows += [
        (f"{draw.random()}.jpg", draw.choice(["0", "1"])) for _ in range(draw.choice([0, 0, 3]))
    ]
    codec = draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
    end = draw.choice(["\n", "\r\n", "\r", "\n\n", "\x0b", "\u2028"])
    gap = draw.choice([" ", "  ", "\t", ", ", ";"])
    text = end.join(f"{path}{gap}{label}" for path, label in rows)
    comma = draw.choice([",", ",", ";", "\t", ", "])
    columns = draw.choice(
        ["path,label", "file,class", "label,path", "Path , Label", "path", "x,y", "path,path,label"]
    )
    quote = draw.choice(["", '"', "'"])
    table = end.join(
        [columns.replace(",", comma), *(f"{quote}{p}{quote}{comma}{w}" for p, w in rows)]
    )
    for name, content in (("x.txt", text), ("x.csv", table)):
        raw = content.encode(codec, "replace")
        if draw.random() < 0.1:
            raw = draw.randbytes(draw.randrange(200))
        (folder / name).write_bytes(raw)


def stay_inside(found: Any) -> None:
    for path in found.paths:
        assert not os.path.isabs(path)
        assert os.path.normpath(os.path.join("/root", path)).startswith("/root"), path


# ---- YAML


def yaml_value(draw: Draw, depth: int = 0) -> str:
    words = [
        "1",
        "-0.5",
        "010",
        "1_0",
        "0x10",
        "1:30",
        "yes",
        ".inf",
        "~",
        "null",
        "1e400",
        "9" * 5000,
        "'x'",
        '"\\x00"',
    ]
    words += [
        "!!int 0x10",
        "!!python/object/apply:os.system ['true']",
        "!!binary aGk=",
        "&a 1",
        "*a",
        "<<",
        "2026-01-01",
    ]
    words += [
        "{a: 1, a: 2}",
        "[" * 40,
        "[" * 3000 + "]" * 3000,
        "|\n  text",
        "'" + "x" * 1000 + "'",
        "\x07",
        "- 1",
    ]
    if depth < 3 and draw.random() < 0.3:
        return "[" + ", ".join(yaml_value(draw, depth + 1) for _ in range(draw.randrange(3))) + "]"
    if depth < 3 and draw.random() < 0.2:
        return (
            "{"
            + ", ".join(f"k{n}: {yaml_value(draw, depth + 1)}" for n in range(draw.randrange(3)))
            + "}"
        )
    return draw.choice(words)


def write_yaml(draw: Draw, folder: Path) -> None:
    lines = recipe("digits_sdclr").to_yaml().splitlines()
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(lines))
        line = lines[place]
        key = line.partition(":")[0]
        kind = draw.randrange(5)
        if kind == 0:
            lines.insert(place, line)
        elif kind == 1:
            lines[place] = draw.choice(
                [f"{key}: &x {{}}", f"? {line}", f"{line} # {line}", f"{key}x: 1", line[1:]]
            )
        elif kind == 2:
            lines[place] = " " * draw.randrange(9) + line
        else:
            lines[place] = f"{key}: {yaml_value(draw)}"
    text = "\n".join(lines)
    kind = draw.randrange(30)
    if kind == 0:
        text = "a0: &a0 [x, x]\n" + "".join(
            f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 28)
        )
    elif kind == 1:
        text += "\n" + "".join(f"k{n}: {n}\n" for n in range(30_000))
    elif kind == 2:
        text = "seed: " + "[" * draw.choice([33, 900, 20_000])
    elif kind == 3:
        text = "x: 1\n---\ny: 2"
    (folder / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))


# ---- images


def png(
    width: int, height: int, claimed: tuple[int, int] | None = None, extra: bytes = b""
) -> bytes:
    """A black PNG; ``claimed`` is what its header says instead."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    packed = zlib.compressobj(1)
    row = bytes(1 + width * 3)
    rows = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    size = struct.pack(">II", *(claimed or (width, height)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + extra
        + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )  # fmt: skip


@cache
def strip() -> bytes:
    """One row of 80 million pixels, in a quarter of a megabyte."""
    return png(80_000_000, 1)


@cache
def sample(kind: str, mode: str, side: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.effect_noise((side, side), 60).convert(mode)
    tags = {"tiffinfo": {278: 1}} if kind == "TIFF" else {}  # a strip a row
    image.save(buffer, kind, **tags, **options)
    return buffer.getvalue()


def webp_of(width: int, height: int) -> bytes:
    """An animation of one small frame on a canvas of any size."""
    frame = sample("WEBP", "RGBA", 1, lossless=True)[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(16) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def scanned(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = sample("JPEG", "RGB", 1500, progressive=True, quality=5)
    last = content.rfind(b"\xff\xda")
    table = content.rfind(b"\xff\xc4", 0, last)
    return content[:-2] + content[table:-2] * times + b"\xff\xd9"


def any_image(draw: Draw) -> bytes:
    kind = draw.randrange(12)
    if kind == 0:
        claims = [
            (2, 2),
            (0, 5),
            (60_000, 60_000),
            (2**31 - 1, 1),
            (80_000_000, 1),
            (1, 70_000),
            (9_000, 9_000),
        ]
        return strip() if draw.random() < 0.2 else png(3, 3, draw.choice(claims))
    if kind == 1:
        return webp_of(
            *draw.choice(
                [(5, 5), (9_459, 9_459), (16_777_216, 1), (4_000, 4_000), (16_000, 16_000)]
            )
        )
    if kind == 2:
        header_ = draw.choice(
            [
                b"P3 30 30 255\n",
                b"P6 9 9 65535\n",
                b"P2 -1 5 1\n",
                b"P1 5000 5000\n",
                b"P5 1e3 2 255\n",
            ]
        )
        middle = draw.choice(
            [b"", b"#\n" * 600_000, b"1 2 3 " * 900, b"1 " * 700_000, draw.randbytes(500)]
        )
        return header_ + middle
    if kind == 3:
        return draw.choice([b"P6\n#", b"P5 ", b"P6 #\n"]) + b"x" * draw.choice(
            [10, 5_000, 3_000_000]
        )
    if kind == 4:
        return scanned(draw.choice([0, 1, 8, 1_200]))
    if kind == 5:  # extra chunks: text, profiles
        text = zlib.compress(bytes(draw.choice([10, 3_000_000])))
        name = draw.choice([b"zTXt", b"iTXt", b"iCCP", b"tEXt", b"eXIf"])
        body = draw.choice([b"key\0\0" + text, b"key\0\x01\0\0\0" + text, text, b""])
        chunk = (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
        return png(3, 3, extra=chunk * draw.choice([1, 1, 200]))
    if kind == 6:  # every row a strip, some strips elsewhere
        return sample("TIFF", "L", draw.choice([50, 5_000]))
    kinds = [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
    ]
    kinds += [
        ("TIFF", "I;16"),
        ("TIFF", "RGB"),
        ("GIF", "P"),
        ("PPM", "RGB"),
        ("AVIF", "RGB"),
        ("PNG", "I;16"),
    ]
    name, mode = draw.choice(kinds)
    try:
        content = bytearray(sample(name, mode, 24))
    except (KeyError, OSError, ValueError):
        content = bytearray(sample("PNG", "RGB", 24))
    for _ in range(draw.choice([1, 2, 8])):
        place = draw.randrange(min(len(content), draw.choice([64, 1_000_000])))
        content[place] = draw.choice([0, 255, 127, draw.randrange(256)])
    return bytes(content[: draw.choice([len(content), len(content), draw.randrange(len(content))])])


def write_image(draw: Draw, folder: Path) -> None:
    (folder / "x.jpg").write_bytes(any_image(draw))


# ---- backbone files

ODD = [
    None,
    "",
    "x",
    0,
    -1,
    2**31,
    10**400,
    1.5,
    [],
    [1],
    {},
    True,
    "\x1b[31m",
    float("inf"),
    [[[]]],
    "timm:resnet18",
]


@cache
def backbone() -> tuple[dict[str, Any], dict[str, Any]]:
    config = BackboneConfig(name="resnet10", width=1)
    facts = {
        "format": "sdclr-backbone-1", "architecture": config.to_dict(), "image_size": 32, "feature_dim": 8,
        "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }  # fmt: skip
    return build_backbone(config).net.state_dict(), facts


def write_backbone(draw: Draw, folder: Path) -> None:
    tensors, facts = backbone()
    facts = json.loads(json.dumps(facts))
    options = [
        {"layers": [draw.choice([10**7, 10**5, 1])] * 4}, {"depth": 10**6}, {"x" * 3000: 1}, {"layers": [1] * 9999},
        {"width": 10**300}, {"checkpoint_path": "x.pt"}, {"img_size": 10_000}, {"a": {"b": {"c": [1] * 2000}}},
    ]  # fmt: skip
    for _ in range(draw.randrange(1, 3)):
        place = draw.choice([facts, facts["architecture"], facts["normalisation"]])
        if not isinstance(place, dict) or not place:
            continue
        place[draw.choice([*place, "new"])] = draw.choice(ODD)
        if not isinstance(facts.get("architecture"), dict) or not isinstance(
            facts.get("normalisation"), dict
        ):
            break
    if draw.random() < 0.3:
        names = [
            "timm:resnet18",
            "timm:vit_tiny_patch16_224",
            "torchvision:resnet18",
            "timm:swin_tiny_patch4_window7_224",
        ]
        facts["architecture"] = {"name": draw.choice(names), "options": draw.choice(options)}
    changed = dict(tensors)
    kind = draw.randrange(6)
    name = draw.choice(list(changed))
    if kind == 0:
        changed[name] = changed[name].double() * float(draw.choice(["nan", "inf", "-1e300", "0"]))
    elif kind == 1:
        changed[name + "\n" + "x" * draw.choice([3, 100_000])] = changed.pop(name)
    elif kind == 2:
        changed[name] = changed[name].to(
            draw.choice([__import__("torch").int32, __import__("torch").bool])
        )
    path = folder / "x.safetensors"
    write_tensors(path, changed, facts)
    if draw.random() < 0.2:
        lies: dict[str, Any] = {
            "a": {"dtype": "F32", "shape": draw.choice(ODD), "data_offsets": draw.choice(ODD)}
        }
        from hostile_files import summed

        try:
            path.write_bytes(summed(header(lies, facts), draw.randbytes(8)))
        except (ValueError, OverflowError):
            return


# ---- run folders


@cache
def finished_run() -> Path:
    """A tiny run, trained and evaluated once a process."""
    from sdclr import evaluate, pretrain

    folder = Path(tempfile.mkdtemp(prefix="sdclr-hostile-run-")) / "run"
    settings = [
        "backbone.name=resnet10",
        "backbone.width=1",
        "epochs=2",
        "batch_size=128",
        "views.size=8",
    ]
    pretrain(recipe("digits_sdclr").with_overrides(settings), folder)
    evaluate(folder, probes=["knn"])
    shutil.rmtree(folder / "checkpoints")
    return folder


def spoiled_json(draw: Draw, value: Any) -> Any:
    """One part of a JSON value replaced."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        kind = draw.randrange(5)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: spoiled_json(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.6:
        place = draw.randrange(len(value))
        return [*value[:place], spoiled_json(draw, value[place]), *value[place + 1 :]][
            : draw.choice([len(value), 1])
        ]
    return draw.choice(ODD)


def write_run(draw: Draw, folder: Path) -> None:
    run = folder / "run"
    shutil.copytree(finished_run(), run)
    files = [
        "status.json",
        "split.json",
        "environment.json",
        "evaluation/cached.json",
        "metrics.jsonl",
        "config.yaml",
    ]
    for _ in range(draw.choice([1, 1, 2])):
        path = run / draw.choice(files)
        if not path.is_file():
            continue
        text = path.read_text()
        kind = draw.randrange(8)
        if kind == 0:
            text = text[: draw.randrange(len(text) + 1)]
        elif kind == 1:
            text = draw.choice(
                ["", "[" * 50_000, "null", "[]", "{}", '{"a": 1, "a": 2}', "\0", "9" * 6_000]
            )
        elif kind == 2:
            path.unlink()
            path.mkdir()
            continue
        elif path.suffix in (".json", ".jsonl"):
            lines = (text.splitlines() or [""]) if path.suffix == ".jsonl" else [text]
            line = draw.randrange(len(lines))
            with contextlib.suppress(ValueError, RecursionError):  # spoilt already
                lines[line] = json.dumps(spoiled_json(draw, json.loads(lines[line])))
            text = "\n".join(lines)
        else:
            lines = text.splitlines() or [""]
            place = draw.randrange(len(lines))
            lines[place] = f"{lines[place].partition(':')[0]}: {yaml_value(draw)}"
            text = "\n".join(lines)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))


def show_status(folder: Path) -> None:
    for line in read_status(folder / "run").lines():
        assert len(line) < 200_000


FORMATS = {
    "tar": Format(write_tar, (read_tar,), 64 * MB, 24 * MB),
    "arrays": Format(
        write_npz,
        (lambda f: read_npz(f / "x.npz"), lambda f: read_positions(f / "x.npy", 10)),
        128 * MB,
        8 * MB,
    ),
    "lists": Format(
        write_lists,
        (
            lambda f: stay_inside(read_txt_list(f / "x.txt")),
            lambda f: stay_inside(read_listed_images(f / "x.csv")),
            lambda f: stay_inside(read_image_list(f / "x.txt")),
        ),
        64 * MB,
        8 * MB,
    ),
    "yaml": Format(
        write_yaml,
        (lambda f: PretrainConfig.from_yaml(f / "config.yaml"), lambda f: Run(f).settings()),
        64 * MB,
        8 * MB,
    ),
    "images": Format(
        write_image,
        (lambda f: open_image(f / "x.jpg"), lambda f: read_size(f / "x.jpg")),
        700 * MB,
        8 * MB,
        ("subprocess.Popen", "os.posix_spawn"),  # the latter from Python 3.13 on
    ),
    "backbones": Format(
        write_backbone, (lambda f: load_backbone(f / "x.safetensors"),), 256 * MB, 64 * MB
    ),
    "runs": Format(
        write_run,
        (
            show_status,
            lambda f: build_report([f / "run"]),
            lambda f: require_own_backbone(Run(f / "run")),
            lambda f: read_tensors(Run(f / "run").backbone_path),
        ),
        64 * MB,
        16 * MB,
    ),
}


def stored(folder: Path) -> int:
    """Bytes that are on the disk; holes are not."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def violations(name: str, first: int, count: int) -> list[str]:
    """What went wrong in some cases of a format, a line each; empty when nothing did."""
    found: list[str] = []
    kind, seen = FORMATS[name], witness()
    # on any machine
    with mock.patch.object(npy_files, "free_memory_of_machine", return_value=100 * MB):
        found += _violations(name, kind, seen, first, count)
    return found


def _violations(name: str, kind: Format, seen: Witness, first: int, count: int) -> list[str]:
    found: list[str] = []
    for number in range(first, first + count):
        draw = random.Random(f"{name} {number}")
        with tempfile.TemporaryDirectory(prefix="sdclr-hostile-") as place:
            folder = Path(place)
            kind.write(draw, folder)
            before = sorted(folder.rglob("*"))
            limit = kind.reads + 6 * stored(folder)
            for position, reader in enumerate(kind.readers):
                case = f"{name} case {number}, reader {position}"
                begun = bytes_read()
                seen.seen.clear()
                problems: list[str] = []
                grown = peak_bytes(
                    lambda reader=reader, folder=folder, problems=problems: _try(
                        reader, folder, problems
                    )
                )  # type: ignore[misc]
                found += [f"{case}: {problem}" for problem in problems]
                found += [f"{case}: {event}" for event in seen.seen if event not in kind.events]
                if grown > kind.memory:
                    found.append(f"{case}: took {grown / MB:.0f} MB")
                if bytes_read() - begun > limit:
                    found.append(f"{case}: read {(bytes_read() - begun) / MB:.0f} MB")
            if sorted(folder.rglob("*")) != before:
                found.append(f"{name} case {number}: wrote files")
    return found


@cache
def witness() -> Witness:
    """One a process: an audit hook stays for ever."""
    importlib.import_module("timm")  # what is imported at the first use is imported now
    for kind in FORMATS.values():
        with tempfile.TemporaryDirectory(prefix="sdclr-hostile-") as place:
            kind.write(random.Random("warm"), Path(place))
            for reader in kind.readers:
                _try(reader, Path(place), [])
    with contextlib.suppress(SdclrError):
        build_report([finished_run()])
    return Witness()


def _try(reader: Callable[[Path], Any], folder: Path, problems: list[str]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(folder)
    except SdclrError as error:
        if len(str(error)) > 20_000:
            problems.append(f"a message of {len(str(error))} characters")
    except Exception as error:
        problems.append(f"{type(error).__name__}: {str(error)[:200]}")


# ---- bounds to take out

HUGE = 1 << 62
BOUNDS: dict[str, tuple[str, str, str, Any]] = {
    "long extended headers": ("tar", "sdclr.data.sources.tar_headers", "LONGEST_EXTENSION", HUGE),
    "padding": ("tar", "sdclr.data.sources.tar_headers", "LONGEST_PADDING", HUGE),
    "memory for arrays": ("arrays", "sdclr.data.decoding.npy_files", "_require_memory", lambda *_: None),
    "size of YAML": ("yaml", "sdclr.storage.documents", "LARGEST_YAML", HUGE),
    "plain YAML": ("yaml", "sdclr.storage.documents", "_require_plain", lambda *_: None),
    "longest side": ("images", "sdclr.data.decoding.decode", "LARGEST_SIDE", HUGE),
    "canvas of a WebP": ("images", "sdclr.data.decoding.decoding_budget", "MANY_PIXELS", HUGE),
    "number of layers": ("backbones", "sdclr.backbones.weights", "FREE_MODULES", HUGE),
    "options": ("backbones", "sdclr.backbones.weights", "_require_ordinary_options", lambda *_: None),
    "records of a run": ("runs", "sdclr.run.folder", "check", lambda *_: None),
}  # fmt: skip
"""Name -> format, module, attribute, and what stands there when the bound is taken out."""


def main(name: str, first: str, count: str, without: str | None = None) -> None:
    megabytes = 6_000
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * MB, megabytes * MB))
    resource.setrlimit(resource.RLIMIT_CPU, (300, 301))
    if without is not None:
        _, module, attribute, value = BOUNDS[without]
        assert hasattr(importlib.import_module(module), attribute)
        setattr(importlib.import_module(module), attribute, value)
    found: list[str] = []
    for number in range(int(first), int(first) + int(count)):
        found += violations(name, number, 1)
        if without is not None and found:
            break  # noticed
    print(json.dumps(found))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(*sys.argv[1:])
