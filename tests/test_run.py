from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sdclr
from sdclr.config import Section
from sdclr.errors import ConfigError, DataError, MissingInputError, RunFolderError
from sdclr.run import Run, environment


class Method(Section):
    name: str = "sdclr"


class Config(Section):
    epochs: int = 2
    method: Method = Method()


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Run(tmp_path).check(Config())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        Run(tmp_path / "file").check(Config())
    Run(tmp_path / "new").check(Config())


def test_another_config_is_refused_naming_the_fields(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_text("config.yaml", "epochs: 2\nmethod:\n  name: sdclr\n")
    run.check(Config())
    with pytest.raises(ConfigError, match=r"epochs: 2 -> 3") as error:
        run.check(Config(epochs=3, method=Method(name="simclr")))
    assert "method.name: 'sdclr' -> 'simclr'" in str(error.value)
    assert error.value.exit_code == 78


def test_a_run_of_an_earlier_version_lacks_fields_and_is_the_same_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_text("config.yaml", "epochs: 2\n")  # no method then
    run.check(Config())
    with pytest.raises(ConfigError, match=r"method\.name: 'sdclr' -> 'simclr'"):
        run.check(Config(method=Method(name="simclr")))
    run.write_text("config.yaml", "epochs: 2\nlayers: 5\n")
    with pytest.raises(ConfigError, match="layers: 5 -> None"):
        run.check(Config())


def test_in_use_is_seen_from_outside_only(tmp_path: Path) -> None:
    mine, other = Run(tmp_path / "x"), Run(tmp_path / "x")
    assert not other.in_use(), "no folder yet"
    with mine:
        assert other.in_use()
        assert not mine.in_use(), "the one that writes is not another"
    assert not other.in_use()


def test_two_processes_cannot_use_one_folder(tmp_path: Path) -> None:
    code = "import sys; from sdclr.run import Run\nwith Run(sys.argv[1]): pass"
    with Run(tmp_path / "x"):
        held = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True
        )
    assert held.returncode != 0
    assert "in use by another process" in held.stderr
    free = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True
    )
    assert free.returncode == 0


def test_metrics_are_cut_to_what_a_checkpoint_remembers(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.cut_metrics(0)  # nothing there yet
    run.append_metrics({"epoch": 1})
    size = run.metrics_size()
    run.append_metrics({"epoch": 2})
    run.cut_metrics(size)
    assert [json.loads(line) for line in run.metrics_path.read_text().splitlines()] == [
        {"epoch": 1}
    ]


def test_reading_what_is_not_there_or_not_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no config\.yaml"):
        Run(tmp_path).require()
    with pytest.raises(MissingInputError, match=r"split\.json"):
        Run(tmp_path).read_json("split.json")
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Run(tmp_path).read_json("split.json")


def test_the_environment_names_versions_and_device() -> None:
    facts = environment("CPU: test")
    assert {
        "sdclr",
        "torch",
        "python",
        "device",
        "command",
        "commit",
        "created",
        "world_size",
    } <= facts.keys()
    assert facts["device"] == "CPU: test"


def test_a_copy_of_the_source_that_is_not_installed_knows_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    found = environment("cpu")
    assert found["sdclr"] == sdclr.__version__
    assert found["timm"] is None
