"""Imports go one way: cli, workflows, jobs, recipes, settings, rooms, base; and rooms do not import each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sdclr

ROOT = Path(sdclr.__file__).parent
ROOMS = {"data", "backbones", "methods", "evaluation", "observers", "presentation"}
BASE = {"batch", "config", "errors", "run", "storage", "compute", "processes"}
BASE |= {
    "addresses",
    "any_progress",
    "image_records",
    "lazy_names",
    "mean_std",
    "output_streams",
    "outside",
    "own_code",
    "planes",
    "safe_text",
    "stills",
}
LEVELS = {"cli": 6, "sklearn": 6, "workflows": 5, "jobs": 4, "recipes": 3, "settings": 2}
LEVELS |= dict.fromkeys(ROOMS, 1) | dict.fromkeys(BASE, 0)
FILES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if path.name not in ("__main__.py",) and path != ROOT / "__init__.py"
)


def part_of(module: str) -> str:
    return module.removeprefix("sdclr.").split(".")[0]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            if node.module == "sdclr":
                parts |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("sdclr."):
                parts.add(part_of(node.module))
        elif isinstance(node, ast.Import):
            parts |= {
                part_of(alias.name) for alias in node.names if alias.name.startswith("sdclr.")
            }
    return parts


def test_every_file_belongs_to_a_known_part() -> None:
    parts = {part_of(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in FILES}
    assert parts == set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_rooms_are_strangers(path: Path) -> None:
    here = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for there in imported_parts(path) - {here}:
        assert there in LEVELS, f"{path} imports sdclr.{there}, which is no part of the house"
        assert LEVELS[there] < LEVELS[here] or LEVELS[here] == LEVELS[there] == 0, (
            f"{here} must not import {there}"
        )


def test_nobody_outside_data_asks_for_the_class_of_a_collection() -> None:
    classes = re.compile(
        r"isinstance\([^()]*,\s*\(?[^()]*\b(ImageArrays|ImageFiles|DecodedStore)\b"
    )
    for path in FILES:
        inside = path.relative_to(ROOT).parts[:2] in (("data", "collections"), ("data", "sources"))
        assert inside or not classes.search(path.read_text(encoding="utf-8")), (
            f"{path}: Images says what it needs"
        )


INSIDE_DATA = ["remote", "decoding", "views", "collections", "sources"]
"""From the bottom to the top; decoding and views know nothing of each other, and views nothing of remote."""


def test_the_packages_of_data_import_downwards() -> None:
    for path in (ROOT / "data").rglob("*.py"):
        package = path.relative_to(ROOT / "data").parts[0]
        if package not in INSIDE_DATA:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        imported = {
            line.split()[1].split(".")[2] for line in lines if line.startswith("from sdclr.data.")
        }
        allowed = set(INSIDE_DATA[: INSIDE_DATA.index(package)]) if package != "views" else set()
        above = imported & set(INSIDE_DATA) - allowed - {package}
        assert not above, f"{path} imports {above}"


def test_jobs_meet_through_a_run_folder_alone() -> None:
    for path in (ROOT / "jobs").rglob("*.py"):
        # a job may be a folder of files
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])
        lines = path.read_text(encoding="utf-8").splitlines()
        imported = [line.split()[1] for line in lines if line.startswith("from sdclr.jobs.")]
        others = {module for module in imported if not f"{module}.".startswith(f"sdclr.{own}.")}
        assert not others, f"{path} calls another job"


def test_the_maths_never_sees_a_config() -> None:
    plain = [
        "methods/nt_xent.py",
        "methods/tiled_nt_xent.py",
        "methods/self_competitor.py",
        "methods/tied_twin.py",
        "methods/prunable_weights.py",
        "methods/weight_mask.py",
        "data/splits.py",
        "evaluation/balancedness.py",
    ]
    plain += [
        "evaluation/linear_probe.py",
        "evaluation/logistic_probe.py",
        "evaluation/knn.py",
        "data/views/augment.py",
    ]
    for name in plain:
        assert "config" not in imported_parts(ROOT / name), (
            f"{name} takes plain tensors and numbers"
        )
