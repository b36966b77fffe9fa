"""The blocks of docs/own-views.md run as they are, one after another; its commands name options that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdclr.cli import app
from sdclr.data.own_views import OWN_VIEWS

pytestmark = pytest.mark.journeys

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = r"^```python\n(.*?)^```"


@pytest.mark.filterwarnings("ignore:epoch 1:UserWarning")  # digits are too few and too small
def test_the_blocks_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "own-views.md").read_text(encoding="utf-8")
    names = {"__name__": "own_views_page"}
    with OWN_VIEWS.temporarily():
        for block in re.findall(BLOCKS, page, flags=re.MULTILINE | re.DOTALL):
            exec(compile(block, "docs/own-views.md", "exec", dont_inherit=True), names)
        assert list(OWN_VIEWS) == ["posterized", "corner", "noise"]
    for name in ("posterized", "corner", "noise"):
        assert Path("runs", name, "backbone.safetensors").is_file()


def test_the_observer_of_the_page_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class of docs/extending.md, put into my_observers.py as its text says."""
    page = (DOCS / "extending.md").read_text(encoding="utf-8")
    (block,) = (
        one for one in re.findall(BLOCKS, page, flags=re.MULTILINE | re.DOTALL) if "Alarm" in one
    )
    monkeypatch.chdir(tmp_path)
    Path("my_observers.py").write_text(block.partition("\n\n\nconfig = ")[0])
    (command,) = re.findall(r"^    sdclr (pretrain .*--observe my_observers:Alarm.*)$", page, re.M)
    words = [*command.split(), "views.size=8", "backbone.width=4", "health_every_epochs=0"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, f"{found.output} {found.exception}"
    assert "cannot be" not in found.output
