"""Which images can be used is decided once: a second start takes over what the first has measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from photo_folder import make_photos
from sdclr import PretrainConfig, pretrain
from sdclr.data.collections import image_files
from sdclr.run import Run

TINY = {
    "views": {"size": 16},
    "backbone": {"name": "resnet10", "width": 2},
    "batch_size": 32,
    "epochs": 1,
    "method": {"name": "simclr"},
}


def test_a_second_start_reads_the_headers_of_changed_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "photos", {0: 40})
    data = {"name": "images", "path": str(tmp_path / "photos"), "subset": "all"}
    config = PretrainConfig.parse({"data": data} | TINY)
    run = pretrain(config, tmp_path / "run")
    trained = run.backbone_path.read_bytes()
    read: list[str] = []
    header = image_files.read_size

    def counted(file: str, **how: object) -> tuple[int, int]:
        read.append(file)
        return header(file, **how)

    def read_at_the_next_start() -> int:
        read.clear()
        Run(tmp_path / "run").backbone_path.unlink()  # goes on from the last checkpoint
        assert pretrain(config, tmp_path / "run").backbone_path.read_bytes() == trained
        return len(read)

    monkeypatch.setattr(image_files, "read_size", counted)
    assert read_at_the_next_start() == 0
    first = next((tmp_path / "photos").rglob("*.png"))
    os.utime(first, ns=(0, 7))
    assert read_at_the_next_start() == 40
