"""The targets of tests/reliability/test_fuzz.py under atheris, which watches which branches of a reader an input takes.

    python tests/support/coverage_guided.py TARGET FOLDER [--mutant] [-runs=N] [-seed=N]

TARGET is one of TARGETS; FOLDER gets the inputs that took a new one. atheris takes the process over: it ends with 0
when only our own errors came, and with another code and a traceback when something else did. No tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import atheris

HERE = Path(__file__).parent
TARGETS = ("image_lists", "position_lists", "configs", "label_files", "checkpoint_headers")


def targets() -> ModuleType:
    """test_fuzz.py, its readers instrumented."""
    sys.path.insert(0, str(HERE))
    with atheris.instrument_imports(include=["sdclr", "yaml", "numpy.lib._format_impl"]):
        spec = importlib.util.spec_from_file_location(
            "test_fuzz", HERE.parent / "reliability" / "test_fuzz.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def check_and_seeds(name: str, fuzz: ModuleType) -> tuple[Callable[[bytes], None], list[bytes]]:
    """What looks at one input, and sound inputs to begin with."""
    if name == "image_lists":
        return fuzz.check_list, [b"a/b.jpg 1\nc.jpg 0\n", b"a/b.jpg\n./c d.jpg\r\n"]
    if name == "position_lists":
        return fuzz.check_positions, [fuzz.saved_array(fuzz.np.arange(5))]
    if name == "configs":
        seeds = [fuzz.yaml.safe_dump(values).encode() for values in (fuzz.DIGITS, fuzz.CIFAR)]
        return lambda content: fuzz.check_config(content.decode("utf-8", "surrogateescape")), seeds
    if name == "label_files":
        return fuzz.check_table, [b'path,label\na.jpg,cat\n"b,c.jpg",dog\n', b"image\na.jpg\n"]
    assert name == "checkpoint_headers"
    return fuzz.check_header, [json.dumps(fuzz.HEADER, separators=(",", ":")).encode()]


def plant_a_bug() -> None:
    """The reader of the authors' lists looks at the first digit of a label only; no seed shows that."""
    split_files = importlib.import_module("sdclr.data.sources.split_files")
    sound = split_files._problem

    def mutant(name: str, label: str, line: str) -> str | None:
        return sound(name, label[:1] if label[:1].isdigit() else label, line)

    split_files._problem = mutant  # type: ignore[attr-defined]


def main() -> None:
    name, folder, *flags = sys.argv[1:]
    fuzz = targets()
    check, seeds = check_and_seeds(name, fuzz)
    for number, seed in enumerate(seeds):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    if "--mutant" in flags:
        flags.remove("--mutant")
        plant_a_bug()
    atheris.Setup(
        [sys.argv[0], folder, f"-artifact_prefix={folder}/", "-max_len=4096", *flags], check
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
