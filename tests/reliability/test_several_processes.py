"""Two processes train what one would, go on bit for bit, and end together and soon, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from killing import config, kill_campaign, state_hash
from one_training import Act, around_steps
from patience import PATIENCE_SECONDS, wait_until
from sdclr import PretrainConfig, Run, pretrain
from sdclr.batch import Views
from sdclr.errors import DataError, MissingInputError, StorageError
from sdclr.jobs.pretrain import folder as folder_module
from sdclr.jobs.pretrain import job as job_module
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.jobs.status import read_status
from sdclr.processes import messages
from sdclr.processes import world as world_module
from sdclr.storage.checkpoint import CheckpointFolder
from several_processes import codes, free_port, kill, started
from slow_variants import slow

pytestmark = pytest.mark.processes

STEPS = 9
LONG_SECONDS = 1e6
"""A run with this patience outlasts :func:`codes`, which gives up: its processes end for another reason, or fail."""


def run_each(folder: Path, run: PretrainConfig | None = None, size: int = 2) -> list[int | None]:
    return codes(started(size, lambda _: pretrain(run or config(), folder)))


def tensors(folder: Path) -> dict[str, Tensor]:
    newest = Run(folder).checkpoints.newest()
    assert newest is not None
    return newest.tensors


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a run of two processes that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole") / "x"
    assert run_each(folder) == [0, 0]
    return state_hash(folder)


def at_step(number: int, rank: int, act: Act) -> Callable[[int], None]:
    """What makes process ``rank`` do ``act`` when it is about to take step ``number``."""

    def prepare(here: int) -> None:
        def struck(training: Training, state: TrainingState) -> None:
            if here == rank and state.step == number - 1:
                act(training, state)

        step_module.train_step = around_steps(struck)

    return prepare


def struck_run(
    folder: Path,
    prepare: Callable[[int], None],
    *,
    silent: bool = False,
    stopped: tuple[int, ...] = (),
    patience_seconds: float = LONG_SECONDS,
) -> list[int | None]:
    """Exit codes of two processes of which one is struck.

    ``silent``: the others wait for words on it that nobody says, as long as a user's would.
    """

    def act(rank: int) -> None:
        # on a busy machine a word takes its time, and nobody waits any longer than for the word
        if not silent:
            messages.GRACE_SECONDS = PATIENCE_SECONDS
        prepare(rank)
        pretrain(config().with_values({"patience_seconds": patience_seconds}), folder)

    return codes(started(2, act), stopped=stopped)


def doing(act: Callable[[], object]) -> Callable[[Any], None]:
    def now(*_: Any) -> None:
        act()

    return now


def goes_on(folder: Path, expected: str) -> None:
    assert run_each(folder) == [0, 0]
    assert state_hash(folder) == expected
    assert read_status(folder).state == "done"


# Two processes are one.


@pytest.mark.parametrize(
    "override", ["method.norms=own", slow("method.norms=shared"), slow("simclr")]
)
def test_several_processes_end_where_one_does(tmp_path: Path, override: str) -> None:
    """fp64; the last batch of an epoch, 405 - 2 * 151 = 103 images, cannot be halved, nor the others by three."""
    more = ["precision=fp64", "batch_size=151", "epochs=2"]
    one = config().with_overrides([override, *more] if "=" in override else more)
    if override == "simclr":
        one = one.with_values({"method": {"name": "simclr"}})
    size = 3 if override == "simclr" else 2
    assert run_each(tmp_path / "several", one, size) == [0] * size
    expected = tensors(pretrain(one, tmp_path / "one").folder)
    found = tensors(tmp_path / "several")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-9, msg=name)
    assert Run(tmp_path / "several").read_json("environment.json")["world_size"] == size
    loss = [
        [line["loss"] for line in Run(tmp_path / name).metrics()] for name in ("one", "several")
    ]
    np.testing.assert_allclose(*loss, rtol=1e-9)


def test_images_on_disk_are_looked_at_once_and_left_out_by_both(tmp_path: Path) -> None:
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(150):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(
            folder / f"{number:03}.png"
        )
    (folder / "bad.png").write_bytes(b"hello")
    values = {
        "data": {"name": "images", "path": str(folder), "on_error": "skip", "subset": "all"},
        "epochs": 1,
        "batch_size": 49,
    }
    run = config().with_values(values).with_values({"precision": "fp64"})
    with pytest.warns(UserWarning, match="1 of 151 images cannot be decoded"):
        expected = tensors(pretrain(run, tmp_path / "one").folder)

    def quietly(_: int) -> None:
        warnings.simplefilter("ignore")
        pretrain(run, tmp_path / "two")

    assert codes(started(2, quietly)) == [0, 0]
    assert len(Run(tmp_path / "two").read_json("images.json")["skipped"]) == 1
    for name, tensor in tensors(tmp_path / "two").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_a_warning(tmp_path: Path) -> None:
    run = config().with_values({"precision": "fp64"})
    expected = tensors(pretrain(run, tmp_path / "one").folder)
    prepare = at_step(5, 1, doing(lambda: os.kill(os.getpid(), signal.SIGTERM)))

    def act(rank: int) -> None:
        prepare(rank)
        pretrain(run, tmp_path / "x")

    assert codes(started(2, act)) == [75, 75]
    with pytest.warns(UserWarning, match=r"another number of processes \(1, before 2\)"):
        pretrain(run, tmp_path / "x")
    for name, tensor in tensors(tmp_path / "x").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-8, atol=1e-9, msg=name)


# Signals.


@pytest.mark.parametrize(("struck", "times"), [(1, 2), slow(0, 1), slow(0, 2), slow(1, 1)])
def test_a_signal_to_one_process_saves_and_ends_both_within_two_steps(
    tmp_path: Path, expected: str, struck: int, times: int
) -> None:
    """Twice in a moment, as a launcher passes on what its workers have got already, is once."""
    send = doing(lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(times)])
    ended_with = struck_run(tmp_path / "x", at_step(4, struck, send))
    assert ended_with == [75, 75]
    status = read_status(tmp_path / "x")
    assert (status.state, status.exit_code) == ("preempted", 75)
    assert status.checkpoint_step in (4, 5)
    goes_on(tmp_path / "x", expected)


@pytest.mark.parametrize("dies", [True, False])
def test_a_signal_in_the_start_up_is_the_death_of_another_where_one_has_died(
    tmp_path: Path, dies: bool
) -> None:
    """A launcher ends all others when one has died; the status says which it was."""
    waiting = tmp_path / "waiting"

    def act(rank: int) -> None:
        def strike(*_: Any) -> None:
            waiting.touch()
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

        if rank == 1:
            folder_module.follow = strike
        pretrain(config(), tmp_path / "x")

    children = started(2, act)
    wait_until(waiting.exists, "the second process does not come as far")
    if dies:
        wait_until(lambda: children[1].exitcode is not None, "it does not die")
    for child in children:
        kill(child, signal.SIGTERM)
    assert codes(children) == ([80, -signal.SIGKILL] if dies else [75, 75])
    status = read_status(tmp_path / "x")
    assert status.state == ("failed" if dies else "preempted")
    assert ("process 1 of 2 ended without an error message" in str(status.message)) == dies


@pytest.mark.parametrize("struck", [0, slow(1)])
def test_a_signal_while_the_group_forms_is_heard_by_who_waits(tmp_path: Path, struck: int) -> None:
    def act(rank: int) -> None:
        form = world_module.dist.init_process_group

        def stopped(*arguments: Any, **keywords: Any) -> None:
            if rank == struck:
                os.kill(os.getpid(), signal.SIGTERM)
            form(*arguments, **keywords)

        world_module.dist.init_process_group = stopped
        pretrain(config(), tmp_path / "x")

    assert codes(started(2, act)) == [75, 75]
    status = read_status(tmp_path / "x")
    assert (status.state, status.exit_code) == ("preempted", 75)


def test_a_method_may_make_groups_of_its_own() -> None:
    def act(rank: int) -> None:
        with world_module.joined() as world:
            world.connect(torch.device("cpu"))
            alone, number = world_module.dist.new_group([rank]), torch.full((1,), rank + 1.0)
            world_module.dist.all_reduce(number, group=alone)
            assert number == rank + 1
            world_module.dist.all_reduce(number)
            assert number == 3

    assert codes(started(2, act)) == [0, 0]


# The death of one.


def during_a_save(rank: int, act: Callable[..., object]) -> Callable[[int], None]:
    """Process ``rank`` is struck while the first one is between writing and renaming the checkpoint of step 4."""

    def prepare(here: int) -> None:
        save = CheckpointFolder.save

        def struck(self: CheckpointFolder, moment: Any, **keywords: Any) -> None:
            if moment.step == 4:
                if rank == 0:
                    (self.folder / ".ckpt-000000000004.safetensors.tmp").write_bytes(b"half")
                    act()
                else:
                    os.kill(peer(1), signal.SIGKILL)
            save(self, moment, **keywords)

        CheckpointFolder.save = struck  # type: ignore[method-assign]
        (Path(os.environ["SDCLR_TEST_FOLDER"]) / f"pid-{here}").write_text(str(os.getpid()))

    return prepare


def peer(rank: int) -> int:
    return int((Path(os.environ["SDCLR_TEST_FOLDER"]) / f"pid-{rank}").read_text())


@pytest.fixture
def kill_self(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    monkeypatch.setenv("SDCLR_TEST_FOLDER", str(tmp_path))
    return doing(lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.parametrize(
    ("where", "struck"), [("a save", 1), slow("a step", 0), slow("a step", 1), slow("a save", 0)]
)
def test_a_killed_process_ends_the_other_soon_and_the_run_goes_on(
    tmp_path: Path, expected: str, kill_self: Callable[[Any], None], struck: int, where: str
) -> None:
    prepare = (
        at_step(4, struck, kill_self) if where == "a step" else during_a_save(struck, kill_self)
    )
    ended_with = struck_run(tmp_path / "x", prepare, silent=True)
    assert ended_with == ([-signal.SIGKILL, 80] if struck == 0 else [80, -signal.SIGKILL])
    status = read_status(tmp_path / "x")
    if struck == 1:
        assert (status.state, status.exit_code) == ("failed", 80)
        assert "process 1 of 2 ended without an error message" in str(status.message).replace(
            "processes 1", "process 1"
        )
    else:
        assert status.state == "interrupted"
    goes_on(tmp_path / "x", expected)


@pytest.mark.parametrize("struck", [1, slow(0)])
def test_an_error_of_one_process_is_everyones(tmp_path: Path, expected: str, struck: int) -> None:
    def fail() -> None:
        raise DataError("a.png is damaged")

    ended_with = struck_run(tmp_path / "x", at_step(4, struck, doing(fail)))
    assert ended_with == [65, 65]
    status = read_status(tmp_path / "x")
    assert (status.state, status.exit_code) == ("failed", 65)
    assert status.message == ("" if struck == 0 else "process 1: ") + "a.png is damaged"
    goes_on(tmp_path / "x", expected)


@pytest.mark.slow
def test_a_bug_in_one_process_and_a_quiet_exit_end_the_other(tmp_path: Path, expected: str) -> None:
    def bug() -> None:
        raise ZeroDivisionError("of our own")

    ended_with = struck_run(tmp_path / "x", at_step(4, 1, doing(bug)))
    assert ended_with == [80, kill_campaign.FAILED]
    assert "process 1: ZeroDivisionError: of our own" in str(read_status(tmp_path / "x").message)
    ended_with = struck_run(tmp_path / "x", at_step(5, 1, doing(lambda: os._exit(0))), silent=True)
    assert ended_with == [80, 0]
    goes_on(tmp_path / "x", expected)


@pytest.mark.parametrize("struck", [1, slow(0)])
def test_a_process_that_hangs_is_noticed_after_the_patience(
    tmp_path: Path, expected: str, struck: int
) -> None:
    hang = doing(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    ended_with = struck_run(
        tmp_path / "x",
        at_step(4, struck, hang),
        silent=True,
        stopped=(struck,),
        patience_seconds=2.0,
    )
    assert ended_with[1 - struck] == 80
    if struck == 1:
        message = str(read_status(tmp_path / "x").message)
        assert "process 1 of 2 does not answer" in message
        assert "waiting 2000ms" in message, "as long as the patience is, and no longer"
    goes_on(tmp_path / "x", expected)


@pytest.mark.slow
def test_a_disk_that_fails_ends_both_with_74(tmp_path: Path, expected: str) -> None:
    def prepare(_: int) -> None:
        save = CheckpointFolder.save

        def failing(self: CheckpointFolder, moment: Any, **keywords: Any) -> None:
            if moment.step == 4:
                raise StorageError("the disk is full")
            save(self, moment, **keywords)

        CheckpointFolder.save = failing  # type: ignore[method-assign]

    assert struck_run(tmp_path / "x", prepare) == [74, 74]
    assert read_status(tmp_path / "x").checkpoint_step == 3
    goes_on(tmp_path / "x", expected)


@pytest.mark.parametrize(
    "step", [random.Random(5).randrange(1, STEPS + 1), *map(slow, range(1, STEPS + 1))]
)
def test_a_loss_that_is_not_finite_on_one_process_never_reaches_the_weights_of_any(
    tmp_path: Path, expected: str, step: int
) -> None:
    def prepare(rank: int) -> None:
        train_step = step_module.train_step

        def poisoned(training: Training, state: TrainingState, views: Views) -> None:
            factor = torch.nan if rank == 1 and state.step == step - 1 else 1.0
            poisonous = training.with_loss(lambda v: training.loss_per_image(v) * factor)
            train_step(poisonous, state, views)

        step_module.train_step = poisoned

    assert struck_run(tmp_path / "x", prepare) == [79, 79], (
        "at once: the time to wait for a word is that of a hang"
    )
    status = read_status(tmp_path / "x")
    assert (status.state, status.checkpoint_step) == ("failed", step - 1)
    assert f"the loss of step {step} is not a finite number" in str(status.message)
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "x").values())
    goes_on(tmp_path / "x", expected)


# Before the first step.


def test_what_the_first_process_refuses_ends_all_with_its_code(tmp_path: Path) -> None:
    absent = config().with_values({"data": {"name": "cifar10", "path": str(tmp_path / "nothing")}})
    assert run_each(tmp_path / "x", absent) == [66, 66]
    two_are_left = config().with_values({"batch_size": 13})  # of 405 images
    assert run_each(tmp_path / "x", two_are_left, size=3) == [78, 78, 78]
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_what_a_follower_cannot_do_ends_the_first_too(tmp_path: Path) -> None:
    def act(rank: int) -> None:
        if rank == 1:
            folder_module.follow = lambda *_: (_ for _ in ()).throw(DataError("no such disk here"))
        pretrain(config(), tmp_path / "x")

    assert codes(started(2, act)) == [65, 65]
    assert read_status(tmp_path / "x").message == "process 1: no such disk here"


def test_processes_that_would_not_do_the_same_are_refused(tmp_path: Path) -> None:
    def act(rank: int) -> None:
        if rank == 1:
            job_module.require_same_settings = lambda *_: None
            folder_module.restore = lambda *_: None
        pretrain(
            config().with_values({"optimizer.learning_rate": 0.3 + 0.1 * rank}), tmp_path / "x"
        )

    assert codes(started(2, act)) == [80, 80]
    assert "optimizer.learning_rate: 0.3 -> 0.4" in str(read_status(tmp_path / "x").message)


@pytest.mark.slow
def test_without_a_launcher_that_keeps_the_store_the_first_process_does(
    tmp_path: Path, expected: str
) -> None:
    """What it refuses is heard all the same; when it fails later, the others tell only that it has ended."""
    absent = config().with_values({"data": {"name": "cifar10", "path": str(tmp_path / "nothing")}})
    for run, ended_with in ((config(), [0, 0]), (absent, [66, 66])):

        def act(_: int, run: PretrainConfig = run) -> None:
            pretrain(run, tmp_path / run.data.name)

        assert codes(started(2, act, launcher_keeps_store=False)) == ended_with
    assert state_hash(tmp_path / "digits") == expected


@pytest.mark.slow
def test_three_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    """With two, every order of summing gives the same bits."""
    run = config().with_values({"backbone.width": 8})
    assert run_each(tmp_path / "whole", run, 3) == [0, 0, 0]
    prepare = at_step(5, 1, doing(lambda: os.kill(os.getpid(), signal.SIGTERM)))

    def act(rank: int) -> None:
        prepare(rank)
        pretrain(run, tmp_path / "x")

    assert codes(started(3, act)) == [75, 75, 75]
    assert run_each(tmp_path / "x", run, 3) == [0, 0, 0]
    assert state_hash(tmp_path / "x") == state_hash(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("launcher_keeps_store", [True, False])
def test_one_script_can_train_twice(
    tmp_path: Path, expected: str, launcher_keeps_store: bool
) -> None:
    def act(_: int) -> None:
        with contextlib.suppress(MissingInputError):
            pretrain(
                config().with_values(
                    {"data": {"name": "cifar10", "path": str(tmp_path / "nothing")}}
                ),
                tmp_path / "x",
            )
        for name in ("first", "second", "second"):
            pretrain(config(), tmp_path / name)

    assert codes(started(2, act, launcher_keeps_store=launcher_keeps_store)) == [0, 0]
    assert [state_hash(tmp_path / name) for name in ("first", "second")] == [expected, expected]


# Campaign and launcher.


@pytest.mark.slow
def test_random_kills_of_one_or_both_leave_a_run_that_ends_the_same(
    tmp_path: Path, expected: str
) -> None:
    rng, killed = random.Random(7), 0
    # the end of a dead first process is waited for in vain
    impatient = config().with_values({"patience_seconds": 3.0})
    begun = time.monotonic()
    assert run_each(tmp_path / "timed") == [0, 0]
    whole_seconds = time.monotonic() - begun
    while killed < 30:
        out = tmp_path / f"run-{killed}"
        children = started(2, lambda _, out=out: pretrain(impatient, out))  # type: ignore[misc]
        time.sleep(rng.uniform(0, whole_seconds))
        struck = rng.choice([children[:1], children[1:], children])
        for child in struck:
            kill(child, signal.SIGKILL)
        time.sleep(0.1)
        for child in (child for child in children if child not in struck):
            kill(child, signal.SIGTERM)  # as torchrun does when one of its workers has ended
        killed += any(code == -signal.SIGKILL for code in codes(children))
        goes_on(out, expected)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


@pytest.mark.slow
def test_torchrun_trains_passes_signals_on_and_restarts(tmp_path: Path, expected: str) -> None:
    words = ["-m", "sdclr", "pretrain", "digits_sdclr", *kill_campaign.SETTINGS, "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def launched(out: Path, *options: str) -> subprocess.Popen[str]:
        command = [*TORCHRUN, str(free_port()), *options, *words, str(out)]
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_for_step(out: Path, step: int) -> None:
        wait_until(
            lambda: max(Run(out).checkpoints.steps(), default=0) >= step,
            f"no checkpoint of step {step}",
        )

    with launched(tmp_path / "whole") as whole:
        out, err = whole.communicate(timeout=200)
    assert whole.returncode == 0, err
    assert out.count("backbone: ") == 1, "one process speaks"
    assert err.count("starting: ") == 1
    assert state_hash(tmp_path / "whole") == expected
    with launched(tmp_path / "x") as stopped:
        wait_for_step(tmp_path / "x", 2)
        stopped.send_signal(signal.SIGTERM)
        _, err = stopped.communicate(timeout=60)
    assert stopped.returncode != 0
    assert read_status(tmp_path / "x").state == "preempted", err
    with launched(tmp_path / "x", "--max-restarts", "2") as restarted:
        wait_for_step(tmp_path / "x", read_status(tmp_path / "x").checkpoint_step + 1)
        os.kill(int(read_status(tmp_path / "x").pid or 0), signal.SIGKILL)
        _, err = restarted.communicate(timeout=200)
    assert restarted.returncode == 0, err
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.slow
def test_two_jobs_that_meet_on_one_port_do_not_end_each_other(
    tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first goes on as if it were alone; each process of the second ends, with a word on the port."""
    port = free_port()
    monkeypatch.setattr("several_processes.free_port", lambda: port)

    def wait(*_: object) -> None:
        (tmp_path / "in a step").touch()
        wait_until((tmp_path / "second is over").exists, "the second job goes on")

    prepare = at_step(3, 0, wait)

    def first_job(rank: int) -> None:
        prepare(rank)
        pretrain(config(), tmp_path / "a")

    first = started(2, first_job, launcher_keeps_store=False)
    try:
        wait_until((tmp_path / "in a step").exists, "the first job takes no step")
        second = started(
            2, lambda _: pretrain(config(), tmp_path / "b"), launcher_keeps_store=False
        )
        assert codes(second) == [80, 80]
    finally:
        (tmp_path / "second is over").touch()
    assert codes(first) == [0, 0]
    assert state_hash(tmp_path / "a") == expected
