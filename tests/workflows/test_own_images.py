"""A folder of photographs as a newcomer would bring it: found, looked through, explained, trained on, embedded."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from one_training import interrupting, patch_steps
from sdclr import Run, cli, evaluate, load_backbone
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.weights import save_backbone
from sdclr.data.collections.image_files import ImageFiles
from sdclr.jobs.pretrain import job as job_module
from sdclr.workflows import own_images as own_images_module
from shard_stand_in import shards_of

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

TINY = ["backbone.width=2", "views.size=32", "epochs=2", "health_every_epochs=0"]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def a_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this one is takes a tenth of a second to measure: tests/compute/test_device.py does."""
    monkeypatch.setattr(own_images_module, "bf16_speedup_of_cpu", lambda: 0.0)


@pytest.fixture
def sdclr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """Runs a command line in a folder that holds photos/: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 34)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdclr", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), " ".join(out.out.split()), " ".join(out.err.split())

    return run


def write_photos(folder: Path, number: int) -> None:
    photo, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    for n in range(number):
        height, width = rng.integers(40, 90, 2)
        top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
        path = folder / ("common" if n % 3 else "rare") / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[top : top + height, left : left + width].copy()).save(path)


def test_a_folder_is_explained_tried_out_trained_on_and_embedded(
    sdclr: Cli, tmp_path: Path
) -> None:
    code, out, _ = sdclr("pretrain", "./photos", "--out", "runs/photos", *TINY, "--dry-run")
    assert code == 0
    for words in (
        "34 images found",
        "batch_size=34 all of the images",
        "34 images are few",
        "a step, measured",
    ):
        assert words in out, out
    assert "views.size=" not in out.split("images are few")[0].replace("views.size=32", ""), (
        "given: not explained"
    )
    assert (tmp_path / "runs" / "photos-views.png").exists()
    assert not (tmp_path / "runs" / "photos").exists()
    code, out, err = sdclr("pretrain", "./photos", "--out", "runs/photos", *TINY)
    assert code == 0
    assert "looking at 34 images" in err
    config = Run("runs/photos").settings()
    assert config["data"]["path"] == str(tmp_path / "photos")
    assert config["batch_size"] == 34
    code, out, err = sdclr("pretrain", "./photos", "--out", "runs/photos", *TINY)
    assert (code, "is finished" in err, "looking at" in err) == (0, True, False), (
        "the same command goes on"
    )
    code, _, _ = sdclr("embed", "runs/photos", "./photos", "--out", "f.npz", "data.labels=folders")
    assert code == 0
    with np.load("f.npz") as file:
        assert len(file["features"]) == 34
        assert {str(path).split("/")[0] for path in file["path"]} == {"rare", "common"}
        assert file["class_names"].tolist() == ["common", "rare"]


def test_a_list_with_labels_is_trained_on_and_evaluated(sdclr: Cli, tmp_path: Path) -> None:
    names = sorted(path.relative_to(tmp_path) for path in (tmp_path / "photos").rglob("*.jpg"))
    write_photos(tmp_path / "new", 9)
    tests = sorted(path.relative_to(tmp_path) for path in (tmp_path / "new").rglob("*.jpg"))
    for path in tests:
        path.write_bytes(path.read_bytes() + b"\0")  # no copies of training images, byte for byte
    for file, paths in (("train.txt", names), ("test.txt", tests)):
        Path(file).write_text("".join(f"{path} {int(path.parts[1] == 'rare')}\n" for path in paths))
    Path("test.csv").write_text(
        "file,label\n" + "".join(f"{p},{int(p.parts[1] == 'rare')}\n" for p in tests)
    )
    for test_set in ("test.txt", "test.csv"):
        out = f"runs/{test_set}"
        code, _, err = sdclr(
            "pretrain", "train.txt", "--out", out, *TINY, f"data.test_path={test_set}"
        )
        assert code == 0, err
        assert Run(out).settings()["data"]["test_path"] == str(tmp_path / test_set)
        result = evaluate(out, probes=["knn"])
        assert result.train_counts == [22, 12]
        assert result.probes["knn"].num_test == [6, 3]


@pytest.mark.filterwarnings("always:.*cannot be decoded and are left out")
def test_bad_files_end_the_run_before_it_begins_or_are_left_out_with_a_list(
    sdclr: Cli, tmp_path: Path
) -> None:
    victim = tmp_path / "photos" / "common" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    code, _, err = sdclr("pretrain", "./photos", "--out", "runs/x", *TINY, "batch_size=17")
    assert code == 65
    assert "1.jpg" in err
    assert "data.on_error=skip" in err
    assert not (tmp_path / "runs" / "x").exists()
    skip = [*TINY, "batch_size=17", "data.on_error=skip"]
    code, _, err = sdclr("pretrain", "./photos", "--out", "runs/x", *skip)
    assert code == 0
    assert "1 of 34 images cannot be decoded and are left out" in err
    facts = json.loads((tmp_path / "runs/x/images.json").read_text())
    assert facts["found"] == 34
    assert [path for path, _ in facts["skipped"]] == ["common/1.jpg"]
    code, _, err = sdclr("embed", "runs/x", "./photos", "--out", "f.npz", "data.on_error=raise")
    assert (code, "1.jpg" in err) == (65, True)
    # of its own images, as the run did
    code, _, err = sdclr("embed", "runs/x", "./photos", "--out", "f.npz")
    assert (code, "1 of 34 images cannot be decoded and are left out" in err) == (0, True)
    with np.load("f.npz") as file:
        assert len(file["features"]) == len(file["path"]) == 33
    code, _, err = sdclr("embed", "runs/x", "./photos", "--out", "g.npz", "data.store=s")
    assert (code, "Leave it out" in err) == (78, True)


@pytest.mark.filterwarnings("always:.*cannot be decoded and are left out")
def test_a_run_leaves_out_the_same_files_when_it_goes_on(
    sdclr: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "photos" / "common" / "1.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:300])
    skip = [*TINY, "batch_size=17", "data.on_error=skip"]
    monkeypatch.setattr(job_module, "train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(sys, "argv", ["sdclr", "pretrain", "./photos", "--out", "runs/x", *skip])
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "looking at" in capsys.readouterr().err
    victim.write_bytes(whole)  # mended meanwhile: the run stays with what it began
    code, _, err = sdclr("pretrain", "./photos", "--out", "runs/x", *skip)
    assert code == 0
    assert "33 images" in err
    assert "looking at" not in err


def test_a_run_out_of_a_decoded_store_is_the_run_out_of_the_files(
    sdclr: Cli, tmp_path: Path
) -> None:
    for name, store in (("files", []), ("store", [f"data.store={tmp_path / 'photos.store'}"])):
        code, _, err = sdclr("pretrain", "./photos", "--out", f"runs/{name}", *TINY, *store)
        assert code == 0, err
    assert (tmp_path / "photos.store" / "manifest.json").exists()
    losses = [
        [line["loss"] for line in Run(f"runs/{name}").metrics()] for name in ("files", "store")
    ]
    assert losses[0] == losses[1]
    code, _, err = sdclr(
        "pretrain", "./photos", "--out", "runs/x", *TINY, "data.store=s", "data.placement=device"
    )
    assert (code, "data.placement=device needs a CUDA device" in err, "looking at" in err) == (
        78,
        True,
        False,
    )
    code, _, err = sdclr("pretrain", "digits_sdclr", "--out", "runs/x", "data.store=x")
    assert (code, "store is for images on disk" in err) == (78, True)


def test_shards_are_trained_on_and_embedded_as_the_folder_is(sdclr: Cli, tmp_path: Path) -> None:
    names = sorted(
        str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.jpg")
    )
    shards_of(tmp_path / "photos", names, tmp_path / "shards", 3, classes=["common", "rare"])
    for out, source in (
        ("folder", "./photos"),
        ("shards", "./shards"),
        ("range", "shards/train-{000..002}.tar"),
    ):
        code, _, err = sdclr("pretrain", source, "--out", f"runs/{out}", *TINY)
        assert code == 0, err
    losses = [
        [line["loss"] for line in Run(f"runs/{out}").metrics()]
        for out in ("folder", "shards", "range")
    ]
    assert losses[0] == losses[1] == losses[2]
    for out, source in (("f.npz", "./photos"), ("s.npz", "./shards")):
        code, _, err = sdclr("embed", "runs/folder", source, "--out", out)
        assert code == 0, err
    with np.load("f.npz") as folder, np.load("s.npz") as shards:
        np.testing.assert_array_equal(folder["features"], shards["features"])
        assert shards["path"][0] == "train-000.tar/000000.jpg"
        assert shards["label"].tolist() == [int(name.startswith("rare")) for name in names]
    code, _, err = sdclr("pretrain", "shards/train-{000..003}.tar", "--out", "runs/x", *TINY)
    assert (code, "1 of 4 shards do not exist" in err) == (66, True)


def test_copies_are_counted_and_listed(sdclr: Cli, tmp_path: Path) -> None:
    shutil.copy(
        tmp_path / "photos" / "common" / "1.jpg", tmp_path / "photos" / "rare" / "again.jpg"
    )
    code, _, err = sdclr("pretrain", "./photos", "--out", "runs/x", *TINY)
    assert code == 0
    assert "1 of 35 images are copies of others" in err
    facts = json.loads((tmp_path / "runs/x/images.json").read_text())
    assert facts["duplicates"] == [["common/1.jpg", "rare/again.jpg"]]


@pytest.mark.usefixtures("without_heif")
def test_too_few_images_are_said_together_with_what_was_left_out(
    sdclr: Cli, tmp_path: Path
) -> None:
    for number in range(40):
        (tmp_path / "few").mkdir(exist_ok=True)
        (tmp_path / "few" / f"IMG_{number}.HEIC").touch()
    shutil.copy(tmp_path / "photos" / "common" / "1.jpg", tmp_path / "few" / "1.jpg")
    code, _, err = sdclr("pretrain", "./few", "--out", "runs/x", *TINY)
    assert code == 65
    assert "holds 1 image; at least 32" in err
    assert "cannot be read (HEIC/HEIF) left out: 40 .heic" in " ".join(err.split())
    assert not Path("runs/x").exists()


@pytest.mark.filterwarnings("always:.*are copies of training images")
def test_copies_of_training_images_in_the_test_set_are_a_warning_with_a_count(
    sdclr: Cli, tmp_path: Path
) -> None:
    for number, name in enumerate(("common/1.jpg", "rare/3.jpg")):
        target = tmp_path / "test" / Path(name).parent / f"renamed{number}.jpg"
        target.parent.mkdir(parents=True)
        shutil.copy(tmp_path / "photos" / name, target)
    Image.new("RGB", (40, 40), "green").save(tmp_path / "test" / "rare" / "own.jpg")
    arguments = (
        "pretrain",
        "./photos",
        "--out",
        "runs/x",
        "data.labels=folders",
        "data.test_path=test",
        *TINY,
    )
    for _ in range(2):  # the second time from what images.json remembers
        code, _, err = sdclr(*arguments)
        assert code == 0, err
        said = " ".join(err.split())
        assert "2 of 3 test images are copies of training images, byte for byte" in said
        assert "common/renamed0.jpg of common/1.jpg" in said
    facts = json.loads((tmp_path / "runs/x/images.json").read_text())
    assert facts["test_copies"][1] == ["rare/renamed1.jpg", "rare/3.jpg"]


def test_a_run_goes_on_with_other_workers_and_where_its_images_have_moved(
    sdclr: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = sdclr("pretrain", "./photos", "--out", "runs/whole", *TINY, "data.num_workers=1")
    assert code == 0, err
    every_epoch = "checkpoint_every_epochs=1"
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(1))
        sdclr(
            "pretrain", "./photos", "--out", "runs/moved", *TINY, every_epoch, "data.num_workers=1"
        )
    assert Run("runs/moved").checkpoints
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    code, _, err = sdclr(
        "pretrain", "./elsewhere", "--out", "runs/moved", *TINY, "data.num_workers=3"
    )
    assert (code, "resuming at step 1" in err) == (0, True), err
    assert Run("runs/moved").settings()["data"]["path"] == str(tmp_path / "elsewhere")
    whole, moved = (Run(f"runs/{name}").metrics() for name in ("whole", "moved"))
    assert [line["loss"] for line in moved] == [line["loss"] for line in whole]
    assert all(0 < line["data_share"] < 1 for line in moved)
    other = tmp_path / "elsewhere" / "common" / "2.jpg"
    whole_file = other.read_bytes()
    other.write_bytes(whole_file + b"x")
    code, _, err = sdclr("pretrain", "./elsewhere", "--out", "runs/moved", *TINY)
    assert (code, "train: 1 of other content (common/2.jpg)" in err) == (78, True), (
        "the names alone do not make the images"
    )
    other.write_bytes(whole_file)
    (tmp_path / "elsewhere" / "common" / "1.jpg").rename(
        tmp_path / "elsewhere" / "common" / "one.jpg"
    )
    code, _, err = sdclr("pretrain", "./elsewhere", "--out", "runs/moved", *TINY)
    assert (code, "was trained on other data" in err) == (78, True)


@pytest.mark.parametrize("kind", ["folder", "list", "glob"])
def test_resume_says_the_command_that_goes_on_where_the_images_have_moved(
    sdclr: Cli, tmp_path: Path, kind: str
) -> None:
    names = sorted(
        str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.jpg")
    )
    (tmp_path / "list.csv").write_text("\n".join(["path", *names]))
    source = {
        "folder": ["photos"],
        "list": ["list.csv", "data.root=photos"],
        "glob": ["photos/**/*.jpg"],
    }[kind]
    code, _, err = sdclr("pretrain", *source, "--out", "runs/x y", *TINY)
    assert code == 0, err
    trained = (tmp_path / "runs/x y/backbone.safetensors").read_bytes()
    (
        tmp_path / "runs/x y/backbone.safetensors"
    ).unlink()  # it goes on from the checkpoint of the last step
    (tmp_path / "photos").rename(tmp_path / "moved")
    code, _, err = sdclr("resume", "runs/x y")
    assert code == 66
    assert len(textwrap.wrap(err.replace(str(tmp_path), "/home"), 80)) <= 3, err
    words = shlex.split(err.partition("If they have moved: ")[2])
    place = "moved/**/*.jpg" if kind == "glob" else "moved"
    code, _, err = sdclr(*[word.replace("PATH", place) for word in words[1:]])
    assert code == 0, err
    assert (tmp_path / "runs/x y/backbone.safetensors").read_bytes() == trained
    code, _, err = sdclr("resume", "runs/x y")
    assert code == 0, "the run knows where they are now"


def test_wrong_folders_get_one_sentence(sdclr: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_photos(tmp_path / "few", 5)
    (tmp_path / "photos.rar").touch()
    (tmp_path / "table.xlsx").touch()
    for arguments, code, words in (
        (["./nowhere"], 66, "no folder or file"),
        (["./empty"], 65, "holds no images"),
        (["./few"], 65, "5 images; at least 32"),
        (["./photos.rar"], 65, "a folder"),
        (["photos.rar"], 65, "is not a collection of images"),
        (["table.xlsx"], 65, "is a spreadsheet: save it as CSV"),
        (["photos/*.png"], 65, "matches"),
        (["nowhere/*.png"], 66, "nowhere of the glob"),
        (["./photos", "--data", "x"], 78, "leave --data out"),
        (["./photos", "data.labels=folder"], 78, "'none' or 'folders'"),
    ):
        found, _, err = sdclr("pretrain", *arguments, "--out", "runs/x")
        assert (found, words in err) == (code, True), err
    found, _, err = sdclr("embed", "runs/x", "./photos", "epochs=3")
    assert (found, "only settings of the images" in err) == (78, True)


def test_a_dry_run_and_runs_inside_the_folder_are_never_trained_on(
    sdclr: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "photos")
    tiny = [*TINY, "batch_size=17"]
    assert sdclr("pretrain", "./", *tiny, "--dry-run")[0] == 0
    assert list((tmp_path / "photos" / "runs").glob("*-views.png")), (
        "the sheet lies inside of the images"
    )
    code, _, err = sdclr("pretrain", "./", "--out", "runs/first", *tiny)
    assert (code, "looking at 34 images" in err) == (0, True), err
    code, _, err = sdclr("pretrain", "./", "--out", "runs/second", *tiny)
    assert (code, "looking at 34 images" in err) == (0, True), err
    assert sdclr("pretrain", "./", "--out", "runs/first", *tiny)[0] == 0, "the first run goes on"
    assert "outputs of sdclr" in err


def test_photos_without_labels_are_not_sent_to_an_evaluation(sdclr: Cli, tmp_path: Path) -> None:
    code, out, err = sdclr("pretrain", "./photos", "--out", "runs/x", *TINY)
    assert code == 0, err
    proposed = shlex.split(out.partition("next: ")[2])
    assert proposed == ["sdclr", "report", "runs/x"]
    code, out, err = sdclr(*proposed[1:])
    assert (code, (tmp_path / "runs/x/report.html").is_file()) == (0, True), err
    proposed = shlex.split(out.partition("next: ")[2])
    assert proposed == ["sdclr", "embed", "runs/x"]
    code, out, err = sdclr(*proposed[1:])
    assert (code, (tmp_path / "runs/x/features.npz").is_file()) == (0, True), err
    proposed = shlex.split(out.partition("next: ")[2])
    assert proposed == [
        "sdclr",
        "mine",
        "runs/x",
    ]  # and so on: tests/test_examples.py walks to the end
    code, out, _ = sdclr("status", "runs/x")
    assert "next: sdclr mine runs/x" in out


@pytest.mark.filterwarnings("default")  # shown, as to a user
@pytest.mark.parametrize("num_sound", [32, 33])
def test_bad_files_are_not_counted_for_the_batch(
    sdclr: Cli, tmp_path: Path, num_sound: int
) -> None:
    for path in sorted((tmp_path / "photos").rglob("*.jpg"))[num_sound - 1 :]:
        path.write_bytes(path.read_bytes()[:200])
    shutil.copy(tmp_path / "photos/rare/0.jpg", tmp_path / "photos/rare/same.jpg")
    num_bad = 34 - (num_sound - 1)
    given = (
        "data.on_error=skip",
        "data.max_skipped=9",
        "epochs=1",
        "backbone.width=2",
        "views.size=32",
    )
    code, out, err = sdclr("pretrain", "photos", "--out", "runs/x", *given)
    assert code == 0, err
    assert f"{num_bad} of 35 images cannot be decoded and are left out" in err
    assert f"{num_sound} images found" in out
    assert f"batch_size={num_sound} all of the images" in out


def test_too_few_sound_files_are_counted_without_the_bad_ones(sdclr: Cli, tmp_path: Path) -> None:
    for path in sorted((tmp_path / "photos").rglob("*.jpg"))[:3]:
        path.write_bytes(b"no image")
    code, _, err = sdclr(
        "pretrain", "photos", "--out", "runs/x", "data.on_error=skip", "data.max_skipped=9", *TINY
    )
    assert code == 65
    assert "photos holds 31 images" in err
    assert "files that cannot be decoded left out: 3" in err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["backbone.name=resnet19"], ["got 'resnet19'", "Did you mean resnet18"]),
        (["backbone.name=timm:resnt18", "views.size=32"], ["timm has no model 'resnt18'"]),
        (
            ["backbone.name=torchvision:resnet19", "views.size=32"],
            ["torchvision has no classification model"],
        ),
        (
            ["backbone.name=torchvision:vit_b_32", "views.size=50"],
            ["no images of 50 x 50 px", "views.size=64"],
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_anything_is_explained(
    sdclr: Cli, settings: list[str], words: list[str]
) -> None:
    code, out, err = sdclr("pretrain", "photos", "--out", "runs/x", *settings)
    assert (code, out) == (78, "")
    assert all(word in err for word in words), err
    assert len(textwrap.wrap(err, 80)) <= 3, err


# ---- more photos next month, more epochs, other settings


def test_what_has_changed_since_a_run_is_answered_first_with_what_to_do(
    sdclr: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sdclr("pretrain", "photos", "--out", "runs/a", *TINY)[0] == 0, "without a slash"
    code, _, err = sdclr("pretrain", "photos", "--out", "runs/a", *TINY[:2], "epochs=200")
    assert code == 78
    assert err.startswith(
        "error: runs/a is finished, with other settings: start a new run, with the same command, --weights runs/a "
        "and another --out. saved -> requested: epochs: 2 -> 200"
    ), err
    code, _, err = sdclr("pretrain", "photos", "--out", "runs/a", "backbone.width=4")
    assert (code, "--weights" in err) == (78, False), (
        "another network cannot start from its weights"
    )
    write_photos(tmp_path / "photos" / "july", 3)
    with monkeypatch.context() as patch:
        # nobody waits for a pass over all files to hear this
        patch.setattr(ImageFiles, "verified", None)
        code, _, err = sdclr("pretrain", "photos", "--out", "runs/a", *TINY)
    assert code == 78
    assert err.startswith(
        "error: 3 new, 0 missing: start a new run with --weights runs/a and another --out."
    ), err
    assert "first new: july/common/1.jpg" in err
    assert len(textwrap.wrap(err, 80)) <= 3, "and no fingerprints, where names say it"
    code, _, err = sdclr("pretrain", "photos", "--weights", "runs/a", "--out", "runs/b", *TINY)
    assert code == 0, err
    assert Run("runs/b").backbone_path.is_file()


def test_labels_that_come_after_the_training_are_sent_to_an_evaluation(sdclr: Cli) -> None:
    assert sdclr("pretrain", "photos", "--out", "runs/a", *TINY)[0] == 0
    code, _, err = sdclr("pretrain", "photos", "--out", "runs/a", *TINY, "data.labels=folders")
    assert code == 78
    assert err == (
        "error: runs/a is finished, and data.labels changes its evaluation alone: sdclr evaluate runs/a data.labels=..."
    )
    code, out, err = sdclr("evaluate", "runs/a", "data.labels=folders")
    assert (code, "Cross-validated" in out) == (0, True), err


# ---- photos as phones and microscopes make them


def test_phone_photos_are_turned_and_a_run_that_was_begun_otherwise_stays_as_it_was(
    sdclr: Cli, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(34):
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[:, :30] = 200 + number  # left, and above after the turn
        Image.fromarray(pixels).save(tmp_path / "photos" / f"p{number}.png", exif=exif)
    shutil.rmtree(tmp_path / "photos" / "common")
    shutil.rmtree(tmp_path / "photos" / "rare")
    assert sdclr("pretrain", "photos", "--out", "runs/new", *TINY)[0] == 0
    assert Run("runs/new").settings()["data"]["exif_rotation"] is True
    assert (
        sdclr("pretrain", "photos", "--out", "runs/old", *TINY, "data.exif_rotation=false")[0] == 0
    )
    code, _, err = sdclr("pretrain", "photos", "--out", "runs/old", *TINY)
    assert (code, "is finished" in err) == (0, True), (
        "what an earlier version has begun goes on as it was"
    )
    fingerprints = [
        Run(f"runs/{name}").read_json("split.json")["fingerprint"] for name in ("new", "old")
    ]
    assert fingerprints[0] != fingerprints[1]
    features = {}
    for name, given in (("old", []), ("old", ["data.exif_rotation=true"])):
        out = f"{len(given)}.npz"
        assert sdclr("embed", f"runs/{name}", "photos", "--out", out, *given)[0] == 0
        with np.load(out) as file:
            features[len(given)] = file["features"]
    assert not np.allclose(features[0], features[1], atol=1e-4), (
        "embed reads the images as the run did"
    )


def test_twelve_bits_in_files_of_sixteen_are_found_and_recorded(sdclr: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(34):
        levels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        (tmp_path / "scope").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "scope" / f"{number}.png")
    code, out, err = sdclr("pretrain", "scope", "--out", "runs/scope", *TINY)
    assert (code, "warning" in err) == (0, False), err
    assert "data.grey_bits=12 16-bit greys that use 12 bits" in out
    assert Run("runs/scope").settings()["data"]["grey_bits"] == 12
    chosen = {one["setting"] for one in Run("runs/scope").read_json("choices.json")["choices"]}
    assert {"data.grey_bits", "method.prune_ratio"} <= chosen, (
        "the report gives the reason for each"
    )
    assert sdclr("pretrain", "scope", "--out", "runs/scope", *TINY)[0] == 0
    assert sdclr("embed", "runs/scope", "scope", "--out", "f.npz")[0] == 0


@pytest.mark.parametrize(("load", "said"), [(1.6, True), (0.1, False)])
def test_a_dry_run_says_when_it_measured_beside_other_work(
    sdclr: Cli, monkeypatch: pytest.MonkeyPatch, load: float, said: bool
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    code, out, err = sdclr("pretrain", "photos", "--out", "runs/x", *TINY, "--dry-run")
    assert code == 0, err
    assert ("Measured while other work kept about 1.6 of" in out) == said


STOCK = [
    pytest.param("resnet18", marks=pytest.mark.slow),
    pytest.param("torchvision:resnet18", marks=pytest.mark.slow),
    pytest.param("torchvision:regnet_y_400mf", marks=pytest.mark.slow),
    pytest.param("timm:convnext_atto", marks=pytest.mark.slow),
    pytest.param("timm:vit_small_patch16_224", marks=pytest.mark.slow),
    pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", STOCK)
def test_stock_networks_train_and_embed_at_the_defaults(
    sdclr: Cli, tmp_path: Path, name: str
) -> None:
    code, out, err = sdclr(
        "pretrain", "./photos", "--out", "runs/x", "epochs=1", f"backbone.name={name}"
    )
    assert code == 0, err
    if ":" in name:
        assert "backbone.stem" not in out
    assert "of all backbone weights are prunable" in err
    assert "warning" not in err
    assert Run("runs/x").read_json("environment.json")["resolved"]["prunable_share"] > 0.9
    for verb in ("report", "embed"):
        proposed = shlex.split(out.partition("next: ")[2])
        assert proposed == ["sdclr", verb, "runs/x"]
        code, out, err = sdclr(*proposed[1:])
        assert code == 0, err
    backbone = load_backbone("runs/x")
    with np.load("runs/x/features.npz") as file:
        rows = dict(zip(file["path"].tolist(), file["features"], strict=True))
    path = next(iter(rows))
    with Image.open(tmp_path / "photos" / path) as image, torch.no_grad():
        features = backbone(backbone.preprocess([image]))
    np.testing.assert_allclose(features[0], rows[path], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("setting", ["labels=folder", "imbalance_ratio=10", "max_skipped=x"])
def test_a_setting_of_the_images_is_named_as_it_was_given(sdclr: Cli, setting: str) -> None:
    code, _, err = sdclr("pretrain", "photos", f"data.{setting}")
    assert code == 78
    assert err.startswith(("error: data.", "error: data: ")), err


@pytest.mark.parametrize("given", ["backbone.stem=small", "backbone.width=64"])
def test_a_setting_that_the_network_does_not_have_is_refused_before_anything_is_written(
    sdclr: Cli, given: str
) -> None:
    for source in ("./photos", "digits_sdclr"):
        code, _, err = sdclr(
            "pretrain", source, "--out", "runs/x", "backbone.name=timm:test_resnet", given
        )
        assert (code, "applies to our ResNets only; leave it out for timm:test_resnet" in err) == (
            78,
            True,
        ), err
    assert not Path("runs/x").exists()


def test_weights_for_one_image_size_decide_the_views(sdclr: Cli, tmp_path: Path) -> None:
    config = BackboneConfig(
        name="timm:deit_tiny_patch16_224", options={"depth": 1, "embed_dim": 12, "img_size": 48}
    )
    save_backbone(
        tmp_path / "w.safetensors", build_backbone(config), config.to_dict(), {"image_size": 48}
    )
    code, out, err = sdclr(
        "pretrain", "./photos", "--out", "runs/x", "epochs=1", "--weights", "w.safetensors"
    )
    assert code == 0, err
    assert "views.size=48" in out
    assert load_backbone("runs/x").image_size == 48


def test_a_folder_of_splits_is_trained_on_in_part_and_evaluated_on_the_rest(
    sdclr: Cli, tmp_path: Path
) -> None:
    for name, number in (("train", 36), ("val", 9), ("test", 9)):
        write_photos(tmp_path / "set" / name, number)
        for path in (tmp_path / "set" / name).rglob("*.jpg"):
            path.write_bytes(path.read_bytes() + name.encode())  # no copies of one another
    code, out, err = sdclr("pretrain", "set", "--out", "runs/set", *TINY)
    assert code == 0, err
    assert "36 images found" in out
    assert "data.layout=splits" in out
    assert "data.labels=folders" in out
    assert "train (36) is trained on, an evaluation uses test (9), val (9)" in err
    split = Run("runs/set").read_json("split.json")
    assert (
        sum(split["counts"]["train"]),
        sum(split["counts"]["validation"]),
        split["counts"]["test"],
    ) == (
        36,
        9,
        [6, 3],
    )
    assert sdclr("pretrain", "set", "--out", "runs/set", *TINY)[0] == 0, "the same command goes on"
    code, out, err = sdclr("evaluate", "runs/set")
    assert code == 0, err
    code, out, _ = sdclr(
        "pretrain", "set", "--out", "runs/flat", *TINY, "data.layout=flat", "--dry-run"
    )
    assert "54 images found" in out


def splits_of(folder: Path) -> None:
    for name, number in (("train", 36), ("val", 9), ("test", 9)):
        write_photos(folder / name, number)
        for path in (folder / name).rglob("*.jpg"):
            path.write_bytes(path.read_bytes() + name.encode())


def test_a_folder_of_splits_is_recognised_without_what_is_left_out(
    sdclr: Cli, tmp_path: Path
) -> None:
    splits_of(tmp_path / "set")
    write_photos(tmp_path / "set" / "raw", 3)
    words = ("pretrain", "set", "--out", "runs/set", *TINY, "--dry-run")
    assert "57 images found" in sdclr(*words)[1]
    assert "36 images found" in sdclr(*words, "data.exclude=raw")[1]
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    words = ("pretrain", archive, "--out", "runs/set", *TINY, "--dry-run")
    assert "36 images found" in sdclr(*words, "data.exclude=raw")[1]


@pytest.mark.filterwarnings("default:the folders below train")
def test_why_folders_of_splits_have_no_labels_is_said(sdclr: Cli, tmp_path: Path) -> None:
    splits_of(tmp_path / "set")
    words = ("pretrain", "set", "--out", "runs/set", *TINY, "--dry-run")
    code, _, err = sdclr(*words, "data.validation_per_class=2")
    assert (code, "data.validation_per_class holds out training images" in err) == (78, True), err
    bird = tmp_path / "set" / "test" / "bird"
    bird.mkdir()
    shutil.copy(next((tmp_path / "set" / "train").rglob("*.jpg")), bird / "b.jpg")
    code, out, err = sdclr(*words)
    assert code == 0, err
    assert "not taken as classes: test set" in " ".join(err.split())
    assert "has: bird. The training classes are" in " ".join(err.split())
    assert "data.labels=folders" not in out


def test_a_store_in_the_run_folder_is_refused_before_it_is_built(
    sdclr: Cli, tmp_path: Path
) -> None:
    words = ("pretrain", "./photos", "--out", "runs/x", *TINY)
    code, _, err = sdclr(*words, "data.store=runs/x/store")
    assert (code, "is in the run folder runs/x" in err) == (78, True), err
    assert not (tmp_path / "runs" / "x" / "store").exists()
    assert sdclr(*words)[0] == 0, "the place is not spoilt"


def test_a_folder_with_a_point_in_its_name_has_no_suffix(sdclr: Cli, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "photos", tmp_path / "photos.2024")
    assert sdclr("pretrain", "photos.2024", *TINY)[0] == 0
    assert Run("runs/photos.2024").exists


@pytest.mark.parametrize("words", [("",), ("photos", "--data", ""), ("photos", "data.root=")])
def test_an_empty_path_is_not_the_folder_of_now(sdclr: Cli, words: tuple[str, ...]) -> None:
    code, _, err = sdclr("pretrain", *words, "--out", "runs/x", *TINY)
    assert code == 78, err
    assert "a path is empty" in err or "leave --data out" in err


# ---- tables, zips and boxes through every command


def test_a_table_of_boxes_is_read_alike_by_every_command(sdclr: Cli, tmp_path: Path) -> None:
    names = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "photos").rglob("*.jpg"))
    # the last four are the test set, two of each class
    names = [
        *names[2:-2],
        *names[:2],
        *names[-2:],
    ]
    rows = [
        json.dumps(
            {
                "bild": name,
                "art": name.split("/")[1],
                "x": 2,
                "y": top,
                "width": 36,
                "height": 18,
                "cam": name[-5],
            }
        )
        for name in names
        for top in (0, 20)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(rows[:-8]))
    (tmp_path / "test.jsonl").write_text("\n".join(rows[-8:]))
    given = ("data.path_column=bild", "data.label_column=art")
    command = (
        "pretrain",
        "train.jsonl",
        "--out",
        "runs/boxes",
        *TINY,
        *given,
        "data.test_path=test.jsonl",
    )
    code, out, err = sdclr(*command, "--dry-run")
    assert (code, "60 images found" in out) == (0, True), err
    code, _, err = sdclr(*command)
    assert code == 0, err
    assert "each of 60 boxes" in err
    assert sdclr(*command)[0] == 0, "the same command goes on"
    code, _, err = sdclr("evaluate", "runs/boxes")
    assert code == 0, err
    code, _, err = sdclr("embed", "runs/boxes", "train.jsonl", "--out", "f.npz")
    assert code == 0, "the run knows its own table" + err
    with np.load("f.npz") as file:
        assert file["path"][:2].tolist() == [f"{names[0]}#2,0,36,18", f"{names[0]}#2,20,36,18"]
        assert file["cam"].tolist() == [json.loads(row)["cam"] for row in rows[:-8]]
        assert file["features"].shape[0] == 60
    code, _, err = sdclr(
        "pretrain", "train.jsonl", "--out", "runs/c", *TINY, "data.path_column=pfad"
    )
    assert (code, "It has bild, art, x, y, width, height, cam." in err) == (78, True), err


def test_a_zip_and_a_glob_are_trained_on_and_embedded(sdclr: Cli, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos")
    for source, name in (
        ("photos.zip", "photos"),
        ("photos/**/*.jpg", "photos"),
        ("p*/*/*.jpg", tmp_path.name),
    ):
        shutil.rmtree("runs", ignore_errors=True)
        code, out, err = sdclr("pretrain", source, *TINY)
        assert (code, "34 images found" in out) == (0, True), err
        assert Run(f"runs/{name}").backbone_path.is_file()
        assert sdclr("embed", f"runs/{name}", source, "--out", "f.npz", "--overwrite")[0] == 0
    code, _, err = sdclr(
        "pretrain", *(str(path) for path in (tmp_path / "photos" / "rare").glob("*.jpg"))
    )
    assert (code, "the shell has expanded a glob. Quote it" in err) == (78, True), err


@pytest.mark.filterwarnings("ignore:.*cannot be decoded")
@pytest.mark.filterwarnings("ignore:the folders below train")
def test_the_command_that_a_run_proposes_next_works_whatever_its_images_needed(
    sdclr: Cli, tmp_path: Path
) -> None:
    (tmp_path / "photos" / "rare" / "0.jpg").write_bytes(b"bad")
    names = [
        str(path.relative_to(tmp_path / "photos"))
        for path in sorted((tmp_path / "photos").rglob("*.jpg"))
    ]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text(
        "Bild;Kamera\n" + "".join(f"{name};k\n" for name in names)
    )
    (tmp_path / "set").mkdir()
    shutil.copytree(tmp_path / "photos", tmp_path / "set" / "train")
    shutil.copytree(tmp_path / "photos", tmp_path / "set" / "val" / "x")
    skip = "data.on_error=skip"
    for number, arguments in enumerate(
        (
            [
                "tables/t.csv",
                "data.root=photos",
                "data.path_column=Bild",
                skip,
                'data.exclude=["*/1.jpg"]',
            ],
            ["set", skip, "data.max_skipped=2"],
            ["photos/**/*.jpg", skip],
        )
    ):
        code, out, err = sdclr(
            "pretrain", *arguments, "--out", f"runs/{number}", *TINY, "batch_size=10"
        )
        assert code == 0, err
        for verb in ("report", "embed"):
            command = shlex.split(out.partition("next: sdclr ")[2])
            assert command[0] == verb
            code, out, err = sdclr(*command)
            assert code == 0, err


def test_the_precision_that_a_machine_chose_stays_the_runs_on_any_other(
    sdclr: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("pretrain", "./photos", "--out", "runs/photos", "precision=auto", *TINY)
    monkeypatch.setattr(own_images_module, "bf16_speedup_of_cpu", lambda: 2.0)
    code, out, _ = sdclr(*command)
    assert code == 0
    assert "precision=bf16 this CPU does a convolution 2.0 times as fast in bf16 as in fp32" in out
    assert Run("runs/photos").settings()["precision"] == "bf16"
    monkeypatch.setattr(own_images_module, "bf16_speedup_of_cpu", lambda: 0.0)
    code, _, err = sdclr(*command)
    assert (code, "is finished" in err) == (0, True), "the same command goes on"
    code, _, _ = sdclr("pretrain", "./photos", "--out", "runs/slow", *TINY)
    assert (code, Run("runs/slow").settings()["precision"]) == (0, "fp32")


def test_a_folder_with_an_equals_sign_in_its_name_is_no_setting(sdclr: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "date=2024")
    code, _, err = sdclr("pretrain", "date=2024", "--out", "runs/a", *TINY)
    assert code == 0, err
    code, _, err = sdclr("pretrain", "date=2025", "--out", "runs/b", *TINY)
    assert (code, "date" in err) == (78, True), "nothing of that name is there"
