"""The scripts in examples/ run, and what they show is there."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import sdclr
from browsers import tools_python
from page_blocks import small_photos
from sdclr import Run, cli
from sdclr.data import DataConfig

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

EXAMPLES = Path(__file__).parent.parent / "examples"
COLLECTION = ["embed", "mine", "profile", "report"]
"""Of one's own images, once a run is looked at."""
TINY = ["epochs=1", "backbone.name=resnet10", "backbone.width=2", "views.size=32"]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with 30 common and 8 rare ones, labels.csv for a third of them, and more/ to measure on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, counts in (("photos", (30, 8)), ("more", (4, 4))):
        for name, count, level in zip(("common", "rare"), counts, (60, 190), strict=True):
            place = tmp_path / folder / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 50, level + 50, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"IMG {number}.jpg")
    names = [
        f"{name}/IMG {number}.jpg,{name}"
        for name in ("common", "rare")
        for number in range(0, 8, 2)
    ]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(names) + "\n")
    return tmp_path


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """`sdclr` in this process, which has imported torch already."""

    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["sdclr", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        assert not stop.value.code, (words, out.err)
        return out.out

    return run


def verbs(done: list[list[str]]) -> list[str]:
    return [words[0] for words in done]


def test_every_command_that_is_proposed_on_the_first_day_works(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    walk = example("first_day").walk
    done = walk("photos", "runs/a", TINY, labels="labels.csv", test="more", run=in_process)
    road = ["pretrain", "report", *COLLECTION, "evaluate", "report", "evaluate", "report"]
    assert verbs(done) == road
    assert (photos / "runs/a/features.npz").is_file()
    assert Run("runs/a").read_evaluation("cached")["tested_on"] == "test set"
    assert "nothing is left to do" in in_process(["status", "runs/a"])


def test_class_folders_and_a_test_folder_are_walked_to_the_end(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    labelled = ["data.labels=folders", "data.test_path=more"]
    done = example("first_day").walk("photos", "runs/b", [*TINY, *labelled], run=in_process)
    assert verbs(done) == ["pretrain", "evaluate", "report", *COLLECTION]


def test_class_folders_without_a_test_set_are_cross_validated(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    done = example("first_day").walk(
        "photos", "runs/c", [*TINY, "data.labels=folders"], run=in_process
    )
    assert verbs(done) == ["pretrain", "evaluate", "report", *COLLECTION]
    assert Run("runs/c").read_evaluation("cached")["tested_on"] == "cross-validation"


def test_an_odd_folder_name_is_proposed_so_that_a_shell_reads_it(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    done = example("first_day").walk("photos", "runs/my $HOME 'x'", TINY, run=in_process)
    assert verbs(done) == ["pretrain", "report", *COLLECTION]


def test_a_recipe_is_walked_to_its_end(
    tmp_path: Path, in_process: Callable[[list[str]], str]
) -> None:
    tiny = ["epochs=1", "backbone.width=2", "views.size=8", "batch_size=200"]
    done = example("first_day").follow(
        ["pretrain", "digits_sdclr", "--out", str(tmp_path / "x"), *tiny], in_process
    )
    assert verbs(done) == ["pretrain", "evaluate", "report"]


@pytest.mark.slow
def test_the_script_itself_runs(photos: Path) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / "first_day.py"),
        "photos",
        *TINY,
        "--labels",
        "labels.csv",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "$ sdclr embed runs/first-day" in result.stdout
    assert "The page to look at: runs/first-day/report.html" in result.stdout


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, a run on them, features.npz, and rare/ of `sdclr mine`."""
    place = tmp_path_factory.mktemp("mined")
    small_photos(place / "photos" / "a", 24)
    small_photos(place / "photos" / "b", 24, first=24)
    photos = DataConfig(name="images", path=str(place / "photos"), subset="all")
    values = {"epochs": 1, "batch_size": 24, "views.size": 16, "backbone.width": 4}
    config = sdclr.recipe("digits_sdclr").with_values(values | {"data": photos.model_dump()})
    run = sdclr.pretrain(config, place / "run")
    sdclr.embed(run, photos, place / "features.npz")
    sdclr.mine(run, photos, place / "rare", top=5)
    return place


def scores_of(mined: Path) -> list[dict[str, str]]:
    with open(mined / "rare" / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pandas_reads_the_scores_and_finds_the_rarest(mined: Path) -> None:
    pytest.importorskip("pandas")
    rarest, folders = example("pandas_scores").summary(str(mined / "rare"))
    wanted = sorted((int(row["rank"]), row["path"]) for row in scores_of(mined) if not row["junk"])
    assert rarest["path"].tolist() == [path for _, path in wanted[:10]]
    assert folders["count"].to_dict() == {"a": 24, "b": 24}
    (mined / "rare" / "scores.parquet").rename(mined / "scores.parquet")
    again, _ = example("pandas_scores").summary(str(mined / "rare"))
    (mined / "scores.parquet").rename(mined / "rare" / "scores.parquet")
    assert again["path"].tolist() == rarest["path"].tolist(), "the CSV says the same"


class DocumentedDataset:
    """FiftyOne's documented Dataset.values and set_values(field, {key: value}, key_field=...)."""

    def __init__(self, files: list[str]) -> None:
        self.samples: dict[str, dict[str, object]] = {file: {} for file in files}

    def values(self, field: str) -> list[str]:
        assert field == "filepath"
        return list(self.samples)

    def set_values(self, field: str, values: dict[str, object], *, key_field: str) -> None:
        assert key_field == "filepath"
        for key, value in values.items():
            self.samples[key][field] = value  # an unknown key is an error


def test_fiftyone_samples_get_rank_and_score(mined: Path) -> None:
    rows = scores_of(mined)
    files = [str(mined / "photos" / row["path"]) for row in rows]
    dataset = DocumentedDataset(files[:-1])  # one was not added to the dataset
    example("fiftyone_field").add_rarity(
        dataset, str(mined / "rare" / "scores.csv"), str(mined / "photos")
    )
    for file, row in zip(files[:-1], rows[:-1], strict=True):
        found = dataset.samples[file]
        assert found == {"rarity": float(row["score"]), "rarity_rank": int(row["rank"])}


def test_the_tasks_for_label_studio_begin_with_the_rarest(mined: Path) -> None:
    tasks = example("label_studio_import").tasks(str(mined / "rare" / "scores.csv"), 3)
    assert [task["data"]["rank"] for task in tasks] == [1, 2, 3]
    (rarest,) = (row["path"] for row in scores_of(mined) if row["rank"] == "1")
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={rarest}"


@pytest.mark.tools
def test_label_studio_takes_the_tasks(mined: Path) -> None:
    tasks = example("label_studio_import").tasks(str(mined / "rare" / "scores.csv"), 3)
    program = (
        "import json, sys\n"
        "from label_studio_sdk.label_interface import LabelInterface\n"
        "from read_with_tools import LABEL_STUDIO_CONFIG\n"
        "interface = LabelInterface(LABEL_STUDIO_CONFIG)\n"
        "print(all(interface.validate_task(task) for task in json.loads(sys.argv[1])))\n"
    )
    support = str(Path(__file__).parent / "support")
    done = subprocess.run(
        [tools_python(), "-c", program, json.dumps(tasks)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": support},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]


@pytest.mark.tools
def test_faiss_finds_the_nearest_images(mined: Path) -> None:
    pytest.importorskip("faiss")
    with np.load(mined / "features.npz") as saved:
        features, paths = saved["features"].astype(np.float64), saved["path"].tolist()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosines = features @ features[7]
    cosines[7] = -2
    found = example("faiss_search").nearest(str(mined / "features.npz"), paths[7], 3)
    assert [path for path, _ in found] == [paths[row] for row in np.argsort(-cosines)[:3]]
    assert [cosine for _, cosine in found] == pytest.approx(np.sort(cosines)[::-1][:3], abs=1e-5)


@pytest.mark.slow
def test_timm_finetunes_the_exported_folder(tmp_path: Path) -> None:
    network = {"backbone.name": "resnet18", "backbone.stem": "large", "backbone.width": 64}
    config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 16} | network)
    run = sdclr.pretrain(config, tmp_path / "run")
    sdclr.export(run, "huggingface", tmp_path / "exported")
    for number in range(16):
        kind = tmp_path / "labelled" / ("dark" if number % 2 else "bright")
        small_photos(kind, 1, first=number)
    accuracy = example("finetune_huggingface").finetune(
        str(tmp_path / "exported"), str(tmp_path / "labelled"), epochs=4, batch=16
    )
    assert accuracy > 0.9


@pytest.mark.tools
@pytest.mark.filterwarnings("default")  # of other people's packages
def test_lightly_trains_with_our_loss(mined: Path) -> None:
    pytest.importorskip("lightly")
    losses = example("lightly_loop").train(str(mined / "photos"), epochs=2, size=32, batch=16)
    assert len(losses) == 2
    assert np.isfinite(losses).all()


@pytest.mark.tools
@pytest.mark.filterwarnings("default")  # of other people's packages
def test_lightning_trains_sdclr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("lightning")
    import torch

    monkeypatch.chdir(tmp_path)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    module = example("lightning_module").LitSDCLR(network, prune_ratio=0.5)
    before = network[0].weight.detach().clone()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*torch.rand(2, 16, 3, 8, 8), torch.arange(16)), 8
    )
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert torch.isfinite(trainer.callback_metrics["loss"])
    assert not torch.equal(before, network[0].weight)


def script(name: str, *words: str) -> str:
    """What a script of cells prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_photos_end_in_a_sheet_of_rare_ones(mined: Path, tmp_path: Path) -> None:
    tiny = [*TINY, "batch_size=16"]
    said = script("photos_to_rare_sheet", str(mined / "photos"), str(tmp_path / "out"), *tiny)
    assert "before: effective rank" in said
    assert (tmp_path / "out/rare/index.html").is_file()


@pytest.mark.slow
def test_the_comparison_on_digits_ends_in_a_page(tmp_path: Path) -> None:
    tiny = ["epochs=1", "views.size=8", "backbone.width=4"]
    said = script("digits_comparison", str(tmp_path), *tiny)
    assert len([line for line in said.splitlines() if ": all " in line or " all 0." in line]) == 6
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_the_loop_of_your_own_learns() -> None:
    said = script("own_loop", "5")
    losses = [float(line.split()[1]) for line in said.splitlines() if line.startswith("loss ")]
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.3
    assert "before" in said.splitlines()[-1]


def test_every_example_is_in_the_documentation() -> None:
    page = (EXAMPLES.parent / "docs/how-to/other-tools.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"examples/{path.name}" in page, path.name
