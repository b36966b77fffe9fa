"""Claims: of any number of workers that want a cell, one gets it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdclr.errors import ConfigError, FailedRunsError, RunFolderError
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.grid.records import Records, name_of
from sdclr.workflows.grid.results import build_grid_report
from sdclr.workflows.grid.run import require_all_done
from sdclr.workflows.matrix import Cell
from small_grid import small_grid

REPETITIONS = 100


class Quick(GridCells):
    """A cell is done once its record's file is there, whatever it holds."""

    def is_done(self, cell: Cell) -> bool:
        return self.records.path(cell, self.fingerprint(cell)).is_file()


def claim_all(cells: GridCells, barrier: Any, did: Callable[[int, str], None], who: int) -> None:
    """As a worker does, without the training: what is done leaves its record's file."""
    barrier.wait()
    for cell in cells.cells:
        with cells.claim(cell) as ours:
            if ours:
                did(who, name_of(cell))
                cells.records.folder.mkdir(parents=True, exist_ok=True)
                cells.records.path(cell, cells.fingerprint(cell)).write_text("{}")


def another(cells: GridCells, out: Path) -> GridCells:
    return Quick(cells.grid, out, Records(out / "records"))


@pytest.mark.journeys
def test_two_threads_started_together_never_do_a_cell_twice(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    for repetition in range(REPETITIONS):
        out = tmp_path / str(repetition)
        barrier, done = threading.Barrier(2), []

        def did(who: int, name: str, done: list[str] = done) -> None:
            done.append(name)

        workers = [
            threading.Thread(target=claim_all, args=(another(cells, out), barrier, did, who))
            for who in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(done) == len(set(done))
        # what one had to leave to the other, the other has done
        assert sorted(done) == sorted(map(name_of, cells.cells))


def _process(folder: Path, barrier: Any, done: Any, who: int) -> None:
    cells = small_grid(folder / str(who))
    for repetition in range(REPETITIONS):
        out = folder / f"out-{repetition}"

        def did(who: int, name: str, repetition: int = repetition) -> None:
            done.put((repetition, name))

        claim_all(another(cells, out), barrier, did, who)


@pytest.mark.processes
def test_two_processes_started_together_never_do_a_cell_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(2), context.Queue()
    for who in range(2):
        (tmp_path / str(who)).mkdir()
    workers = [
        context.Process(target=_process, args=(tmp_path, barrier, done, who)) for who in range(2)
    ]
    for worker in workers:
        worker.start()
    num_cells = len(small_grid(tmp_path / "0").cells)
    found = [done.get(timeout=120) for _ in range(REPETITIONS * num_cells)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert done.empty()
    assert len(set(found)) == REPETITIONS * num_cells


def test_a_cell_that_somebody_holds_is_running_and_left_to_him(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    other = another(cells, cells.out)
    first = cells.cells[0]
    with cells.claim(first) as ours:
        assert ours
        with other.claim(first) as theirs:
            assert not theirs
        assert other.state(first) == "running"
    with other.claim(first) as theirs:
        assert theirs
    assert not list(cells.out.glob(".*claim*")), "a claim leaves nothing behind"


def test_a_cell_that_is_tried_again_is_no_failure(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    first = cells.cells[0]
    cells.failures.record(first, "DataError", "broken yesterday")
    other = another(cells, cells.out)
    with cells.claim(first):
        assert other.state(first) == "running"
        with pytest.raises(RunFolderError, match="held by other processes"):
            require_all_done(other)
        assert build_grid_report(other).num_failed == 0
    with pytest.raises(FailedRunsError, match="broken yesterday"):
        require_all_done(other)


def test_a_run_that_was_begun_when_its_arm_had_another_name_goes_on(tmp_path: Path) -> None:
    folder = small_grid(tmp_path).cells[1].run.folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    arms = {"simclr": {"recipe": "digits_simclr"}, "renamed": {}}
    question = {"baseline": "simclr", "probe": "knn", "d": 1.0}
    cells = small_grid(tmp_path, arms=arms, question=question)
    assert cells.cells[1].run.folder == folder
    assert name_of(cells.cells[1]) == "renamed-split1-seed10"
    assert cells.cells[3].run.folder.name.startswith("renamed-split2-seed10-")


def test_a_failure_is_the_state_until_the_cell_is_done(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    first = cells.cells[0]
    cells.failures.record(first, "DataError", "broken")
    assert cells.state(first) == "failed"
    assert cells.failures.has_now(first)
    later = GridCells(cells.grid, cells.out, cells.records, sitting="another")
    assert not later.failures.has_now(first), "the next start tries it again"
    cells.failures.forget(first)
    assert cells.state(first) == "missing"


def test_cells_are_chosen_by_name(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    chosen = GridCells(cells.grid, cells.out, cells.records, only=["sdclr-split2-seed10"])
    assert [name_of(cell) for cell in chosen.wanted] == ["sdclr-split2-seed10"]
    wrong = GridCells(cells.grid, cells.out, cells.records, only=["sdclr-split2-seed1"])
    with pytest.raises(ConfigError, match="no cell 'sdclr-split2-seed1'; did you mean"):
        _ = wrong.wanted
    wrong = GridCells(cells.grid, cells.out, cells.records, only=["x"])
    with pytest.raises(ConfigError, match="no cell 'x'; its first is simclr-split1-seed10"):
        _ = wrong.wanted
