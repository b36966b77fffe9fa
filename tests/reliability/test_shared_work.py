"""Several processes that share out images write what one would, go on where they stopped, and end together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sdclr import Run, cli, embed, evaluate, finetune, predict, pretrain, recipe
from sdclr.errors import DistributedError, NonFiniteError
from sdclr.evaluation.results import Evaluation
from sdclr.jobs import embed as embed_module
from sdclr.processes import messages
from sdclr.storage.row_parts import RowParts
from several_processes import codes, free_port, started, striking_parts
from slow_variants import slow

pytestmark = pytest.mark.processes

CONFIG = recipe("digits_simclr").with_overrides(
    ["epochs=1", "views.size=8", "backbone.width=2", "batch_size=400", "health_every_epochs=0"]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(CONFIG, tmp_path_factory.mktemp("shared") / "run")


def embed_each(
    run: Run, out: Path, size: int = 2, prepare: Callable[[int], None] = lambda rank: None
) -> list[int | None]:
    def act(rank: int) -> None:
        prepare(rank)
        embed(run.folder, CONFIG.data, out)

    return codes(started(size, act))


def arrays(path: Path) -> dict[str, bytes]:
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


@pytest.fixture(scope="module")
def expected(run: Run) -> dict[str, bytes]:
    return arrays(embed(run.folder, CONFIG.data, run.folder.parent / "one.npz"))


def test_three_processes_write_the_file_of_one(
    tmp_path: Path, run: Run, expected: dict[str, bytes]
) -> None:
    assert embed_each(run, tmp_path / "f.npz", 3) == [0, 0, 0]
    assert arrays(tmp_path / "f.npz") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


@pytest.mark.parametrize("struck", [0, 1])
def test_an_error_of_one_ends_both_and_another_number_of_processes_goes_on(
    tmp_path: Path, run: Run, expected: dict[str, bytes], struck: int
) -> None:
    def fail() -> None:
        raise embed_module.ConfigError("no disk")

    ended = embed_each(run, tmp_path / "f.npz", 2, striking_parts(fail, struck))
    assert ended == [78, 78]
    parts = {path.name for path in (tmp_path / "f.npz.partial").glob("0*.npy")}
    assert 2 <= len(parts) <= 5, "of six parts"
    looked_at = []
    write = RowParts._write
    try:
        RowParts._write = lambda self, first, rows: (  # type: ignore[method-assign]
            looked_at.append(f"{first:012d}.npy"),
            write(self, first, rows),
        )[1]
        embed(run.folder, CONFIG.data, tmp_path / "f.npz")
    finally:
        RowParts._write = write  # type: ignore[method-assign]
    assert not parts & set(looked_at), "what was done is not done again"
    assert arrays(tmp_path / "f.npz") == expected


@pytest.mark.parametrize("struck", [0, 1])
def test_a_feature_that_is_not_finite_on_one_ends_both_at_once(
    tmp_path: Path, run: Run, struck: int
) -> None:
    def fail() -> None:
        raise NonFiniteError("a feature is not finite")

    assert embed_each(run, tmp_path / "f.npz", 2, striking_parts(fail, struck)) == [79, 79]


def test_after_the_death_of_one_the_same_command_goes_on(
    tmp_path: Path, run: Run, expected: dict[str, bytes]
) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def act(rank: int) -> None:
        striking_parts(die, 0)(rank)
        embed(run.folder, CONFIG.data, tmp_path / "f.npz")

    # the other one waits for its launcher, which ends it; here the test does
    assert codes(started(2, act), stopped=(1,)) == [-signal.SIGKILL, -signal.SIGKILL]
    assert embed_each(run, tmp_path / "f.npz") == [0, 0]
    assert arrays(tmp_path / "f.npz") == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGSTOP)])
def test_without_a_launcher_the_first_process_notices_that_another_gives_no_sign(
    tmp_path: Path, run: Run, expected: dict[str, bytes], number: signal.Signals
) -> None:
    def act(rank: int) -> None:
        messages.SILENT_SECONDS = 3.0
        striking_parts(lambda: os.kill(os.getpid(), number), 1)(rank)
        embed(run.folder, CONFIG.data, tmp_path / "f.npz")

    stopped = (1,) if number == signal.SIGSTOP else ()
    ended = codes(started(2, act, launcher_keeps_store=False), stopped=stopped)
    assert ended == [80, -signal.SIGKILL]
    embed(run.folder, CONFIG.data, tmp_path / "f.npz")
    assert arrays(tmp_path / "f.npz") == expected


def test_what_the_first_one_refuses_is_refused_by_all_before_any_work(
    tmp_path: Path, run: Run
) -> None:
    (tmp_path / "f.npz").write_bytes(b"mine")
    assert embed_each(run, tmp_path / "f.npz") == [78, 78]
    assert (tmp_path / "f.npz").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_a_process_that_sees_other_images_is_told(tmp_path: Path, run: Run) -> None:
    def act(rank: int) -> None:
        data = CONFIG.data.with_values({"split": 1 + rank})
        embed(run.folder, data, tmp_path / "f.npz")

    assert codes(started(2, act)) == [80, 80]
    assert not (tmp_path / "f.npz").exists()


def test_two_processes_evaluate_as_one_does(tmp_path: Path, run: Run) -> None:
    for name in ("one", "two"):
        shutil.copytree(run.folder, tmp_path / name)
    expected = evaluate(tmp_path / "one", probes=["linear", "knn"])

    def act(rank: int) -> None:
        found = evaluate(tmp_path / "two", probes=["linear", "knn"])
        assert set(found.probes) == {"linear", "knn"}

    assert codes(started(2, act)) == [0, 0]
    found = Evaluation.load(tmp_path / "two" / "evaluation" / "cached.json")
    for name in ("linear", "knn"):
        assert found.probe(name).per_class_accuracy == expected.probe(name).per_class_accuracy
    assert [path.name for path in (tmp_path / "two" / "evaluation").iterdir()] == ["cached.json"]


def test_what_one_process_cannot_measure_ends_both(tmp_path: Path, run: Run) -> None:
    def act(rank: int) -> None:
        evaluate(run, probes=["no_such"])

    assert codes(started(2, act)) == [78, 78]

    def moved(rank: int) -> None:
        evaluate(run, probes=["knn"], settings={"data.test_path": str(tmp_path / "absent")})

    assert codes(started(2, moved)) == [78, 78]


def test_two_processes_predict_as_one_does(tmp_path: Path, run: Run) -> None:
    model = finetune(run, CONFIG.data, tmp_path / "model", epochs=2)
    expected = predict(model, CONFIG.data, tmp_path / "one.csv", top=2)

    def act(rank: int) -> None:
        found = predict(model, CONFIG.data, tmp_path / "two.csv", top=2)
        assert found.summary() == expected.summary()

    assert codes(started(2, act)) == [0, 0]
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.slow
def test_under_torchrun_the_first_process_alone_speaks(tmp_path: Path, run: Run) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    verb = ["-m", "sdclr", "evaluate", str(tmp_path / "run"), "--probes", "knn"]
    port = ["--master-port", str(free_port())]
    found = subprocess.run([*torchrun, *port, *verb], capture_output=True, text=True, check=True)
    assert found.stdout.count("next: ") == 1


def test_what_several_processes_cannot_share_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    found = CliRunner().invoke(cli.app, ["evaluate", str(run.folder), "--against", "pixels"])
    assert isinstance(found.exception, DistributedError)
    assert "runs on one process" in str(found.exception)
