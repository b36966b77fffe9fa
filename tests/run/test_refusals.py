from __future__ import annotations

from pathlib import Path

import pytest

from sdclr.config import Section
from sdclr.errors import ConfigError, RunFolderError
from sdclr.run import Run
from sdclr.run.refusals import require_same_settings


class Method(Section):
    name: str = "sdclr"


class Config(Section):
    epochs: int = 2
    method: Method = Method()


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        require_same_settings(Run(tmp_path), Config())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        require_same_settings(Run(tmp_path / "file"), Config())
    require_same_settings(Run(tmp_path / "new"), Config())


def test_another_config_is_refused_naming_the_fields(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_text("config.yaml", "epochs: 2\nmethod:\n  name: sdclr\n")
    require_same_settings(run, Config())
    with pytest.raises(ConfigError, match=r"epochs: 2 -> 3") as error:
        require_same_settings(run, Config(epochs=3, method=Method(name="simclr")))
    assert "method.name: 'sdclr' -> 'simclr'" in str(error.value)
    assert error.value.exit_code == 78


def test_a_run_of_an_earlier_version_lacks_fields_and_is_the_same_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_text("config.yaml", "epochs: 2\n")  # no method then
    require_same_settings(run, Config())
    with pytest.raises(ConfigError, match=r"method\.name: 'sdclr' -> 'simclr'"):
        require_same_settings(run, Config(method=Method(name="simclr")))
    run.write_text("config.yaml", "epochs: 2\nlayers: 5\n")
    with pytest.raises(ConfigError, match="layers: 5 -> None"):
        require_same_settings(run, Config())
