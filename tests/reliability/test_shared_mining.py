"""Several processes that mine look at the images together; the files, the ranking and the end are those of one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from photo_folder import make_photos
from sdclr import Run, cli, mine, pretrain, recipe
from sdclr.data import DataConfig
from sdclr.errors import ConfigError
from sdclr.jobs.mine import seeing
from sdclr.jobs.mine.handed_over import _arrays_of, _mined_of
from sdclr.storage.row_parts import RowParts
from several_processes import codes, started, striking_parts

CONFIG = recipe("digits_simclr").with_overrides(
    ["epochs=1", "views.size=8", "backbone.width=2", "batch_size=400", "health_every_epochs=0"]
)
FILES = ("scores.csv", "features.npy", "looks.npy", "images.tsv.gz")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:.*trained on none of these images"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(CONFIG, tmp_path_factory.mktemp("shared") / "run")


@pytest.fixture(scope="module")
def alone(run: Run) -> Path:
    out = run.folder.parent / "alone"
    mine(run.folder, CONFIG.data, out, top=5)
    return out


def mine_each(
    run: Run, out: Path, size: int, prepare: Callable[[int], None] = lambda rank: None, **asked: Any
) -> list[int | None]:
    def act(rank: int) -> None:
        prepare(rank)
        found = mine(run.folder, CONFIG.data, out, **{"top": 5, **asked})
        np.savez(out.parent / f"{out.name}-{rank}.npz", **_arrays_of(found))

    return codes(started(size, act))


def assert_same_files(found: Path, expected: Path, names: tuple[str, ...] = FILES) -> None:
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert sorted(path.name for path in found.iterdir()) == sorted(
        path.name for path in expected.iterdir()
    )


def test_three_processes_write_the_files_of_one_and_all_return_the_ranking(
    tmp_path: Path, run: Run, alone: Path
) -> None:
    assert mine_each(run, tmp_path / "rare", 3) == [0, 0, 0]
    assert_same_files(tmp_path / "rare", alone)
    returned = [dict(np.load(tmp_path / f"rare-{rank}.npz")) for rank in range(3)]
    for other in returned[1:]:
        assert other.keys() == returned[0].keys()
        for name, values in returned[0].items():
            np.testing.assert_array_equal(other[name], values)


def test_what_is_handed_over_is_the_same_ranking(run: Run, alone: Path) -> None:
    found = mine(run.folder, CONFIG.data, alone, top=5, overwrite=True)
    again = _mined_of(_arrays_of(found))
    for name, value in vars(found).items():
        if name in ("components", "junk"):
            assert list(getattr(again, name)) == list(value)
            for key, values in value.items():
                np.testing.assert_array_equal(getattr(again, name)[key], values)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
        else:
            assert getattr(again, name) == value or list(getattr(again, name)) == list(value)


def seen_parts(out: Path) -> dict[str, bytes]:
    folder = out / "features.partial"
    return {path.name: path.read_bytes() for path in folder.glob("0*.npy")}


@pytest.mark.parametrize("struck", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_of_one_ends_both_and_one_process_goes_on(
    tmp_path: Path, run: Run, alone: Path, struck: int
) -> None:
    def fail() -> None:
        raise ConfigError("no disk")

    out = tmp_path / "rare"
    assert mine_each(run, out, 2, striking_parts(fail, struck)) == [78, 78]
    done = seen_parts(out)
    assert 2 <= len(done) <= 5, "of six parts"
    written = []
    write = RowParts._write
    try:
        RowParts._write = lambda self, first, rows: (  # type: ignore[method-assign]
            written.append(f"{first:012d}.npy"),
            write(self, first, rows),
        )[1]
        mine(run.folder, CONFIG.data, out, top=5)
    finally:
        RowParts._write = write  # type: ignore[method-assign]
    assert not done.keys() & set(written), "what was seen is not looked at again"
    assert_same_files(out, alone)


def test_after_the_death_of_one_three_processes_go_on(
    tmp_path: Path, run: Run, alone: Path
) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    out = tmp_path / "rare"

    def act(rank: int) -> None:
        striking_parts(die, 0)(rank)
        mine(run.folder, CONFIG.data, out, top=5)

    # the other one waits for its launcher, which ends it; here the test does
    assert codes(started(2, act), stopped=(1,)) == [-signal.SIGKILL, -signal.SIGKILL]
    assert mine_each(run, out, 3) == [0, 0, 0]
    assert_same_files(out, alone)


@pytest.mark.parametrize(
    "refused",
    [
        {"like": ["absent.png"]},
        {"score": "loss"},
        {"feedback": "absent.csv"},
        {"order": "best"},
        {"top": 0},
    ],
)
def test_what_is_refused_is_refused_by_all_before_any_image_is_looked_at(
    tmp_path: Path, run: Run, refused: dict[str, Any]
) -> None:
    out = tmp_path / "rare"
    ended = mine_each(run, out, 2, **refused)
    assert ended[0] == ended[1]
    assert ended[0] in (65, 66, 78)
    assert not (out / "features.partial").exists()


def test_a_finished_folder_is_ranked_anew_without_looking(
    tmp_path: Path, run: Run, alone: Path
) -> None:
    shutil.copytree(alone, tmp_path / "rare")
    assert mine_each(run, tmp_path / "rare", 2) == [78, 78]

    def blind(rank: int) -> None:
        del seeing.look_at

    assert mine_each(run, tmp_path / "rare", 2, blind, overwrite=True) == [0, 0]
    assert_same_files(tmp_path / "rare", alone)


def test_two_processes_mine_against_by_groups_by_likeness_and_copy(
    tmp_path: Path, run: Run
) -> None:
    make_photos(tmp_path / "photos" / "old", {0: 20, 1: 20})
    make_photos(tmp_path / "photos" / "new", {0: 10, 2: 6}, start=20)
    old, new = (
        DataConfig(name="images", path=str(tmp_path / "photos" / one), subset="all")
        for one in ("old", "new")
    )
    new = new.with_values({"group_by": r"(\d)\."})
    mine(run.folder, old, tmp_path / "earlier")
    names = ("one", "two")
    asked = {
        name: {"against": tmp_path / "earlier", "copy_to": tmp_path / f"{name}-copies", "top": 3}
        for name in names
    }
    like = [str(sorted((tmp_path / "photos" / "old").iterdir())[0])]
    mine(run.folder, new, tmp_path / "one", like=like, **asked["one"])

    def act(rank: int) -> None:
        mine(run.folder, new, tmp_path / "two", like=like, **asked["two"])

    assert codes(started(2, act)) == [0, 0]
    assert_same_files(tmp_path / "two", tmp_path / "one")
    copied = [
        sorted(path.name for path in (tmp_path / f"{name}-copies").iterdir()) for name in names
    ]
    assert copied[0] == copied[1]
    assert len(copied[0]) == 3


def test_the_command_line_mines_with_a_backbone_file_and_the_first_process_alone_speaks(
    tmp_path: Path, run: Run
) -> None:
    make_photos(tmp_path / "photos", {0: 40})
    words = ["mine", "--backbone", str(run.backbone_path), str(tmp_path / "photos")]

    def act(rank: int) -> None:
        found = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "rare")])
        assert found.exit_code == 0, found.exception
        assert ("scores.csv" in found.stdout) == (rank == 0)

    assert codes(started(2, act)) == [0, 0]
    assert (tmp_path / "rare" / "scores.csv").is_file()


def test_a_process_that_sees_other_images_is_told(tmp_path: Path, run: Run) -> None:
    for rank in range(2):
        make_photos(tmp_path / str(rank), {rank: 40})

    def act(rank: int) -> None:
        data = DataConfig(name="images", path=str(tmp_path / str(rank)), subset="all")
        mine(run.folder, data, tmp_path / "rare")

    assert codes(started(2, act)) == [80, 80]
    assert not (tmp_path / "rare" / "scores.csv").exists()
