"""A grid's file: what it plans, and one clear error for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdclr.errors import ConfigError, MissingInputError
from sdclr.methods.table import METHODS
from sdclr.recipes import recipe
from sdclr.workflows.grid.cells import shared_keys
from sdclr.workflows.grid.file import find_grid, parse_grid, read_grid, shipped_grids
from sdclr.workflows.grid.records import name_of
from sdclr.workflows.grid.run import open_grid
from small_grid import TINY, small_file, small_grid


def arm(**own: Any) -> dict[str, Any]:
    return {"arms": {"simclr": {"recipe": "digits_simclr"}, "sdclr": own}}


def test_cells_run_split_by_split_in_the_order_of_the_arms(tmp_path: Path) -> None:
    arms = {
        "simclr": {"recipe": "digits_simclr", "splits": ["1-2", "generated 101-102"]},
        "sdclr": {"splits": ["1-2", "generated 101-102"]},
        "half": {"settings": {"method.prune_ratio": 0.5}, "seeds": [1, 2]},
    }
    cells = small_grid(tmp_path, arms=arms, question=None).cells
    assert [name_of(cell) for cell in cells] == [
        "simclr-split1-seed10",
        "sdclr-split1-seed10",
        "half-split1-seed1",
        "half-split1-seed2",
        "simclr-split2-seed10",
        "sdclr-split2-seed10",
        "half-split2-seed1",
        "half-split2-seed2",
        "simclr-generated101-seed10",
        "sdclr-generated101-seed10",
        "simclr-generated102-seed10",
        "sdclr-generated102-seed10",
    ]
    assert cells[2].config.method.to_dict()["prune_ratio"] == 0.5
    assert cells[2].config.epochs == TINY["epochs"]


def test_settings_can_be_nested_or_texts(tmp_path: Path) -> None:
    nested = small_grid(tmp_path, **arm(settings={"method": {"prune_ratio": 0.5}}))
    texts = small_grid(tmp_path, **arm(settings=["method.prune_ratio=0.5"]))
    assert [cell.config for cell in nested.cells] == [cell.config for cell in texts.cells]


def test_a_generated_split_is_drawn_where_the_authors_lists_are_given(tmp_path: Path) -> None:
    file = small_file(
        tmp_path,
        base="cifar10_lt_sdclr",
        overrides={"epochs": 1},
        arms={"sdclr": {}},
        splits=["authors 1-2", "generated 101"],
        question=None,
    )
    cells, _ = open_grid(file, tmp_path / "out", splits_dir=str(tmp_path))
    assert [cell.config.data.splits_dir for cell in cells.cells] == [str(tmp_path)] * 2 + [None]
    assert [cell.config.data.split for cell in cells.cells] == [1, 2, 101]


def test_an_arm_may_begin_with_the_config_of_a_run(tmp_path: Path) -> None:
    theirs = recipe("digits_sdclr").with_values(TINY | {"recipe": "own_images", "epochs": 7})
    path = tmp_path / "run" / "config.yaml"
    path.parent.mkdir()
    path.write_text(theirs.to_yaml())
    arms = {"sdclr": {}, "simclr": {"recipe": "digits_simclr"}}
    cells = small_grid(tmp_path, base=str(path), arms=arms, overrides=None, question=None)
    assert [cell.config.epochs for cell in cells.cells[:2]] == [7, recipe("digits_simclr").epochs]
    assert cells.cells[0].config.backbone.width == TINY["backbone.width"]
    with pytest.raises(MissingInputError, match=r"config file .*no\.yaml does not exist"):
        small_grid(tmp_path, base=str(tmp_path / "no.yaml"))
    path.write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match=r"(?s)base: in config file .*epoch is not a setting"):
        small_grid(tmp_path, base=str(path))


def test_a_mapping_may_be_the_value_of_a_setting(tmp_path: Path) -> None:
    numbers = {"mean": [0.5] * 3, "std": [0.25] * 3}
    settings = {"backbone.normalisation": numbers}
    cells = small_grid(tmp_path, **arm(settings=settings)).cells
    assert cells[1].config.to_dict()["backbone"]["normalisation"] == numbers
    nested = small_grid(tmp_path, **arm(settings={"backbone": {"normalisation": numbers}}))
    assert nested.cells[1].config == cells[1].config
    own = {"backbone": {"name": "timm:vit_tiny_patch16_224", "options": {"depth": 2}}}
    arms = {"a": {"settings": own | {"views.size": 224}}}
    found = small_grid(
        tmp_path, arms=arms, overrides={"epochs": 1, "data.options": {}}, question=None
    )
    assert found.cells[0].config.backbone.options == {"depth": 2}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"base": None}, "base is missing"),
    ({"arms": None}, "arms is missing"),
    ({"arms": {}}, "arms"),
    ({"arm": {}}, "arm is not a setting; did you mean arms?"),
    ({"base": "digits_sdlcr"}, "no recipe 'digits_sdlcr'. Did you mean digits_sdclr?"),
    (arm(recipe="digits_sdlcr"), "arms.sdclr.recipe: there is no recipe"),
    (arm(setings={}), "arms.sdclr: setings is not a setting; did you mean settings?"),
    (
        arm(settings={"method.prune_rato": 0.5}),
        "arms.sdclr.settings: method.prune_rato is not a setting; did you mean method.prune_ratio?",
    ),
    (arm(settings={"method.prune_ratio": 90}), "It is a fraction; did you mean 0.9?"),
    (arm(settings={"seed": 3}), "arms.sdclr.settings: seed is decided by seeds"),
    ({"overrides": {"data.split": 3}}, "overrides: data.split is decided by splits"),
    ({"overrides": {"epoch": 3}}, "overrides: epoch is not a setting"),
    (
        {"base": "own_images"},
        "base: own_images is not a recipe: it is what `sdclr pretrain FOLDER`",
    ),
    ({"untested": "leave"}, "untested must be 'raise' or 'leave_out'"),
    ({"splits": []}, "splits is empty"),
    (arm(splits=[]), "arms.sdclr.splits is empty"),
    ({"splits": ["1-"]}, "cannot read splits '1-'"),
    ({"splits": [0]}, "data.split"),
    ({"splits": ["autors 1"]}, "Did you mean authors?"),
    ({"splits": ["authors 1"]}, "there are no authors' lists of digits"),
    ({"splits": [1, "generated 1"]}, "split 1 is named with and without its origin"),
    ({"seeds": []}, "seeds is empty"),
    ({"probes": []}, "probes is empty"),
    ({"probes": ["kn"]}, "there is no probe 'kn'"),
    ({"protocol": "cache"}, "protocol: must be"),
    ({"question": {"d": 1.0}}, "question.baseline is missing"),
    ({"question": {"baseline": "simclr", "probe": "knn"}}, "question.d is missing"),
    ({"question": {"baseline": "simclr", "probe": "knn", "d": 0}}, "question.d"),
    (
        {"question": {"baseline": "simcrl", "probe": "knn", "d": 1.0}},
        "question.baseline: there is no arm 'simcrl'; did you mean simclr?",
    ),
    (
        {"question": {"baseline": "simclr", "compare": ["simclr"], "probe": "knn", "d": 1.0}},
        "simclr is the baseline itself",
    ),
    ({"question": {"baseline": "simclr", "d": 1.0}}, "question.probe is 'linear'"),
    ({"sweep": {"setting": "method.prune_ratios"}}, "is not a number that differs"),
    (arm(recipe="digits_simclr"), "arms simclr and sdclr have the same settings"),
    (
        {"arms": {"a": {}, "b": {"settings": {"device": "cpu"}}}},
        "arms a and b differ in device alone, by which records are not told apart",
    ),
    ({"seeds": True}, "seeds must be a valid array, a valid integer or a valid string, got True."),
    ({"splits": [1.5]}, "splits.0 must be a valid integer or a valid string, got 1.5."),
    ({"overrides": 5}, "overrides must be an object or a valid array, got 5."),
    ({"arms": {"a/b": {}}}, "cannot be an arm's name"),
    ({"arms": {"simclr": {"title": "x"}, "b": {"title": "x", "seeds": 1}}}, "the same settings"),
    ({"arms": {"simclr": 3}}, "arms.simclr must be a mapping"),
    (
        {"arms": {"a": {}, "b": {"settings": {"data.imbalance_ratio": 5}}}},
        "arms a and b are of other images: they differ in data.imbalance_ratio",
    ),
    (
        {"arms": {"a": {}, "b": {"recipe": "cifar10_lt_sdclr"}}},
        "arms a and b are of other images: they differ in data.name",
    ),
    (
        {
            "arms": {"a": {"seeds": [1]}, "b": {"recipe": "digits_simclr", "seeds": [2]}},
            "question": {"baseline": "a", "probe": "knn", "d": 1.0},
        },
        "b has no split and seed in common with a",
    ),
    (arm(settings={"device": "foo"}), "arms.sdclr: device must be auto, cpu, cuda, cuda:N or mps"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_a_mistake_is_one_error_that_names_the_file_and_the_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = small_file(tmp_path, **{"question": None, **changes})
    with pytest.raises(ConfigError) as caught:
        open_grid(file, tmp_path / "out")
    assert message in str(caught.value)
    assert "small.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_generated_split_pairs_with_one_of_which_nothing_else_is_said(tmp_path: Path) -> None:
    arms = {
        "simclr": {"recipe": "digits_simclr", "splits": ["1-3"]},
        "sdclr": {"splits": ["generated 1-2", "generated 5"]},
    }
    cells = small_grid(tmp_path, arms=arms)
    keys = shared_keys(cells, "simclr", "sdclr")
    assert keys == {("generated", 1, 10), ("generated", 2, 10)}


def test_arms_may_differ_in_which_images_are_trained_on(tmp_path: Path) -> None:
    arms = {"simclr": {}, "all": {"settings": {"data.subset": "all"}}}
    assert len(small_grid(tmp_path, arms=arms).cells) == 4


def test_an_arm_may_name_a_method_of_ones_own_as_the_command_line_does(tmp_path: Path) -> None:
    with METHODS.temporarily():
        cells = small_grid(tmp_path, **arm(settings={"method.name": "outside_method:Plain"}))
        assert cells.cells[1].config.method.name in METHODS
        assert cells.cells[1].config.method.name != "sdclr"


def test_a_folder_hides_no_grid_that_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    assert find_grid("paper").name == "paper.yaml"


def test_two_arms_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'sdclr' is given twice, the second time in line 4"):
        parse_grid("base: digits_sdclr\narms:\n  sdclr: {}\n  sdclr: {}\n", "twice")


def test_a_file_that_is_not_there_is_said_with_the_grids_that_are() -> None:
    with pytest.raises(
        MissingInputError, match=r"laptop, laptop_ratio, paper, paper_short\. Did you mean laptop"
    ):
        read_grid("laptp")


@pytest.mark.parametrize("name", shipped_grids())
def test_a_grid_that_comes_with_the_package_is_sound(name: str) -> None:
    grid = read_grid(name)
    assert grid.file.out
    ours = grid.arms[0].base
    for one in grid.arms:
        assert one.base.epochs == ours.epochs
        assert one.base.method.to_dict()["projector_layers"] == 3, "the head is matched"


def test_the_laptops_ratio_is_chosen_on_a_split_that_it_does_not_report() -> None:
    chosen_on = {split.number for arm in read_grid("laptop_ratio").arms for split in arm.splits}
    reported = {split.number for arm in read_grid("laptop").arms for split in arm.splits}
    assert not chosen_on & reported
    same = ("backbone", "views", "optimizer", "epochs", "batch_size", "data")
    first, second = (read_grid(name).arms[0].base.to_dict() for name in ("laptop", "laptop_ratio"))
    assert [first[key] for key in same] == [second[key] for key in same]


@pytest.mark.processes
def test_a_plan_of_five_hundred_cells_imports_no_torch(tmp_path: Path) -> None:
    arms = {f"p{n}": {"settings": {"method.prune_ratio": n / 100}} for n in range(50)}
    file = small_file(tmp_path, arms=arms, splits=["1-10"], question=None)
    look = (
        "import sys; from sdclr.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & sys.modules.keys()"
    )
    command = [
        sys.executable,
        "-c",
        look,
        "grid",
        str(file),
        "--plan",
        "--out",
        str(tmp_path / "o"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "500 missing" in result.stdout
    assert not (tmp_path / "o").exists(), "a plan writes nothing"


@pytest.mark.parametrize(
    ("protocol", "probes"),
    [
        ("cached", ["linear", "few_shot"]),
        ("sdclr", ["linear", "few_shot"]),
        ("bcl", ["linear", "shot_100", "shot_50"]),
        ("ts", ["knn_1", "knn_10", "few_shot_svm", "long_tail_svm"]),
    ],
)
def test_a_grid_measures_the_papers_probes_or_all_of_another_papers_protocol(
    protocol: str, probes: list[str]
) -> None:
    text = f"base: digits_sdclr\nprotocol: {protocol}\narms: {{sdclr: {{}}}}\n"
    grid = parse_grid(text, "g")
    assert grid.protocol == protocol
    assert list(grid.probes) == probes


def test_all_arms_can_be_given_images_that_are_not_those_of_their_recipes(tmp_path: Path) -> None:
    photos = {"data.name": "images", "data.path": str(tmp_path), "data.labels": "folders"}
    assert {one.config.data.name for one in small_grid(tmp_path, overrides=photos).cells} == {
        "images"
    }
