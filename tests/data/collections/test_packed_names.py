"""Packed names are the texts that were put in, and take little more than their letters."""

from __future__ import annotations

import tracemalloc

import numpy as np

from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.packed_names import PackedNames

NAMES = ["a.jpg", "é/ü.jpg", "\udcff.jpg", "", "b/c.png"]


def packed() -> PackedNames:
    return PackedNames.of(["s0/", "s1/"], np.array([0, 0, 1, 1, 1]), NAMES)


def test_each_name_is_its_beginning_and_its_end() -> None:
    texts = [f"s{number}/{name}" for number, name in zip([0, 0, 1, 1, 1], NAMES, strict=True)]
    names = packed()
    assert list(names) == texts
    assert names == texts
    assert texts == names
    assert [names[position] for position in range(-5, 5)] == texts + texts
    assert names[1:4] == texts[1:4]
    assert names.at(np.array([4, 0])) == (texts[4], texts[0])
    assert names != [*texts[:-1], "other"]
    assert names != texts[:-1]
    assert names.index(texts[2]) == 2
    assert texts[3] in names


def test_the_content_of_a_collection_is_that_of_plain_texts() -> None:
    paths = [f"shard.tar/{number:07d}.jpg" for number in range(70_000)]
    zeros = np.zeros(len(paths), dtype=np.int32)
    names = PackedNames.of(["shard.tar/"], zeros, [path[10:] for path in paths])
    root = "root"
    plain, small = (ImageFiles(root, form, None) for form in (tuple(paths), names))  # type: ignore[arg-type]
    assert b"".join(plain.content()) == b"".join(small.content())
    assert b"".join(plain.content()).endswith("\0".join(paths).encode())


def test_a_name_costs_its_letters_and_few_bytes_more() -> None:
    num = 20_000
    which = np.zeros(num, dtype=np.int32)
    ends = [f"{number:08d}.jpg" for number in range(num)]
    tracemalloc.start()
    names = PackedNames.of(["shards/train-000.tar/"], which, ends)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(names) == num
    assert held / num < 12 + 8 + 4 + 1  # letters, start, length
