"""Logging to other tools: the real packages write to disk, and what is read back is what the run measured."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from killing import state_hash
from one_training import interrupting, patch_steps
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.cli import app
from sdclr.errors import ConfigError
from sdclr.observers import (
    LOGS,
    EpochDone,
    MLflowLog,
    Observer,
    TensorBoardLog,
    WandbLog,
    logged_values,
    logs_named,
)

TINY = [
    *("backbone.width=2", "views.size=8", "batch_size=200", "epochs=2"),
    *("checkpoint_every_epochs=1", "health_every_epochs=1"),
]


def config() -> PretrainConfig:
    """Two epochs of three steps."""
    return recipe("digits_sdclr").with_overrides(TINY)


@pytest.mark.parametrize("name", LOGS)
def test_a_missing_package_is_an_error_that_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logged_values, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf'pip install "sdclr\[{name}\]"'):
        LOGS[name]()
    out = tmp_path / "x"
    found = CliRunner().invoke(
        app, ["pretrain", "digits_sdclr", *TINY, "--out", str(out), "--log", name]
    )
    assert found.exit_code != 0
    assert not out.exists()


def test_a_log_that_is_not_known_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match="tensorboard, wandb, mlflow, got neptune"):
        logs_named("neptune")
    assert logs_named(" , ") == []


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file of these packages outside of the test's folder, no message home, and their own warnings are theirs."""
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        yield


def needs(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: make test-tools installs it")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw of a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def mlflow_points(uri: str) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """The one run of a store, and its points by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sdclr")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run, {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def wandb_points(folder: Path) -> list[dict[str, Any]]:
    """The history of every offline run below a folder, as ``wandb sync`` reads it."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted(folder.rglob("run-*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append(
                    {
                        one.key or ".".join(one.nested_key): json.loads(one.value_json)
                        for one in items
                    }
                )
    return rows


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of an offline run, which is a LevelDB log behind seven bytes of its own."""
    assert content[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is padding
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def expected(lines: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(line["step"], pytest.approx(line[name])) for line in lines if name in line]


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_tensorboard_draws_what_the_run_measured(tmp_path: Path) -> None:
    needs("tensorboard")
    run = pretrain(config(), tmp_path / "x", observers=[TensorBoardLog()])
    found, lines = scalars(run.folder / "tensorboard"), run.metrics()
    for name in ("loss", "health_rank", "health_knn_few", "untrained_rank", "mask_churn"):
        assert found[name] == expected(lines, name)
    assert set(lines[0]) - {"step"} <= set(found)


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_tensorboard_has_one_point_an_epoch_of_a_run_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("tensorboard")
    whole = pretrain(config(), tmp_path / "whole").metrics()
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(4))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config(), tmp_path / "x", observers=[TensorBoardLog()])
    resume(tmp_path / "x", observers=[TensorBoardLog()])
    assert scalars(tmp_path / "x" / "tensorboard")["loss"] == expected(whole, "loss")


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_wandb_keeps_what_the_run_measured_without_a_network(tmp_path: Path) -> None:
    needs("wandb")
    run = pretrain(config(), tmp_path / "x", observers=[WandbLog()])
    rows, lines = wandb_points(run.folder), run.metrics()
    assert [row["_step"] for row in rows] == [line["step"] for line in lines]
    for name in ("loss", "health_rank", "health_knn_few", "mask_churn"):
        assert [row[name] for row in rows] == pytest.approx([line[name] for line in lines])


def interrupt_a_run(folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that MLflow watches, ended as by Ctrl-C in its fourth step."""
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(4))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config(), folder, observers=[MLflowLog(uri)])


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_mlflow_keeps_settings_and_points_in_sqlite_and_goes_on_with_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow")
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    interrupt_a_run(tmp_path / "x", uri, monkeypatch)
    lines = resume(tmp_path / "x", observers=[MLflowLog(uri)]).metrics()
    run, points = mlflow_points(uri)  # one run
    assert run.info.status == "FINISHED"
    assert run.data.params["method.prune_ratio"] == "0.9"
    assert run.data.params["backbone.width"] == "2"
    for name in ("loss", "health_rank", "untrained_rank", "mask_churn"):
        assert points[name] == expected(lines, name)


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_another_training_at_the_same_place_is_another_run_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow")
    from mlflow import MlflowClient

    uri, out = f"sqlite:///{tmp_path / 'all.db'}", tmp_path / "x"
    interrupt_a_run(out, uri, monkeypatch)
    shutil.rmtree(out)
    run = pretrain(config().with_values({"seed": 11}), out, observers=[MLflowLog(uri)])
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sdclr")
    assert experiment is not None
    found = {one.data.params["seed"]: one for one in client.search_runs([experiment.experiment_id])}
    assert {seed: one.info.status for seed, one in found.items()} == {
        "10": "RUNNING",
        "11": "FINISHED",
    }
    points = client.get_metric_history(found["11"].info.run_id, "loss")
    assert [(one.step, one.value) for one in points] == expected(run.metrics(), "loss")


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_a_run_that_has_moved_continues_its_run_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow")
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    interrupt_a_run(tmp_path / "x", uri, monkeypatch)
    (tmp_path / "x").rename(tmp_path / "y")
    lines = resume(tmp_path / "y", observers=[MLflowLog(uri)]).metrics()
    run, points = mlflow_points(uri)  # one run
    assert run.info.status == "FINISHED"
    assert points["loss"] == expected(lines, "loss")


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_mlflow_keeps_its_file_in_a_folder_with_signs_of_addresses(tmp_path: Path) -> None:
    needs("mlflow")
    out = tmp_path / "lr%41 'a' ?b#c"
    run = pretrain(config(), out, observers=[MLflowLog()])
    assert (out / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name != "wandb-own"] == [out.name]
    (tmp_path / "copy.db").write_bytes((out / "mlflow.db").read_bytes())
    found = mlflow_points(f"sqlite:///{tmp_path / 'copy.db'}")[1]["loss"]
    assert found == expected(run.metrics(), "loss")


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("variable", [None, ""])
def test_mlflow_writes_into_the_run_folder_unless_it_is_told_where(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow")
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    run = pretrain(config(), tmp_path / "x", observers=[MLflowLog()])
    assert mlflow_points(f"sqlite:///{run.folder / 'mlflow.db'}")[1]["loss"] == expected(
        run.metrics(), "loss"
    )


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", LOGS)
def test_a_run_that_is_logged_is_bit_for_bit_one_that_is_not(tmp_path: Path, name: str) -> None:
    needs(name)
    logged = pretrain(config(), tmp_path / "logged", observers=logs_named(name))
    assert state_hash(logged.folder) == state_hash(pretrain(config(), tmp_path / "plain").folder)


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
def test_the_command_line_logs_to_several(tmp_path: Path) -> None:
    for name in ("tensorboard", "mlflow"):
        needs(name)
    out = tmp_path / "x"
    command = ["pretrain", "digits_sdclr", *TINY, "--out", str(out), "--log", "tensorboard,mlflow"]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert len(scalars(out / "tensorboard")["loss"]) == 2
    assert len(mlflow_points(f"sqlite:///{out / 'mlflow.db'}")[1]["loss"]) == 2


@pytest.mark.tools
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", LOGS)
def test_a_folder_that_cannot_be_written_ends_the_log_and_not_the_run(
    tmp_path: Path, name: str
) -> None:
    needs(name)
    blocked = tmp_path / "file"
    blocked.write_text("no folder", encoding="utf-8")
    log: Observer
    if name == "mlflow":
        log = MLflowLog(f"sqlite:///{blocked / 'x.db'}")
    else:
        log = {"tensorboard": TensorBoardLog, "wandb": WandbLog}[name](folder=blocked / "x")
    with pytest.warns(
        UserWarning, match=f"{type(log).__name__} failed and no longer watches the run"
    ):
        run = pretrain(config(), tmp_path / "x", observers=[log])
    assert len(run.metrics()) == 2


@pytest.mark.journeys
@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_fails_in_an_epoch_never_harms_the_run(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged_values, "find_spec", lambda _: object())
    log = LOGS[name]()

    def fail(done: EpochDone) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "on_begin", lambda begins: None)
    monkeypatch.setattr(log, "on_epoch", fail)
    with pytest.warns(UserWarning, match="failed and no longer watches the run"):
        run = pretrain(config(), tmp_path / "x", observers=[log])
    assert all(math.isfinite(line["loss"]) for line in run.metrics())
