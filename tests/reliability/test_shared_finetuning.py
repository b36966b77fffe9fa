"""Several processes that fine-tune end with the model of one, go on where they stopped, and end together."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from patience import wait_until
from sdclr import Run, cli, finetune, pretrain, recipe
from sdclr.data import DataConfig
from sdclr.errors import ConfigError
from sdclr.jobs.finetune import build as build_module
from sdclr.jobs.finetune import loop as loop_module
from sdclr.jobs.finetune.training import State, Training
from sdclr.processes import messages as messages_module
from sdclr.processes import world as world_module
from several_processes import codes, started
from slow_variants import slow

pytestmark = pytest.mark.processes

DIGITS = DataConfig(name="digits", validation_per_class=18)
FILES = ("backbone.safetensors", "classifier.safetensors", "model.json", "validation.csv")
FULL: dict[str, Any] = {"mode": "full", "epochs": 2, "batch_size": 101}
Struck = Callable[[State], object]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"epochs": 1, "views.size": 8, "backbone.width": 4, "batch_size": 200}
    config = recipe("digits_simclr").with_values({**settings, "health_every_epochs": 0})
    return pretrain(config, tmp_path_factory.mktemp("runs") / "x")


def finetune_each(
    run: Run,
    out: Path,
    size: int = 2,
    prepare: Callable[[int], None] = lambda rank: None,
    stopped: tuple[int, ...] = (),
    **settings: Any,
) -> list[int | None]:
    def act(rank: int) -> None:
        prepare(rank)
        model = finetune(run, DIGITS, out, **settings)
        assert json.loads((out / "model.json").read_text()) == json.loads(json.dumps(model.result))

    return codes(started(size, act), stopped=stopped)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        f"{name} {key}": tensor
        for name in FILES[:2]
        for key, tensor in load_file(folder / name).items()
    }


def at_step(number: int, struck: int, act: Struck) -> Callable[[int], None]:
    """What makes process ``struck`` do ``act`` when it is about to take step ``number``."""

    def prepare(rank: int) -> None:
        train_step = loop_module.train_step

        def step(training: Training, state: State, *args: Any, **keywords: Any) -> None:
            if rank == struck and state.step == number - 1:
                act(state)
            train_step(training, state, *args, **keywords)

        loop_module.train_step = step

    return prepare


def die(_: State) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("size", "balance", "augment"),
    [(3, "weights", "crops"), slow(2, "sampling", "none"), slow(2, "logits", "views")],
)
def test_in_mode_full_processes_end_where_one_does(
    tmp_path: Path, run: Run, size: int, balance: str, augment: str
) -> None:
    """fp64; the shares of a batch of 101 differ, and so do those of the validation images."""
    settings = {**FULL, "precision": "fp64", "balance": balance, "augment": augment}
    settings |= {"backbone_learning_rate": 1e-3}
    one = finetune(run, DIGITS, tmp_path / "one", **settings)
    assert finetune_each(run, tmp_path / "several", size, **settings) == [0] * size
    found, expected = weights(tmp_path / "several"), weights(one.folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-7, atol=1e-7, msg=name)
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one.folder, tmp_path / "several")
    ]
    for theirs, ours in zip(*lines, strict=True):
        for name in ("loss", "validation_loss", "validation_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-10), name


def test_in_mode_full_the_weights_of_every_step_are_those_of_one_process(
    tmp_path: Path, run: Run
) -> None:
    """The checkpoint has all digits, where the model that is written has those of fp32."""
    settings = {**FULL, "precision": "fp64", "backbone_learning_rate": 1e-3, "epochs": 1}

    def keep(rank: int) -> None:
        loop_module._save = kept_in(tmp_path / f"two-{rank}.pt")

    assert finetune_each(run, tmp_path / "two", 2, keep, **settings) == [0, 0]
    save = loop_module._save
    try:
        loop_module._save = kept_in(tmp_path / "one.pt")
        finetune(run, DIGITS, tmp_path / "one", **settings)
    finally:
        loop_module._save = save
    expected = torch.load(tmp_path / "one.pt")
    first, second = (torch.load(tmp_path / f"two-{rank}.pt") for rank in range(2))
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), f"{name} is the same on both"
        torch.testing.assert_close(first[name], tensor, rtol=1e-10, atol=1e-10, msg=name)


def kept_in(path: Path) -> Callable[[Training, State, Run], None]:
    def save(training: Training, state: State, run: Run) -> None:
        torch.save(loop_module.weights_of(training), path)

    return save


def test_of_fixed_features_processes_learn_the_very_model_of_one(tmp_path: Path, run: Run) -> None:
    settings = {"epochs": 3, "batch_size": 100}
    one = finetune(run, DIGITS, tmp_path / "one", **settings)
    assert finetune_each(run, tmp_path / "two", 3, **settings) == [0, 0, 0]
    assert contents(tmp_path / "two") == contents(one.folder)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in one.folder.iterdir()
    )
    assert finetune_each(run, tmp_path / "two", 2, **settings) == [0, 0], "it is finished"


@pytest.mark.parametrize("augment", ["crops", slow("views")])
def test_a_head_on_crops_is_learned_together(tmp_path: Path, run: Run, augment: str) -> None:
    settings = {"epochs": 2, "batch_size": 100, "augment": augment, "precision": "fp64"}
    one = finetune(run, DIGITS, tmp_path / "one", **settings)
    assert finetune_each(run, tmp_path / "two", 2, **settings) == [0, 0]
    for name, tensor in weights(one.folder).items():
        found = weights(tmp_path / "two")[name]
        torch.testing.assert_close(found, tensor, rtol=1e-6, atol=1e-7, msg=name)


@pytest.fixture(scope="module")
def whole(run: Run) -> dict[str, bytes]:
    """Of two processes that nothing happens to."""
    out = run.folder.parent / "whole"
    assert finetune_each(run, out, **FULL) == [0, 0]
    return contents(out)


@pytest.mark.parametrize(
    ("at", "struck", "times"), [(2, 1, 2), slow(3, 0, 1), slow(4, 1, 1), slow(4, 0, 1)]
)
def test_a_signal_to_either_saves_and_ends_both_and_two_go_on_bit_for_bit(
    tmp_path: Path, run: Run, whole: dict[str, bytes], at: int, struck: int, times: int
) -> None:
    def send(_: State) -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)

    assert finetune_each(run, tmp_path / "x", 2, at_step(at, struck, send), **FULL) == [75, 75]
    assert not (tmp_path / "x" / "classifier.safetensors").exists()
    assert Run(tmp_path / "x").checkpoints.steps()[0] in (at, at + 1)
    assert finetune_each(run, tmp_path / "x", **FULL) == [0, 0]
    assert contents(tmp_path / "x") == whole


@pytest.mark.parametrize("struck", [1, slow(0)])
def test_the_death_of_one_ends_the_other_and_two_go_on_bit_for_bit(
    tmp_path: Path, run: Run, whole: dict[str, bytes], struck: int
) -> None:
    out = tmp_path / "x"
    ended = finetune_each(run, out, 2, at_step(6, struck, die), **FULL)
    assert ended[struck] == -signal.SIGKILL
    assert ended[1 - struck] == 80
    assert finetune_each(run, out, **FULL) == [0, 0]
    assert contents(out) == whole


@pytest.mark.parametrize("struck", [0, slow(1)])
def test_an_error_of_one_while_features_are_computed_ends_both(
    tmp_path: Path, run: Run, struck: int
) -> None:
    def prepare(rank: int) -> None:
        def fail(*_: Any) -> None:
            raise ConfigError("no disk")

        if rank == struck:
            build_module.extract_features = fail

    assert finetune_each(run, tmp_path / "x", 2, prepare, epochs=2) == [78, 78]
    assert not (tmp_path / "x" / "classifier.safetensors").exists()


def spoilt(rank: int, struck: int, moment: Callable[[Training], bool]) -> None:
    """Process ``struck`` finds a feature that is no number among the validation images."""
    features = build_module._features

    def found(training: Training, images: Any) -> Tensor:
        if rank == struck and moment(training):
            raise build_module.NonFiniteError("a feature is not finite")
        return features(training, images)

    build_module._features = found


@pytest.mark.parametrize("struck", [1, slow(0)])
def test_a_feature_that_is_not_finite_on_one_ends_both_at_once(
    tmp_path: Path, run: Run, struck: int
) -> None:
    def prepare(rank: int) -> None:
        spoilt(rank, struck, lambda training: True)

    assert finetune_each(run, tmp_path / "x", 2, prepare, **FULL) == [79, 79]


@pytest.mark.parametrize("struck", [1, slow(0)])
def test_a_loss_that_is_not_finite_on_one_moves_no_weight_of_any(
    tmp_path: Path, run: Run, whole: dict[str, bytes], struck: int
) -> None:
    def prepare(rank: int) -> None:
        train_step = loop_module.train_step

        def step(training: Training, state: State, inputs: Tensor, *rest: Any, **more: Any) -> None:
            factor = torch.nan if rank == struck and state.step == 5 else 1.0
            train_step(training, state, inputs * factor, *rest, **more)

        loop_module.train_step = step

    out = tmp_path / "x"
    assert finetune_each(run, out, 2, prepare, **FULL) == [79, 79]
    newest = Run(out).checkpoints.newest()
    assert newest is not None
    assert all(tensor.isfinite().all() for tensor in newest.tensors.values())
    assert finetune_each(run, out, **FULL) == [0, 0]
    assert contents(out) == whole


def test_a_signal_to_one_that_waits_ends_the_one_that_learns(tmp_path: Path, run: Run) -> None:
    learns = tmp_path / "it learns"
    tell = at_step(5, 0, lambda _: learns.touch())

    def prepare(rank: int) -> None:
        tell(rank)
        if rank == 1:
            wait_for = messages_module.Messages.wait_for

            def waiting(*arguments: Any) -> dict[str, Any]:
                if world_module._FINISHED in arguments:
                    wait_until(learns.exists, "the first process has not learnt")
                    os.kill(os.getpid(), signal.SIGTERM)
                return wait_for(*arguments)

            messages_module.Messages.wait_for = waiting  # type: ignore[method-assign]

    settings = {"epochs": 100_000, "early_stop_epochs": 0, "batch_size": 1000}
    assert finetune_each(run, tmp_path / "x", 2, prepare, **settings) == [75, 75]
    assert Run(tmp_path / "x").checkpoints.newest() is not None


def test_a_signal_to_the_one_that_learns_ends_those_that_wait_and_they_go_on(
    tmp_path: Path, run: Run
) -> None:
    settings = {"epochs": 3, "batch_size": 100}
    one = finetune(run, DIGITS, tmp_path / "one", **settings)
    prepare = at_step(5, 0, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert finetune_each(run, tmp_path / "x", 2, prepare, **settings) == [75, 75]
    assert finetune_each(run, tmp_path / "x", 3, **settings) == [0, 0, 0]
    assert contents(tmp_path / "x") == contents(one.folder)


def test_what_is_refused_is_refused_by_all_before_any_work(tmp_path: Path, run: Run) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("precious")
    assert finetune_each(run, tmp_path / "thesis") == [78, 78]
    # of 294 images two are left, which three processes cannot share
    left = {"mode": "full", "batch_size": 73}
    assert finetune_each(run, tmp_path / "x", 3, **left) == [78, 78, 78]
    assert not (tmp_path / "x").exists()


def test_processes_that_would_not_do_the_same_are_refused(tmp_path: Path, run: Run) -> None:
    def act(rank: int) -> None:
        finetune(run, DIGITS, tmp_path / "x", seed=1 + rank)

    assert codes(started(2, act)) == [80, 80]


def test_a_batch_norm_of_batches_alone_is_refused() -> None:
    network: Any = torch.nn.Sequential(torch.nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(ConfigError, match="batch norm 0 keeps no running statistics"):
        build_module._require_norms_of_images(network)


def test_on_the_command_line_the_first_process_alone_speaks(tmp_path: Path, run: Run) -> None:
    shutil.copytree(run.folder, tmp_path / "run")

    def act(rank: int) -> None:
        words = ["finetune", str(tmp_path / "run"), "--out", str(tmp_path / "m"), "--epochs", "2"]
        found = CliRunner().invoke(cli.app, words)
        assert found.exit_code == 0, found.exception
        assert ("next: " in found.stdout) == (rank == 0)

    assert codes(started(2, act)) == [0, 0]
