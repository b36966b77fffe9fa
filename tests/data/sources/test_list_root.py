"""Where the paths of a list begin: found, or asked for with the folder named."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from sdclr.data import DataConfig, build_data
from sdclr.errors import MissingInputError


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(path)} | values)


def test_paths_that_begin_where_the_command_runs_are_answered_with_the_root(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path\nphotos/cat/0.jpg\nphotos/cat/1.jpg\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MissingInputError, match=r"line 2: .*where this command runs.* data\.root="
    ) as caught:
        build_data(config(table, subset="all"))
    root = str(caught.value).rpartition("data.root=")[2].removesuffix(" to the command.")
    assert (
        len(build_data(config(table, subset="all", root=root)).train.to(torch.device("cpu"))) == 2
    )


def test_paths_that_begin_one_folder_above_the_root_are_answered_with_it(
    own: Path, tmp_path: Path
) -> None:
    (own / "t.csv").write_text("path\nphotos/cat/0.jpg\n")
    for values in ({}, {"root": str(own)}):
        with pytest.raises(
            MissingInputError, match=rf"(Add|Give) data\.root={tmp_path} to the command\."
        ):
            build_data(config(own / "t.csv", subset="all", **values))


def test_a_list_whose_files_lie_a_few_folders_away_is_answered_with_the_folder(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("work", "tables", "data of 2026"):
        (tmp_path / folder).mkdir()
    moved = own.rename(tmp_path / "data of 2026" / "photos")
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path\ncat/0.jpg\ndog/1.jpg\ndog/9999.jpg\n")
    monkeypatch.chdir(tmp_path / "work")
    for values in ({}, {"root": str(tmp_path / "work")}, {"on_error": "skip"}):
        with pytest.raises(
            MissingInputError, match=r"t\.csv, line 2: .*cat/0\.jpg is not in"
        ) as caught:
            build_data(
                config(tmp_path / "work" / ".." / "tables" / "t.csv", subset="all", **values)
            )
        typed = str(caught.value).rpartition("Add " if "root" not in values else "Give ")[2]
        assert shlex.split(typed.removesuffix(" to the command.")) == [f"data.root={moved}"]


def test_a_list_whose_files_lie_nowhere_in_sight_is_told_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\nx/0.jpg\nx/1.jpg\n")
    with pytest.raises(
        MissingInputError, match=r"nor is any other of its 2 images\. Add data\.root=FOLDER"
    ):
        build_data(config(tmp_path / "t.csv", subset="all"))


def test_a_list_of_which_later_files_are_there_is_taken(own: Path) -> None:
    absent = "".join(f"gone/{n}.jpg\n" for n in range(100))
    (own / "t.csv").write_text(f"path\n{absent}cat/0.jpg\n")
    assert len(build_data(config(own / "t.csv", subset="all")).train) == 101, (
        "whoever decodes them counts the others"
    )
