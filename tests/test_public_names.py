"""Every public name has a docstring with an example, and the examples run one after another in one folder."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sdclr
import sdclr.evaluation.rarity
import sdclr.methods
from sdclr.evaluation.probes import PROBES
from sdclr.presentation.report import CURVES

pytestmark = pytest.mark.usefixtures("light_figures")

NEED_FILES_OF_THE_AUTHORS = ("adopt", "evaluate_classifier")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """Where all examples run: a training that one of them begins is there for the next."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(golden / "upstream_sdclr_resnet18_w8.pt", folder / "model_2000.pt")
    return folder


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    curves = dict(CURVES)
    with PROBES.temporarily():
        yield
    CURVES.clear()
    CURVES.update(curves)


@pytest.mark.parametrize("package", [sdclr, sdclr.evaluation.rarity, sdclr.methods])
def test_names_loaded_on_first_use_are_those_that_a_type_checker_sees(package: ModuleType) -> None:
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    for imported in block.body:
        assert isinstance(imported, ast.ImportFrom)
        for name in imported.names:
            home = importlib.import_module(str(imported.module))
            assert getattr(package, name.name) is getattr(home, name.name)
    seen = {name.name for node in block.body for name in node.names}  # type: ignore[attr-defined]
    assert set(package.__all__) - vars(package).keys() <= seen, "the others are imported at once"


@pytest.mark.parametrize("name", sdclr.__all__)
def test_the_example_of_a_public_name_runs(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    public = getattr(sdclr, name)
    module = importlib.import_module(public.__module__)
    # as in a user's script
    names = {key: value for key, value in vars(module).items() if key != "annotations"}
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, module, globs=names)
    runnable = [one for one in test.examples if not one.options.get(doctest.SKIP)]
    assert len(runnable) > (0 if name not in NEED_FILES_OF_THE_AUTHORS else -1), (
        f"{name} has no example"
    )
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)
