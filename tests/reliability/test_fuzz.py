"""Whatever a list, a config, a table or a header holds: only our own errors escape, and each names the file."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile_files import summed
from sdclr import PretrainConfig, load_backbone, recipe
from sdclr.data.sources.image_lists import read_listed_images, read_txt_list
from sdclr.data.sources.split_files import read_image_list, read_positions
from sdclr.errors import SdclrError
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.tensor_files import read_tensors, write_tensors

pytestmark = pytest.mark.journeys

FAST = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FOLDER = Path(tempfile.mkdtemp(prefix="sdclr-fuzz-"))


def slowly(examples: int) -> settings:
    return settings(FAST, max_examples=examples)


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    """What ``read`` returns, or None after an error of ours that names the file; any other error escapes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return read(path)
    except SdclrError as error:
        if path.name not in str(error):
            raise AssertionError(f"the message does not name {path.name}: {error}") from error
        return None


# ---- split lists: the authors' .txt and .npy, and lists of one's own

NAMES = st.one_of(
    st.sampled_from(
        [
            "a.jpg",
            "n01/x.JPEG",
            "../x.jpg",
            "/etc/passwd",
            "~/x.jpg",
            "a/../../b.jpg",
            "a\\b.jpg",
            ".",
        ]
    ),
    st.sampled_from(
        ["..", "a/..", "x/./y.png", "a//b.png", "\0.jpg", "./../x.jpg", "../../../../etc/shadow"]
    ),
    st.text(max_size=12),
)
LABELS = st.one_of(
    st.sampled_from(["0", "1", "-1", "1e3", "٣", "999999999", "9" * 40, "", "cat"]),
    st.text(max_size=4),
)
LINES = st.builds(
    lambda name, gap, label: f"{name}{gap}{label}",
    NAMES,
    st.sampled_from([" ", "  ", "\t", ""]),
    LABELS,
)
LISTS = st.one_of(
    st.lists(LINES, max_size=8).map(
        lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
    ),
    st.lists(st.sampled_from(["a.jpg 1", "b.jpg 2", "c/d.jpg 0", "", " "]), max_size=6).map(
        lambda lines: "\r\n".join(lines).encode()
    ),
    st.binary(max_size=60),
)


def stay_below_the_root(paths: Sequence[str]) -> None:
    for path in paths:
        assert "\0" not in path
        whole = os.path.normpath(os.path.join("/root/of/images", path))
        assert whole.startswith("/root/of/images"), path
        assert not os.path.isabs(path)


def check_list(content: bytes) -> None:
    path = FOLDER / "list.txt"
    path.write_bytes(content)
    for read in (read_txt_list, read_image_list):
        found = outcome(read, path)
        if found is not None:
            stay_below_the_root(found.paths)
            assert len(found.paths) > 0
            assert found.labels is None or len(found.labels) == len(found.paths)


def saved_array(array: Any, allow_pickle: bool = True) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


ARRAYS = st.one_of(
    st.lists(st.integers(-3, 12), max_size=6).map(
        lambda values: saved_array(np.array(values, dtype=np.int64))
    ),
    st.sampled_from(
        [np.array([1.5]), np.array(["x"]), np.array([{}], dtype=object), np.zeros((2, 2), int)]
    ).map(saved_array),
    st.binary(max_size=40).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
    st.tuples(st.integers(0, 140), st.integers(0, 255)).map(
        lambda change: _with_byte(saved_array(np.arange(5)), *change)
    ),
    st.binary(max_size=60),
)


def _with_byte(content: bytes, position: int, value: int) -> bytes:
    return content[:position] + bytes([value]) + content[position + 1 :]


def check_positions(content: bytes) -> None:
    path = FOLDER / "positions.npy"
    path.write_bytes(content)
    found = outcome(lambda p: read_positions(p, 10), path)
    assert found is None or (
        found.dtype == np.int64 and ((found >= 0) & (found < 10)).all() and found.ndim == 1
    )


@FAST
@given(LISTS)
def test_image_lists(content: bytes) -> None:
    check_list(content)


@FAST
@given(ARRAYS)
def test_position_lists(content: bytes) -> None:
    check_positions(content)


@pytest.mark.slow
@slowly(4000)
@given(LISTS)
def test_many_image_lists(content: bytes) -> None:
    check_list(content)


@pytest.mark.slow
@slowly(1000)
@given(ARRAYS)
def test_many_position_lists(content: bytes) -> None:
    check_positions(content)


# ---- configs

DIGITS = recipe("digits_sdclr").to_dict()
CIFAR = recipe("cifar10_lt_sdclr").with_values({"data.path": "x"}).to_dict()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "sgd",
            "sdclr",
            "auto",
            "timm:x",
            "../x",
            90,
            0.9,
            -1,
            "0.5",
            [],
            {},
            [1, 2],
            {"name": "sdclr"},
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    here = [(*prefix, key) for key in values]
    return here + [
        path
        for key in values
        if isinstance(values[key], dict)
        for path in _paths(values[key], (*prefix, key))
    ]


def _changed(base: dict[str, Any], changes: list[tuple[tuple[str, ...], Any]]) -> str:
    values = json.loads(json.dumps(base))
    for path, value in changes:
        target = values
        for key in path[:-1]:
            target = target.get(key) if isinstance(target.get(key), dict) else target
        target[path[-1]] = value
    return yaml.safe_dump(values, allow_unicode=True)


CONFIGS = st.one_of(
    *(
        st.lists(st.tuples(st.sampled_from([*_paths(base), ("nonsense",)]), VALUES), min_size=1, max_size=3).map(
            lambda changes, base=base: _changed(base, changes)
        )
        for base in (DIGITS, CIFAR)
    ),
    VALUES.map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    st.text(max_size=40),
    st.sampled_from(
        ["&a [*a]", "!!python/object/apply:os.system [x]", "a: 1\na: 2", "? [1]\n: 2", "1: 2", "2020-01-01: 3",
         "data: 2020-01-01", "epochs: .nan", "epochs: .inf", "&x {data: *x}", "[" * 1200, "- " * 3000,
         "epochs: " + "9" * 5000, "epochs: 0x" + "f" * 5000, "? {}\n: 1", "!!binary x", "!!set {a}", "a: !!binary aGk="]
    ),
)  # fmt: skip


def check_config(content: str) -> None:
    path = FOLDER / "config.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    found = outcome(PretrainConfig.from_yaml, path)
    assert found is None or PretrainConfig.parse(found.to_dict()) == found


@FAST
@given(CONFIGS)
def test_configs(content: str) -> None:
    check_config(content)


@pytest.mark.slow
@slowly(5000)
@given(CONFIGS)
def test_many_configs(content: str) -> None:
    check_config(content)


# ---- label files: tables of comma-separated values

FIELDS = st.one_of(
    NAMES, LABELS, st.sampled_from(["path", "label", "class", '"', '"a,b"', "'", "\r", "\0"])
)
TABLES = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                "path,label",
                "image",
                "file,class,x",
                "label,path",
                "PATH ,Label",
                "x,y",
                "path,path",
                '"path',
            ]
        ),
        st.lists(st.lists(FIELDS, max_size=3).map(",".join), max_size=6),
    ).map(lambda parts: "\n".join([parts[0], *parts[1]]).encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.just(b"path,label\n" + b'"' + b"x" * 140_000 + b'",1\n'),
)


def check_table(content: bytes) -> None:
    path = FOLDER / "table.csv"
    path.write_bytes(content)
    found = outcome(read_listed_images, path)
    if found is not None:
        stay_below_the_root(found.paths)


@FAST
@given(TABLES)
def test_label_files(content: bytes) -> None:
    check_table(content)


@pytest.mark.slow
@slowly(2000)
@given(TABLES)
def test_many_label_files(content: bytes) -> None:
    check_table(content)


# ---- headers of checkpoints, their checksums made right


def _header() -> tuple[dict[str, Any], bytes]:
    path = FOLDER / "sound.safetensors"
    architecture = {"name": "resnet10", "width": 1}
    facts = {"format": "sdclr-backbone-1", "architecture": architecture, "step": 3}
    facts |= {"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    write_tensors(
        path, {"a": torch.arange(4.0), "b": torch.tensor([True]), "c": torch.tensor(3)}, facts
    )
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


HEADER, DATA = _header()
FACTS = json.loads(HEADER["__metadata__"]["facts"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def _damaged_header(
    changes: list[tuple[tuple[str, ...], Any]], facts: list[tuple[tuple[str, ...], Any]]
) -> bytes:
    header = json.loads(json.dumps(HEADER))
    held = yaml.safe_load(_changed(FACTS, facts)) if facts else FACTS
    header["__metadata__"]["facts"] = json.dumps(held)
    for path, value in changes:
        target = header
        for key in path[:-1]:
            target = target.get(key) if isinstance(target.get(key), dict) else target
        target[path[-1]] = value
    return json.dumps(header, separators=(",", ":")).encode()


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text(st.characters(codec="ascii"), max_size=6)
)
HEADERS = st.one_of(
    st.builds(
        _damaged_header,
        st.lists(st.tuples(st.sampled_from([*_paths(HEADER), ("d",)]), JSON), max_size=2),
        st.lists(
            st.tuples(st.sampled_from(_paths(FACTS)), PLAIN | st.lists(PLAIN, max_size=3)),
            max_size=2,
        ),
    ),
    st.tuples(st.integers(0, 400), st.integers(0, 255)).map(
        lambda change: _with_byte(json.dumps(HEADER, separators=(",", ":")).encode(), *change)
    ),
    st.binary(max_size=80),
)


def check_header(header: bytes) -> None:
    path = FOLDER / "ckpt-000000000003.safetensors"
    path.write_bytes(summed(header, DATA))
    outcome(read_tensors, path)
    outcome(load_backbone, path)
    outcome(lambda p: CheckpointFolder(p).newest(), FOLDER)
    path.with_name(path.name + ".corrupt").unlink(missing_ok=True)


@FAST
@given(HEADERS)
def test_checkpoint_headers(header: bytes) -> None:
    check_header(header)


@pytest.mark.slow
@slowly(5000)
@given(HEADERS)
def test_many_checkpoint_headers(header: bytes) -> None:
    check_header(header)
