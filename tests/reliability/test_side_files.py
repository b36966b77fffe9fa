"""A side file that is lost or damaged costs what it says, and neither report, status nor embed ends with it."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sdclr import PretrainConfig, Run, embed, evaluate, pretrain
from sdclr.errors import DataError, MissingInputError
from sdclr.jobs.report import build_report
from sdclr.jobs.status import read_status
from sdclr.presentation.progress import NoProgress
from sdclr.workflows.own_images import data_of
from sdclr.workflows.reports import report

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

SIDE_FILES = (
    "choices.json",
    "environment.json",
    "evaluation/cached.json",
    "examination/image-0000.jpg",
    "examination/numbers.json",
    "images.json",
    "images.tsv.gz",
    "log.txt",
    "metrics.jsonl",
    "split.json",
    "status.json",
)
DAMAGE = {"noise": bytes(range(256)), "object": b"{}"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 20 photos that was evaluated by labels that came later, and examined."""
    root = tmp_path_factory.mktemp("side")
    (root / "photos").mkdir()
    rng, labels = np.random.default_rng(0), ["path,label"]
    for n in range(20):
        level = 60 if n % 2 else 190
        pixels = rng.integers(level - 50, level + 50, (18, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{n:02d}.png")
        labels.append(f"{n:02d}.png,{n % 2}")
    (root / "labels.csv").write_text("\n".join(labels))
    settings = {
        "data": {"name": "images", "path": str(root / "photos"), "subset": "all"},
        "views": {"size": 16},
        "backbone": {"name": "resnet10", "width": 2},
        "method": {"name": "sdclr"},
        "epochs": 1,
        "batch_size": 10,
    }
    pretrain(PretrainConfig.parse(settings), root / "run", choices=[("views.size", 16, "a reason")])
    evaluate(root / "run", labels=root / "labels.csv", probes=["knn"])
    report([root / "run"], {"html"}, progress=NoProgress(), console=Console(file=io.StringIO()))
    return root


def test_the_page_of_an_evaluated_run_on_own_images_holds_both_parts(finished: Path) -> None:
    page = (finished / "run" / "report.html").read_text()
    for words in (
        "<title>SDCLR on photos",
        "k-nearest neighbours",
        "Nearest neighbours",
        "a reason",
        "20 trained on",
    ):
        assert words in page
    shown = io.StringIO()
    report(
        [finished / "run"],
        {"terminal", "markdown"},
        progress=NoProgress(),
        console=Console(file=shown, width=200),
    )
    for words in ("The first view of an image finds its second one", "a reason", "copies of other"):
        assert shown.getvalue().count(words) == 2
    assert shown.getvalue().count("k-nearest neighbours") >= 2


@pytest.mark.parametrize("name", SIDE_FILES)
@pytest.mark.parametrize("kind", ["gone", *DAMAGE])
def test_report_status_and_embed_go_on_without_it(
    finished: Path, tmp_path: Path, name: str, kind: str
) -> None:
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    (folder / name).unlink()
    if kind != "gone":
        (folder / name).write_bytes(DAMAGE[kind])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_status(folder).state == "done"
        report(
            [folder],
            {"html", "terminal"},
            progress=NoProgress(),
            console=Console(file=io.StringIO()),
        )
        out = embed(folder, data_of(Run(folder), {}), tmp_path / "features.npz", as_trained=True)
    assert len(np.load(out)["features"]) == 20
    page = (folder / "report.html").read_text()
    assert "20 trained on" in page
    assert ("k-nearest neighbours" in page) == (name != "evaluation/cached.json")
    assert ("Nearest neighbours" in page) or name in ("images.json", "split.json", "images.tsv.gz")
    assert ("a reason" in page) == (name != "choices.json")
    is_missed = kind in DAMAGE and name in (
        "choices.json",
        "evaluation/cached.json",
        "images.json",
        "split.json",
    )
    assert not is_missed or any(Path(name).name in str(one.message) for one in said)


@pytest.mark.parametrize("name", ["backbone.safetensors", "config.yaml"])
def test_without_weights_or_settings_the_report_is_an_error_that_says_what_to_do(
    finished: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    (folder / name).write_bytes(b"")
    with pytest.raises(Exception, match=r"Restore it from a backup|copy it again"):
        report([folder], {"html"}, progress=NoProgress())


def test_an_evaluation_needs_the_split_that_says_which_images_were_trained_on(
    finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    (folder / "split.json").unlink()
    with pytest.raises(MissingInputError, match="Restore it from a backup"):
        evaluate(folder, labels=finished / "labels.csv", probes=["knn"])
    with pytest.warns(UserWarning, match=r"split\.json does not exist"):
        assert build_report([folder]).rows, "numbers that were measured are not lost"


def test_a_run_without_any_sound_evaluation_is_shown_without_labels(
    finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    (folder / "evaluation" / "cached.json").write_text("{")
    with pytest.warns(
        UserWarning, match=r"cached\.json is damaged.*evaluate again.*the report omits it"
    ):
        report([folder], {"html"}, progress=NoProgress())
    assert "Nothing was evaluated" in (folder / "report.html").read_text()
    with pytest.raises(DataError, match="is damaged"):
        report([folder], {"html"}, protocol="cached", progress=NoProgress())
