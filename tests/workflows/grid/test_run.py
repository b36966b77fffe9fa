"""From a file to its report: resumed, killed, failed, changed, and from records alone."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import sdclr
from image_folder_stand_in import make_folder
from patience import wait_until
from sdclr import cli
from sdclr.errors import (
    ConfigError,
    DataError,
    FailedRunsError,
    MissingInputError,
    NoLabelsError,
    Preempted,
    RunFolderError,
)
from sdclr.presentation.progress import NoProgress
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.grid.records import name_of, read_record
from sdclr.workflows.grid.results import build_grid_report
from sdclr.workflows.grid.run import carry_out_grid, grid_commands, open_grid
from slow_variants import slow
from small_grid import TINY, small_file, small_grid

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

QUIET = Console(quiet=True)


def run(folder: Path, **changes: Any) -> Any:
    return sdclr.grid(small_file(folder, **changes), folder / "out", console=QUIET)


def table(folder: Path) -> str:
    """The numbers, without how long they took."""
    rows = json.loads((folder / "grid.json").read_text())
    kept = ("rows", "asked", "sweep", "mining", "num_done")
    return json.dumps({name: rows[name] for name in kept}, sort_keys=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid that was run without a break, in out/."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def fail_on(monkeypatch: pytest.MonkeyPatch, arm: str, error: Exception) -> list[str]:
    """pretrain raises for this arm; the list has the folders of the calls."""
    from sdclr.jobs import pretrain as job

    real, called = job.pretrain, []

    def pretrain(config: Any, out: Path, **options: Any) -> Any:
        called.append(out.name)
        if out.name.startswith(f"{arm}-"):
            raise error
        return real(config, out, **options)

    monkeypatch.setattr("sdclr.jobs.pretrain.pretrain", pretrain)
    return called


def test_it_ends_in_tables_with_the_verdict_and_is_not_run_again(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = whole / "out"
    text = (out / "grid.md").read_text()
    for words in (
        "4 of 4 cells done",
        "Against simclr",
        "Bonferroni",
        "half-width",
        "Hardware: CPU",
    ):
        assert words in text
    assert len((out / "grid.csv").read_text().splitlines()) == 1 + 4
    assert "<svg" in (out / "grid.html").read_text()
    assert len(list((out / "records").glob("*.json"))) == 4
    before = table(out)
    monkeypatch.setattr("sdclr.jobs.pretrain.pretrain", lambda *_, **__: pytest.fail("run again"))
    run(whole)
    assert table(out) == before


def test_records_alone_give_the_same_table(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "records")
    file = small_file(tmp_path)
    report = sdclr.grid(file, tmp_path / "out", records=tmp_path / "records", console=QUIET)
    assert report.num_done == 4
    assert table(tmp_path / "out") == table(whole / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()], "nothing was run"


def test_a_record_holds_no_path_of_this_machine(whole: Path) -> None:
    for path in (whole / "out" / "records").glob("*.json"):
        assert str(whole) not in path.read_text()
        assert path.stat().st_size < 20_000


def test_a_changed_arm_is_a_new_arm(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    arms = {
        "simclr": {"recipe": "digits_simclr"},
        "sdclr": {"settings": {"method.prune_ratio": 0.5}},
    }
    cells = small_grid(tmp_path, arms=arms)
    assert [cells.state(cell) for cell in cells.cells] == ["done", "missing"] * 2
    run(tmp_path, arms=arms)
    assert len(list((tmp_path / "out" / "records").glob("*.json"))) == 6
    assert small_grid(tmp_path).read_records().keys() == small_grid(tmp_path).fingerprints.keys(), (
        "the old arm's runs are still there for the old file"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"probes": ["knn", "few_shot"]},
        {"overrides": {"epochs": 2, "backbone.width": 2, "views.size": 8}},
        {"seeds": [3]},
        {"splits": ["3-4"]},
    ],
)
def test_what_decides_the_numbers_decides_whether_a_record_counts(
    whole: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    cells = small_grid(tmp_path, **changes)
    assert not any(cells.is_done(cell) for cell in cells.cells)


def test_what_decides_no_number_does_not(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    arms = {"simclr": {"recipe": "digits_simclr"}, "renamed": {"title": "SDCLR, published"}}
    file = small_file(tmp_path, arms=arms)
    cells, _ = open_grid(file, tmp_path / "out", device="cuda:3")
    assert all(cells.is_done(cell) for cell in cells.cells)


def test_images_at_an_address_are_no_folder_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: s3://bucket/a\.tar is an address"):
        open_grid(small_file(tmp_path), tmp_path / "out", data="s3://bucket/a.tar")


def test_a_record_of_before_a_setting_existed_counts_with_its_default(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    for path in (tmp_path / "out" / "records").glob("*.json"):
        content = json.loads(path.read_text())
        del content["config"]["record_images"], content["config"]["method"]["temperature"]
        content["evaluation"]["probes"]["knn"]["settings"].pop("k")
        path.write_text(json.dumps(content))
    cells = small_grid(tmp_path)
    assert all(cells.is_done(cell) for cell in cells.cells)


@pytest.mark.parametrize("damage", ["", "[]", '{"kind": "sdclr grid record"}', '{"kind": 3}'])
def test_a_damaged_record_is_named_and_its_cell_is_run_again(
    whole: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "records")
    victim = next((tmp_path / "records").glob("sdclr-split1-*.json"))
    victim.write_text(damage)
    with pytest.warns(UserWarning, match=victim.name):
        cells, _ = open_grid(small_file(tmp_path), tmp_path / "out", tmp_path / "records")
    left = [name_of(cell) for cell in cells.cells if not cells.is_done(cell)]
    assert left == ["sdclr-split1-seed10"]


def damaged(content: dict[str, Any], what: str) -> dict[str, Any]:
    """A record that is JSON of the right form, and not of its cell."""
    knn = content["evaluation"]["probes"]["knn"]
    if what == "accuracies":
        knn["per_class_accuracy"] = "x"
    elif what == "accuracies above 1":
        knn["per_class_accuracy"] = [2.0] * 10
    elif what == "settings":
        content["config"]["epochs"] = 3
    elif what == "no settings":
        content["config"] = {}
    elif what == "unknown settings":
        content["config"]["bogus"] = 1
    elif what == "protocol":
        content["evaluation"]["protocol"] = "sdclr"
    elif what == "split":
        content["split_source"] = "authors"
    else:
        assert what == "settings of the probe"
        knn["settings"]["k"] = 3
    return content


@pytest.mark.parametrize(
    "what",
    [
        "accuracies",
        "accuracies above 1",
        "settings",
        "no settings",
        "unknown settings",
        "protocol",
        "split",
        "settings of the probe",
        "another cell",
    ],
)
def test_a_record_that_is_not_of_its_cell_is_named_and_the_cell_is_run_again(
    whole: Path, tmp_path: Path, what: str
) -> None:
    records = tmp_path / "records"
    shutil.copytree(whole / "out" / "records", records)
    victim = next(records.glob("sdclr-split2-*.json"))
    if what == "another cell":
        shutil.copy(next(records.glob("sdclr-split1-*.json")), victim)
    else:
        victim.write_text(json.dumps(damaged(json.loads(victim.read_text()), what)))
    with pytest.warns(UserWarning, match=f"{victim.name}|damaged"):
        cells, _ = open_grid(small_file(tmp_path), tmp_path / "out", records)
    left = [name_of(cell) for cell in cells.cells if not cells.is_done(cell)]
    assert left == ["sdclr-split2-seed10"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(cells.read_records()) == 3, "nothing is said twice"


def test_records_of_one_cell_that_differ_in_time_alone_are_no_quarrel(
    whole: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    shutil.copytree(whole / "out" / "records", records)
    first = next(records.glob("sdclr-split1-*.json"))
    content = json.loads(first.read_text())
    content["evaluation"]["probes"]["knn"]["seconds"] = 12345.0
    content["evaluation"]["probes"]["other"] = content["evaluation"]["probes"]["knn"]
    (records / "a-copy.json").write_text(json.dumps(content))
    open_grid(small_file(tmp_path), tmp_path / "out", records)
    content["evaluation"]["probes"]["knn"]["per_class_accuracy"][0] = 0.0123
    (records / "a-copy.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"a-copy\.json is of the same cell as sdclr-split1"):
        cells, _ = open_grid(small_file(tmp_path), tmp_path / "out", records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cells.read_records()[cells.cells[1].run.folder]
    knn = found.evaluation["probes"]["knn"]
    assert knn["per_class_accuracy"][0] != 0.0123, "the one that is named after its cell counts"


@pytest.mark.parametrize("error", [slow(DataError("no images")), ZeroDivisionError("a bug")])
def test_a_failed_run_is_reported_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    called = fail_on(monkeypatch, "simclr", error)
    with pytest.raises(FailedRunsError, match=f"2 of 4 runs failed.*{error}"):
        run(tmp_path)
    assert len(called) == len(set(called)) == 4, "a failed run is not tried again in this sitting"
    text = (tmp_path / "out" / "grid.md").read_text()
    assert "2 of 4 cells done, 2 failed" in text
    assert str(error) in text
    failures = list((tmp_path / "out" / "failures").glob("*.json"))
    assert {json.loads(path.read_text())["error"] for path in failures} == {type(error).__name__}
    assert [small_grid(tmp_path).state(cell) for cell in small_grid(tmp_path).cells] == [
        "failed",
        "done",
    ] * 2
    monkeypatch.undo()
    assert run(tmp_path).num_done == 4, "the next start tries it again"
    assert not list((tmp_path / "out" / "failures").glob("*.json"))


def of_photographs(folder: Path, **changes: Any) -> dict[str, Any]:
    """A grid on 18 photographs of three classes; one has a single image."""
    if not (folder / "photos").exists():
        make_folder(folder / "photos", {"cat": 9, "dog": 8, "yak": 1})
    images = {"name": "images", "path": str(folder / "photos"), "labels": "folders"}
    overrides = TINY | {"views.size": 16, "batch_size": 9, "data": images}
    content: dict[str, Any] = {"overrides": overrides, "splits": None}
    return content | {"arms": {"sdclr": {}}, "question": None} | changes


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_photographs_that_cannot_be_measured_are_said_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("sdclr.jobs.pretrain.pretrain", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(
        "sdclr.workflows.grid.run.run_workers", lambda *_, **__: pytest.fail("begun")
    )

    def begin(content: dict[str, Any]) -> None:
        cells, values = open_grid(small_file(tmp_path, **content), tmp_path / "out")
        carry_out_grid(cells, values, workers=workers, progress=NoProgress())

    with pytest.raises(
        DataError, match=r"1 of 3 classes .*yak.*with untested: leave_out in the grid file\."
    ):
        begin(of_photographs(tmp_path))
    crops = of_photographs(tmp_path, protocol="sdclr", probes=["linear"], untested="leave_out")
    with pytest.raises(ConfigError, match=r"cached.* No run was started: choose other probes"):
        begin(crops)
    without = of_photographs(tmp_path)
    without["overrides"]["data"] = without["overrides"]["data"] | {"labels": "none"}
    with pytest.raises(NoLabelsError, match=r"no labels; no run was started\. Set data\.labels"):
        begin(without)
    assert not list((tmp_path / "out" / "failures").glob("*"))


def test_a_grid_leaves_out_classes_that_cannot_be_measured(tmp_path: Path) -> None:
    content = of_photographs(tmp_path, untested="leave_out")
    with pytest.warns(UserWarning, match="1 of 3 classes are left out"):
        report = run(tmp_path, **content)
    assert report.num_done == 1
    record = json.loads(next((tmp_path / "out" / "records").glob("*.json")).read_text())
    measured = record["evaluation"]["probes"]["knn"]["per_class_accuracy"]
    assert [value is None for value in measured] == [False, False, True]
    cells = [small_grid(tmp_path, **content | own) for own in ({}, {"untested": None})]
    marks = [set(one.fingerprints.values()) for one in cells]
    assert marks[0] == marks[1], "records of grids without the key still count"


class StopAfter(NoProgress):
    """Asks the work to stop once so much is done: steps, then images of an evaluation."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        before, self.left = self.left, self.left - amount
        if before > 0 >= self.left:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "step", [3, 100, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2000))]
)
def test_stopped_at_any_step_and_started_again_it_gives_the_same_table(
    whole: Path, tmp_path: Path, step: int
) -> None:
    cells = small_grid(tmp_path)
    with pytest.raises(Preempted):
        carry_out_grid(cells, {}, progress=StopAfter(step), live=True)
    run(tmp_path)
    assert table(tmp_path / "out") == table(whole / "out")


def test_a_cell_that_another_process_holds_is_left_to_it_and_said(tmp_path: Path) -> None:
    cells = small_grid(tmp_path)
    with cells.claim(cells.cells[0]), pytest.raises(RunFolderError, match="1 of 4 runs are held"):
        run(tmp_path)
    assert small_grid(tmp_path).state(cells.cells[0]) == "missing"


def test_a_run_that_was_done_without_the_grid_is_recorded_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = small_grid(tmp_path)
    first = cells.cells[0]
    sdclr.pretrain(first.config, first.run.folder)
    weights = first.run.backbone_path.stat().st_mtime_ns
    assert cells.state(first) == "trained"
    run(tmp_path)
    assert first.run.backbone_path.stat().st_mtime_ns == weights


def test_the_printed_commands_do_the_cells_and_the_report(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = small_grid(tmp_path)
    lines = grid_commands(cells, tmp_path / "small.yaml", [])
    assert len(lines) == 5
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    capsys.readouterr()
    assert table(tmp_path / "out") == table(whole / "out")


def test_records_of_other_images_under_the_same_split_are_refused(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    victim = next((tmp_path / "out" / "records").glob("sdclr-split1-*.json"))
    content = json.loads(victim.read_text()) | {"data": "other"}
    content["evaluation"]["split"]["fingerprint"] = "other"
    victim.write_text(json.dumps(content))
    with pytest.raises(
        sdclr.errors.ConfigError, match=r"sdclr \(split 1, seed \d+, \w+\) name one split"
    ):
        run(tmp_path)


def test_a_record_of_other_groups_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    victim = next((tmp_path / "out" / "records").glob("sdclr-split1-*.json"))
    content = json.loads(victim.read_text())
    content["evaluation"]["group_convention"] = "thresholds"
    victim.write_text(json.dumps(content))
    with pytest.raises(
        sdclr.errors.ConfigError, match=r"sdclr \(split 1, seed \d+, \w+\) by thresholds"
    ):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record | {"seed": 77}, "gives seed 77, and later "),
        (lambda record: record | {"split": 9}, "gives split 9, and later 1"),
        (lambda record: record | {"data": "other"}, "gives data 'other', and later "),
        (lambda record: of_split(record, "x"), "is damaged"),
        (
            lambda record: of_split(record, {"number": "1", "fingerprint": record["data"]}),
            "is damaged",
        ),
        (
            lambda record: all_untested(record),
            "is damaged: balancedness needs at least one class that was tested",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_named(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    file = next((whole / "out" / "records").glob("sdclr-split1-*.json"))
    read_record(file)
    changed = tmp_path / file.name
    changed.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(sdclr.errors.DataError, match=rf"{re.escape(file.name)} is damaged.*"):
        read_record(changed)
    with pytest.raises(sdclr.errors.DataError, match=re.escape(words)):
        read_record(changed)


def of_split(record: dict[str, Any], split: object) -> dict[str, Any]:
    record["evaluation"]["split"] = split
    return record


def all_untested(record: dict[str, Any]) -> dict[str, Any]:
    for probe in record["evaluation"]["probes"].values():
        probe["per_class_accuracy"] = [None] * len(probe["per_class_accuracy"])
    return record


def test_the_mining_signal_is_recorded_by_epoch_where_images_are(tmp_path: Path) -> None:
    overrides = {
        "backbone.width": 2,
        "views.size": 8,
        "epochs": 2,
        "batch_size": 200,
        "record_images": True,
    }
    report = run(tmp_path, overrides=overrides, splits=[1])
    columns = {curve.column for curve in report.mining}
    assert columns == {"loss", "hardest_mass", "disagreement"}
    assert all([epoch for epoch, _ in curve.runs[0]] == [1, 2] for curve in report.mining)
    assert all(0 <= value <= 1 for curve in report.mining for _, value in curve.runs[0])
    assert "Mining signal" in (tmp_path / "out" / "grid.md").read_text()


def test_somebody_elses_file_in_the_reports_place_is_found_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "grid.md").write_text("my notes")
    with pytest.raises(sdclr.errors.ConfigError, match=r"grid\.md"):
        run(tmp_path)
    assert not (tmp_path / "out" / "records").exists()


def test_a_figure_of_somebody_else_is_found_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "grid-against.svg").write_text("<?xml version='1.0'?><svg/>")
    with pytest.raises(ConfigError, match=r"grid-against\.svg is not of sdclr grid.*Move it"):
        run(tmp_path)
    assert not (tmp_path / "out" / "records").exists()


def test_another_grid_does_not_take_the_place_of_a_report(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    before = (tmp_path / "out" / "grid.json").read_text()
    other = small_file(tmp_path).rename(tmp_path / "other.yaml")
    with pytest.raises(
        ConfigError, match="has the report of the grid small, and this one is other"
    ):
        sdclr.grid(other, tmp_path / "out", console=QUIET)
    assert (tmp_path / "out" / "grid.json").read_text() == before
    assert (tmp_path / "out" / "grid-against.svg").is_file()
    run(tmp_path, question=None)
    assert not (tmp_path / "out" / "grid-against.svg").exists(), "of a question that is gone"


def test_a_report_of_no_record_takes_no_reports_place(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    (tmp_path / "out" / "records").rename(tmp_path / "kept")
    before = (tmp_path / "out" / "grid.json").read_text()
    words = ["sdclr", "grid", str(small_file(tmp_path)), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--report-only"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == MissingInputError.exit_code
    assert "has no record of a cell of small" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out" / "grid.json").read_text() == before


def test_the_reports_command_is_the_one_that_was_given(whole: Path, tmp_path: Path) -> None:
    command = shlex.split(json.loads((whole / "out" / "grid.json").read_text())["command"])
    assert command == ["sdclr", "grid", str(whole / "small.yaml"), "--out", str(whole / "out")]
    file = small_file(tmp_path)
    text = open_grid(file, records=tmp_path / "r", device="cpu", use=["json:loads"])[0].command
    assert text == f"sdclr grid {file} --records {tmp_path / 'r'} --device cpu --use json:loads"


def test_arms_with_equal_accuracies_and_means_over_other_cells_are_said(
    whole: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    shutil.copytree(whole / "out" / "records", records)
    for number in (1, 2):
        ours, theirs = (
            next(records.glob(f"{a}-split{number}-*.json")) for a in ("sdclr", "simclr")
        )
        content = json.loads(ours.read_text())
        content["evaluation"]["probes"]["knn"] = json.loads(theirs.read_text())["evaluation"][
            "probes"
        ]["knn"]
        ours.write_text(json.dumps(content))
    cells, _ = open_grid(small_file(tmp_path), tmp_path / "out", records)
    report = build_grid_report(cells)
    assert report.asked is not None
    assert [one.verdict for one in report.asked.arms] == ["open"]
    assert any("same accuracies in each of their 2 common cells" in note for note in report.notes)
    next(records.glob("sdclr-split2-*.json")).unlink()
    cells, _ = open_grid(small_file(tmp_path), tmp_path / "out", records)
    notes = build_grid_report(cells).notes
    assert any("means are over different cells (simclr: 2; sdclr: 1)" in note for note in notes)


def workers_command(folder: Path, workers: int) -> list[str]:
    arguments = ["grid", str(small_file(folder)), "--out", str(folder / "out")]
    return [sys.executable, "-m", "sdclr", *arguments, "--workers", str(workers)]


@pytest.mark.slow
def test_two_workers_give_the_table_of_one_and_do_nothing_twice(
    whole: Path, tmp_path: Path
) -> None:
    done = subprocess.run(workers_command(tmp_path, 2), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out") == table(whole / "out")
    finished = [line for line in done.stderr.splitlines() if ": done in" in line]
    assert len(finished) == len({line.partition(": done")[0] for line in finished}) == 4


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@needs_proc
@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_cell_and_the_others_go_on(
    whole: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        workers_command(tmp_path, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: bool(list((tmp_path / "out").glob(".*.claim"))), "no cell is claimed")
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode in (0, FailedRunsError.exit_code), said
    assert "SIGKILL" in said
    run(tmp_path)
    assert table(tmp_path / "out") == table(whole / "out")


@needs_proc
@pytest.mark.slow
def test_killed_at_random_points_it_ends_in_the_same_table(whole: Path, tmp_path: Path) -> None:
    """SIGKILL of the whole command, again and again; its workers notice that they are alone."""
    rng, kills = random.Random(0), 0
    for _ in range(30):
        process = subprocess.Popen(
            workers_command(tmp_path, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        goal = written(tmp_path / "out") + rng.randrange(5, 20)
        wait_until(
            lambda process=process, goal=goal: (  # type: ignore[misc]
                process.poll() is not None or written(tmp_path / "out") >= goal
            ),
            "nothing more is written",
        )
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert kills >= 2, "killed too rarely to show anything"
    wait_until(lambda: not held(small_grid(tmp_path)), "a worker outlives its command")
    run(tmp_path)
    assert table(tmp_path / "out") == table(whole / "out")


def held(cells: GridCells) -> bool:
    return any(cells.claim_lock(cell).held_elsewhere() for cell in cells.cells)


def written(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def test_a_plan_shows_what_is_done_failed_and_missing(whole: Path, tmp_path: Path) -> None:
    from sdclr.workflows.grid.run import show_grid_plan

    shutil.copytree(whole / "out" / "records", tmp_path / "out" / "records")
    next((tmp_path / "out" / "records").glob("sdclr-split1-*.json")).unlink()
    next((tmp_path / "out" / "records").glob("sdclr-split2-*.json")).unlink()
    cells = small_grid(tmp_path)
    cells.failures.record(cells.cells[1], "DataError", "no images")
    console = Console(file=io.StringIO(), width=100)
    show_grid_plan(cells, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 done (recorded), 1 failed (is tried again), 1 missing (to be trained)" in text
    assert "sdclr, split 1, seed 10: failed, no images" in text


def test_a_folder_of_records_that_is_not_there_makes_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = small_file(tmp_path), tmp_path / "out"
    words = ["sdclr", "grid", str(file), "--out", str(out), "--records", str(tmp_path / "recods")]
    monkeypatch.setattr(sys, "argv", [*words, "--report-only"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == MissingInputError.exit_code
    assert "Correct --records or --out" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_file_is_no_folder_of_records(tmp_path: Path) -> None:
    file = small_file(tmp_path)
    with pytest.raises(RunFolderError, match=r"is a file; choose another --records"):
        open_grid(file, tmp_path / "out", file)
