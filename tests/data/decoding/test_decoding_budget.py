"""What may cost gigabytes or minutes is refused, or tried in a process that may be stopped; the rest is not."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from hostile_formats import png, scanned, strip, webp_of
from sdclr.data.decoding import decode, decoding_budget
from sdclr.data.decoding.decode import open_image, read_size
from sdclr.data.decoding.decoding_budget import try_decoding, webp_canvas
from sdclr.errors import DataError


def written(folder: Path, content: bytes) -> Path:
    (folder / "x.jpg").write_bytes(content)
    return folder / "x.jpg"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (strip, "80000000 x 1 pixels, a side above 65,535"),
        (lambda: png(3, 3, (70_000, 2)), "a side above 65,535"),
        (lambda: png(3, 3, (60_000, 60_000)), "pixels, more than"),
        (lambda: webp_of(16_777_216, 1), "canvas of 16,777,216 x 1"),
        (lambda: b"P6\n#" + b"x" * 100_000 + b"\n1 1 255\n\0\0\0", "header is longer"),
    ],
)
def test_what_costs_too_much_is_too_large_and_not_damaged(
    tmp_path: Path, content, words: str
) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path, content())
    for read in (open_image, read_size):
        with pytest.raises(DataError, match=rf"is too large: .*{words}"):
            read(path)


def test_a_canvas_of_a_gigabyte_in_ninety_bytes_is_refused_by_its_trial(tmp_path: Path) -> None:
    path = written(tmp_path, webp_of(9_459, 9_459))
    assert path.stat().st_size < 200
    with pytest.raises(DataError, match="too large: it takes more than a gigabyte"):
        open_image(path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGXCPU, "takes too many seconds to decode"),
        (-signal.SIGKILL, "takes too many seconds to decode"),
        (
            -signal.SIGSEGV,
            r"takes more than a gigabyte of memory to decode, or breaks its decoder \(SIGSEGV\)",
        ),
        (decoding_budget.MEMORY_EXIT, "takes more than a gigabyte of memory to decode$"),
    ],
)
def test_the_end_of_a_trial_says_which_limit_it_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    ended = subprocess.CompletedProcess([], code, b"", b"")
    monkeypatch.setattr(decoding_budget.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(ValueError, match=words):
        try_decoding(written(tmp_path, png(4, 4)), 0, None, "PNG")


def test_ordinary_images_are_never_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(decode, "try_decoding", lambda *arguments: tried.append(arguments))
    for name, options in (
        ("a.jpg", {"progressive": True}),
        ("b.png", {}),
        ("c.webp", {}),
        ("d.tif", {}),
        ("e.ppm", {}),
    ):
        Image.effect_noise((600, 400), 50).convert("RGB").save(tmp_path / name, **options)
        assert open_image(tmp_path / name).size == (600, 400)
    assert tried == []


@pytest.mark.processes
def test_many_scans_and_long_text_are_tried_and_pass_or_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = try_decoding

    def noted(path: Path, start: int, size: int | None, kind: str) -> None:
        tried.append(kind)
        real(path, start, size, kind)

    monkeypatch.setattr(decode, "try_decoding", noted)
    assert open_image(written(tmp_path, scanned(200))).size == (1500, 1500)
    (tmp_path / "x.ppm").write_bytes(b"P3 9 9 255\n" + b"#" * (2 << 20) + b"\n" + b"1 " * 243)
    assert open_image(tmp_path / "x.ppm").size == (9, 9)
    (tmp_path / "y.ppm").write_bytes(b"P3 9 9 255\n" + b"#" * (2 << 20) + b"\n" + b"1 " * 24)
    with pytest.raises(DataError, match="is damaged: not enough image data"):
        open_image(tmp_path / "y.ppm")
    assert tried == ["JPEG", "PPM", "PPM"]


def test_what_passed_is_not_tried_again_until_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    run = decoding_budget.subprocess.run
    monkeypatch.setattr(
        decoding_budget.subprocess,
        "run",
        lambda *args, **options: started.append(args) or run(*args, **options),
    )
    path = written(tmp_path, png(4, 4))
    for _ in range(3):
        try_decoding(path, 0, None, "PNG")
    assert len(started) == 1
    path.write_bytes(png(5, 5))
    try_decoding(path, 0, None, "PNG")
    assert len(started) == 2


def test_the_canvas_of_every_kind_of_webp_is_read(tmp_path: Path) -> None:
    assert webp_canvas(webp_of(300, 200)[:30]) == (300, 200)
    for lossless in (True, False):
        Image.new("RGB", (37, 21)).save(tmp_path / "x.webp", lossless=lossless)
        assert webp_canvas((tmp_path / "x.webp").read_bytes()[:30]) == (37, 21)
    assert webp_canvas(png(3, 3)[:30]) is None
