"""The blocks of docs/exports.md run as they are, and its table is the package's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from sdclr.backbones.exports.table import EXPORTS

PAGE = (Path(__file__).parent.parent / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
OF_ONNX = [block for block in BLOCKS if "onnxruntime" in block]


def run(blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "exports"}
    for block in blocks:
        exec(compile(block, "docs/exports.md", "exec", dont_inherit=True), names)
    return names


@pytest.mark.tools
def test_the_blocks_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run([block for block in BLOCKS if block not in OF_ONNX])
    assert len(BLOCKS) == 8
    assert list(names["constants"]["input_size"]) == [3, 8, 8]
    theirs, tuned = names["network"].state_dict(), names["tuned"].state_dict()
    assert set(tuned) - set(theirs) == {"fc.weight", "fc.bias"}
    assert names["accuracies"].mean() > 0.9
    for library in ("timm", "torchvision"):
        assert f"network = {library}." in "".join(BLOCKS)
    assert names["facts"]["load_with"] == 'network = timm.create_model("resnet18", num_classes=0)'


@pytest.mark.tools
@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason='pip install "sdclr[onnx]"'
)
def test_the_block_of_onnx_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run([BLOCKS[0], *OF_ONNX])
    assert abs(names["theirs"] - names["features"].detach().numpy()).max() < 1e-4
    assert capsys.readouterr().out == "8\n"


def test_the_table_of_formats_is_what_the_package_has() -> None:
    rows = [f"| `{row.name}` | {row.summary} | {row.holds} |" for row in EXPORTS.values()]
    assert [line for line in PAGE.splitlines() if line.startswith("| `")] == rows
