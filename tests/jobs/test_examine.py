"""What is said of a run without labels: measured once, shown in a report that needs neither images nor torch."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdclr import PretrainConfig, Run, load_backbone, pretrain, write_report
from sdclr.backbones import build_backbone
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.data import DataConfig, build_data
from sdclr.errors import ConfigError, MissingInputError
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.representation import effective_rank
from sdclr.jobs.examine import examine
from sdclr.jobs.report import build_unlabelled_report, is_examined
from sdclr.presentation.html import render_unlabelled_html
from sdclr.presentation.progress import NoProgress
from sdclr.presentation.unlabelled import to_csv, to_markdown
from sdclr.workflows.reports import report
from slow_variants import slow

pytestmark = [pytest.mark.usefixtures("light_figures"), pytest.mark.journeys]

SETTINGS = {
    "views": {"size": 16},
    "backbone": {"name": "resnet10", "width": 2},
    "method": {"name": "sdclr"},
    "epochs": 2,
    "batch_size": 21,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examine") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(40):
        pixels = rng.integers(0, 255, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((21, 19), Image.Resampling.BICUBIC).save(
            folder / f"<b>{n:02d}.png"
        )
    shutil.copy(folder / "<b>00.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return folder


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    data = {"name": "images", "path": str(photos), "subset": "all", "on_error": "skip"}
    with pytest.warns(UserWarning, match="left out"):
        return pretrain(
            PretrainConfig.parse({**SETTINGS, "data": data}),
            tmp_path / "run",
            choices=[("views.size", 16, "the photos are <small>")],
        )


def test_the_networks_are_measured_on_the_very_images(run: Run) -> None:
    content = examine(run)
    assert content["num_images"] == 41, "without the broken one"
    config = PretrainConfig.from_yaml(run.config_path)
    images = build_data(config.data).train
    sound = np.array([i for i, path in enumerate(images.paths) if path != "broken.png"])  # type: ignore[attr-defined]
    pixels = torch.cat(list(images.at(sound).stills(16)))
    after = extract_features(load_backbone(run.folder), pixels)
    assert content["trained"]["effective_rank"] == pytest.approx(effective_rank(after), abs=1e-4)
    with default_generators(derive(config.seed, Stream.WEIGHTS), torch.device("cpu")):
        before = extract_features(build_backbone(config.backbone), pixels)
    assert content["before"]["effective_rank"] == pytest.approx(effective_rank(before), abs=1e-4)
    assert content["trained"] != content["before"]


def test_an_examination_is_the_same_each_time_and_changes_nothing_of_the_run(run: Run) -> None:
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    first = examine(run)
    assert (
        examine(run)
        == first
        == json.loads((run.folder / "examination" / "numbers.json").read_text())
    )
    assert {
        path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()
    } == before
    assert is_examined(run)


def test_the_starting_weights_are_those_the_run_started_from(
    run: Run, tmp_path: Path, photos: Path
) -> None:
    data = {"name": "images", "path": str(photos), "subset": "all", "on_error": "skip"}
    settings = {**SETTINGS, "data": data, "weights": str(run.folder)}
    with pytest.warns(UserWarning, match="left out"):
        second = pretrain(PretrainConfig.parse(settings), tmp_path / "second")
    first = examine(run)["trained"]["effective_rank"]
    assert examine(second)["before"]["effective_rank"] == pytest.approx(first, abs=1e-3)
    shutil.rmtree(run.folder)
    content = examine(second)
    assert "before" not in content
    assert "weights it started from cannot be read" in content["why_no_comparison"]
    report = build_unlabelled_report([second.folder])
    assert report.runs[0].measures[0].before_text == "-"
    assert "No comparison with the beginning" in render_unlabelled_html(report)


def test_the_report_shows_all_that_needs_no_labels(run: Run) -> None:
    examine(run)
    found = build_unlabelled_report([run.folder])
    (shown,) = found.runs
    assert [measure.key for measure in shown.measures] == [
        "found",
        "view_distance",
        "effective_rank",
    ]
    assert "1 files left out" in shown.lists[0].title
    assert "broken.png" in shown.lists[0].lines[0]
    assert shown.lists[1].lines == ["<b>00.png = copy.png"]
    assert [(one.setting, one.value) for one in shown.choices] == [("views.size", "16")]
    assert len(shown.gallery) == 12
    assert all(len(row.pictures) == 6 for row in shown.gallery)
    page = render_unlabelled_html(found)
    assert page.count("<img ") == 12 * 6 + 8 * 3
    assert "&lt;b&gt;00.png" in page
    assert "<b>" not in page
    assert "the photos are &lt;small&gt;" in page
    for title in ("Training loss", "Mask churn", "Spread of the projections"):
        assert page.count(f"<h3>{title}</h3>") == 1
    markdown, csv = to_markdown(found), to_csv(found)
    for measure in shown.measures:
        assert measure.after_text in page
        assert measure.after_text in markdown
        assert repr(measure.after) in csv


def test_a_report_works_at_once_and_with_the_images_gone(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "elsewhere")
    try:
        with pytest.warns(UserWarning, match="reported without measurements: .* does not exist"):
            report([run.folder], {"html"}, progress=NoProgress())
        page = (run.folder / "report.html").read_text()
        assert re.search(r"was not examined: [^<]* does not exist", page)
        assert f"report {run.folder} --data PATH" in page
        assert "<svg" in page
        report([run.folder], {"html"}, data_path=str(moved), progress=NoProgress())
        assert "Nearest neighbours" in (run.folder / "report.html").read_text()
    finally:
        moved.rename(photos)


def test_an_examination_of_another_backbone_is_not_shown(run: Run, tmp_path: Path) -> None:
    examine(run)
    numbers = run.folder / "examination" / "numbers.json"
    content = json.loads(numbers.read_text())
    numbers.write_text(json.dumps(content | {"backbone": "0" * 16}))
    assert not is_examined(run)
    assert not build_unlabelled_report([run.folder]).runs[0].measures


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"gallery": [{"image": {"file": "../../x.jpg", "path": "x"}, "neighbours": []}]},
            r"gallery\.0\.image\.file",
        ),
        slow({"num_images": -1}, "num_images"),
        slow({"trained": {"effective_rank": "high"}}, "effective_rank"),
    ],
)
def test_a_forged_examination_is_named_and_read_no_further(
    run: Run, change: dict[str, object], words: str
) -> None:
    examine(run)
    numbers = run.folder / "examination" / "numbers.json"
    numbers.write_text(json.dumps(json.loads(numbers.read_text()) | change))
    assert not is_examined(run), "so that it is made anew"
    with pytest.warns(UserWarning, match=words):
        found = build_unlabelled_report([run.folder]).runs[0]
    assert not found.measures
    assert not found.gallery


def test_a_picture_that_is_none_is_left_out_and_drawn_again(run: Run) -> None:
    examine(run)
    whole = build_unlabelled_report([run.folder]).runs[0]
    (run.folder / "examination" / whole_name(whole.gallery[0].pictures[0].source, run)).write_bytes(
        b"<svg onload=x>"
    )
    assert not is_examined(run)
    with pytest.warns(
        UserWarning,
        match=r"1 pictures in .*examination are lost or damaged .* sdclr report .* --data",
    ):
        page = render_unlabelled_html(build_unlabelled_report([run.folder]))
    assert "onload" not in page
    assert 0 < page.count("<img ") < 12 * 6 + 8 * 3
    report([run.folder], {"html"}, progress=NoProgress())
    assert is_examined(run)
    assert (run.folder / "report.html").read_text().count("<img ") == 12 * 6 + 8 * 3


def whole_name(source: str, run: Run) -> str:
    """The file of a picture that a page holds."""
    content = base64.b64decode(source.partition(",")[2])
    return next(
        path.name
        for path in (run.folder / "examination").glob("*.jpg")
        if path.read_bytes() == content
    )


def test_other_images_and_unfinished_runs_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "other" / "a.png")
    with pytest.raises(ConfigError, match="new"):
        examine(run, data_path=str(tmp_path / "other"))
    run.backbone_path.unlink()
    with pytest.raises(MissingInputError):
        examine(run)
    with pytest.raises(MissingInputError, match=r"is not finished\. Continue with: sdclr resume"):
        build_unlabelled_report([run.folder])


def test_evaluated_runs_and_others_are_not_mixed(run: Run, tmp_path: Path) -> None:
    other = shutil.copytree(run.folder, tmp_path / "copy")
    (other / "evaluation").mkdir()
    made = {
        "dataset": "images",
        "group_convention": "thirds",
        "train_counts": [],
        "class_names": [],
        "chance": 0.5,
    }
    split = {"number": 1, "fingerprint": "x"}
    (other / "evaluation" / "cached.json").write_text(
        json.dumps({**made, "split": split, "probes": {}})
    )
    with pytest.raises(MissingInputError, match="has no evaluation"):
        write_report([run.folder, other], {"terminal"})


def test_arrays_are_examined_too(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz",
        images=np.random.default_rng(0).integers(0, 256, (50, 12, 12), dtype=np.uint8),
    )
    data = DataConfig(name="arrays", path=str(tmp_path / "d.npz"), subset="all")
    run = pretrain(PretrainConfig.parse({**SETTINGS, "data": data.to_dict()}), tmp_path / "run")
    assert examine(run)["num_images"] == 50
    assert build_unlabelled_report([run.folder]).runs[0].num_images == 50
    assert "image 0" in render_unlabelled_html(build_unlabelled_report([run.folder]))
