"""A classifier from labels: equal to an authority, resumed bit for bit, and clear about what it cannot do."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from image_folder_stand_in import make_folder
from killing import SignalAt
from sdclr import Run, cli, finetune, load_backbone, load_classifier, pretrain, recipe
from sdclr.any_progress import NoProgress
from sdclr.data import DataConfig, build_data
from sdclr.data.config import ViewsConfig
from sdclr.errors import CheckpointError, ConfigError, DataError, MissingInputError, Preempted
from sdclr.jobs.finetune import FinetuneConfig, Finetuned
from sdclr.jobs.finetune import build as build_module
from sdclr.jobs.finetune import job as job_module
from sdclr.jobs.finetune import loop as loop_module
from sdclr.jobs.finetune.balance import balanced
from sdclr.jobs.finetune.build import open_start
from sdclr.jobs.finetune.loop import Validated, is_to_stop_early
from sdclr.jobs.finetune.training import State, batch_sizes, restore
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.workflows.labelled_images import labelled_images

DIGITS = DataConfig(name="digits", validation_per_class=18)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"epochs": 3, "views.size": 8, "backbone.width": 4, "batch_size": 100}
    config = recipe("digits_sdclr").with_values(settings)
    return pretrain(config, tmp_path_factory.mktemp("runs") / "x")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cat 12, dog 8, yak 3 small photographs in class folders, and labels.csv."""
    root = tmp_path_factory.mktemp("photos")
    paths = make_folder(root, {"cat": 12, "dog": 8, "yak": 3})
    rows = [f"{path},{path.split('/')[0]}\n" for path in paths]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    return root


def table(root: Path, name: str, lines: list[str]) -> DataConfig:
    """A table of labels beside the photographs."""
    (root / name).write_text("path,label\n" + "".join(f"{line}\n" for line in lines))
    return DataConfig.parse({"name": "images", "path": str(root / name), "subset": "all"})


def labels_of(root: Path, name: str = "labels.csv") -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(root / name), "subset": "all"})


def contents(folder: Path) -> dict[str, bytes]:
    """What a model is: its files without what tells of time and place."""
    names = ("backbone.safetensors", "classifier.safetensors", "model.json", "validation.csv")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.journeys
def test_the_linear_mode_is_as_good_as_scikit_learns_logistic_regression(
    run: Run, tmp_path: Path
) -> None:
    model = finetune(
        run, DIGITS, tmp_path / "m", epochs=200, early_stop_epochs=0, weight_decay=1e-3
    )
    found = build_data(DIGITS)
    split = found.labelled_split()
    parts = {}
    for name in ("long_tail", "validation"):
        images = found.train.at(split.subset(name))
        with torch.no_grad():
            features = [load_backbone(run)(batch / 255) for batch in images.stills(8)]
        parts[name] = torch.cat(features).numpy(), images.labels
    scaler = StandardScaler().fit(parts["long_tail"][0])
    theirs = LogisticRegression(max_iter=5000)
    theirs.fit(scaler.transform(parts["long_tail"][0]), parts["long_tail"][1])
    wanted = theirs.score(scaler.transform(parts["validation"][0]), parts["validation"][1])
    got = model.result["validation"]["accuracy"]
    assert wanted > 0.4
    assert got >= wanted - 0.03, (got, wanted)


def test_the_classifier_that_is_written_gives_what_was_measured(run: Run, tmp_path: Path) -> None:
    model = finetune(run, DIGITS, tmp_path / "m", epochs=10)
    classifier = load_classifier(model)
    found = build_data(DIGITS)
    images = found.part("validation")
    with torch.no_grad():
        logits = torch.cat([classifier(batch / 255) for batch in images.stills(8)])
    right = logits.argmax(dim=1).numpy() == images.labels
    validation = model.result["validation"]
    assert validation["accuracy"] == pytest.approx(right.mean())
    per_class = [right[images.labels == c].mean() for c in range(10)]
    assert [one["accuracy"] for one in validation["classes"]] == pytest.approx(per_class)
    assert validation["balanced_accuracy"] == pytest.approx(np.mean(per_class))
    counts = [one["num_train"] for one in validation["classes"]]
    few = sorted(range(10), key=lambda c: counts[c])[:3]
    assert {str(c) for c in few} == set(validation["groups"]["few"]["classes"])
    assert validation["groups"]["few"]["accuracy"] == pytest.approx(
        np.mean([per_class[c] for c in few])
    )
    low, high = validation["accuracy_interval"]
    assert low < validation["accuracy"] < high
    calibration = model.result["calibration"]
    assert classifier.temperature == calibration["temperature"]
    rows = (model.folder / "validation.csv").read_text().splitlines()
    assert len(rows) == 1 + 180
    assert not (model.folder / "checkpoints").exists(), "a finished model needs none"


@pytest.mark.journeys
@pytest.mark.parametrize(
    ("mode", "augment"),
    [
        ("linear", "none"),
        ("full", "views"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("linear", "crops"),
                ("linear", "views"),
                ("full", "none"),
                ("full", "crops"),
            )
        ),
    ],
)
def test_what_was_stopped_anywhere_ends_as_if_nobody_had_stopped_it(
    mode: str, augment: str, run: Run, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"mode": mode, "augment": augment, "epochs": 3, "batch_size": 100}
    whole = finetune(run, DIGITS, tmp_path / "whole", **settings)
    for at in (1, 3, 5):  # the second is the end of an epoch
        out = tmp_path / f"stopped{at}"
        with pytest.raises(Preempted, match=r"stopped by SIGTERM at step \d+ of 9"):
            finetune(run, DIGITS, out, progress=AfterFeatures(at), **settings)
        assert not (out / "classifier.safetensors").exists()
        assert CheckpointFolder(out / "checkpoints").steps()[0] == at
        finetune(run, DIGITS, out, **settings)
        assert contents(out) == contents(whole.folder)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2, 3]


class AfterFeatures(SignalAt):
    """Sends SIGTERM after so many steps of training, not of the images before them."""

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        return 1 if unit == "steps" else 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        if task == 1:
            super().advance(task, amount, note)


class Killed(BaseException):
    pass


@pytest.mark.journeys
def test_a_kill_at_any_write_or_step_ends_as_if_there_had_been_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a SIGKILL leaves it: whatever was not renamed into place is not there."""
    settings: dict[str, Any] = {"mode": "full", "epochs": 3, "batch_size": 100}
    whole = finetune(run, DIGITS, tmp_path / "whole", **settings)
    from sdclr.storage import durable_files

    replace, step = durable_files.files.replace, loop_module.train_step
    rng, out = np.random.default_rng(0), tmp_path / "killed"
    left = 0

    def dying(before: bool, function: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and before:
                raise Killed
            result = function(*args)
            if left == 0:
                raise Killed
            return result

        return call

    kills = 0
    for _ in range(12):
        left = int(rng.integers(1, 10))
        before = bool(rng.integers(2))
        with monkeypatch.context() as patched:
            patched.setattr(durable_files.files, "replace", dying(before, replace))
            patched.setattr(loop_module, "train_step", dying(before, step))
            try:
                finetune(run, DIGITS, out, **settings)
            except Killed:
                kills += 1
                continue
            break
    assert kills >= 2
    finetune(run, DIGITS, out, **settings)
    assert contents(out) == contents(whole.folder)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_call_that_is_killed_while_it_records_its_request_can_be_given_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    from sdclr.storage import durable_files

    replace, names = durable_files.files.replace, list[str]()

    def dying(source: Path, target: Path) -> None:
        replace(source, target)
        names.append(target.name)
        if len(names) == nth:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(durable_files.files, "replace", dying)
        with pytest.raises(Killed):
            finetune(run, DIGITS, tmp_path / "m", epochs=2)
    model = finetune(run, DIGITS, tmp_path / "m", epochs=2)
    assert {"finetune.json", "environment.json"} <= {one.name for one in model.folder.iterdir()}
    (model.folder / "checkpoints").mkdir()
    (model.folder / "checkpoints" / "ckpt-000000000001.safetensors").write_bytes(b"of a kill")
    finetune(run, DIGITS, tmp_path / "m", epochs=2)
    assert not (model.folder / "checkpoints").exists()


def test_a_finished_model_is_returned_as_it_is_and_others_are_refused(
    run: Run, tmp_path: Path, photos: Path
) -> None:
    model = finetune(run, DIGITS, tmp_path / "m", epochs=2)
    before = contents(model.folder)
    again = finetune(run, DIGITS, tmp_path / "m", epochs=2)
    assert again.result == model.result
    with pytest.raises(ConfigError, match=r"started with other settings[\s\S]*epochs: 2 -> 3"):
        finetune(run, DIGITS, tmp_path / "m", epochs=3)
    with pytest.raises(
        ConfigError, match=r"started with other settings[\s\S]*classes: 10 -> 3; no longer: "
    ):
        finetune(run, labels_of(photos), tmp_path / "m", epochs=2)
    with pytest.raises(ConfigError, match="device must be auto"):
        finetune(run, DIGITS, tmp_path / "new", device="tpu")
    assert not (tmp_path / "new").exists(), "nothing was begun"
    with pytest.raises(ConfigError, match="is a run folder"):
        finetune(run, DIGITS, run.folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds something else \(a\.txt\)"):
        finetune(run, DIGITS, tmp_path / "thesis")
    assert contents(model.folder) == before


def test_a_folder_in_which_nothing_was_trained_takes_other_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(loop_module, "train_step", _killed)
        with pytest.raises(Killed):
            finetune(run, DIGITS, tmp_path / "m", epochs=3)
    assert not (tmp_path / "m" / "checkpoints").exists()
    assert finetune(run, DIGITS, tmp_path / "m", epochs=2).result["epochs_trained"] == 2


def _killed(*_: object) -> None:
    raise Killed


def test_an_earlier_model_is_a_start_with_its_head(run: Run, tmp_path: Path) -> None:
    first = finetune(run, DIGITS, tmp_path / "first", epochs=20)
    second = finetune(first, DIGITS, tmp_path / "second", epochs=1, head_learning_rate=1e-9)
    pictures = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        wanted, got = load_classifier(first)(pictures), load_classifier(second)(pictures)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_model_is_a_backbone_like_any_other(run: Run, tmp_path: Path) -> None:
    model = finetune(run, DIGITS, tmp_path / "m", mode="full", epochs=2, augment="none")
    pictures = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        features = load_backbone(model)(pictures)
        assert not torch.equal(features, load_backbone(run)(pictures)), "it was trained"
        again = load_classifier(model).backbone(pictures)
    assert torch.equal(features, again)
    frozen = finetune(run, DIGITS, tmp_path / "l", epochs=2)
    with torch.no_grad():
        assert torch.equal(load_backbone(frozen)(pictures), load_backbone(run)(pictures))


@pytest.mark.journeys
def test_the_full_mode_begins_at_the_linear_fit_and_keeps_the_statistics_of_batch_norms(
    run: Run, tmp_path: Path
) -> None:
    """With the statistics of batches it would begin at chance after so short a pre-training."""
    rates = {"head_learning_rate": 1e-9, "backbone_learning_rate": 1e-9}
    model = finetune(run, DIGITS, tmp_path / "m", mode="full", epochs=1, **rates)
    linear = finetune(
        run, DIGITS, tmp_path / "l", epochs=200, early_stop_epochs=0, weight_decay=1e-3
    )
    start = model.result["validation"]["balanced_accuracy"]
    assert start >= linear.result["validation"]["balanced_accuracy"] - 0.06
    before, after = (load_backbone(one).net.state_dict() for one in (run, model))
    for name in before:
        if "running" in name or "num_batches" in name:
            assert torch.equal(before[name], after[name]), name


def test_head_and_backbone_that_do_not_belong_together_are_refused(
    run: Run, tmp_path: Path
) -> None:
    model = finetune(run, DIGITS, tmp_path / "m", mode="full", epochs=1)
    (tmp_path / "m" / "backbone.safetensors").write_bytes(run.backbone_path.read_bytes())
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_classifier(model)
    with pytest.raises(MissingInputError, match="not a finished model"):
        load_classifier(run)


# ---- labels


def test_a_table_of_labels_trains_and_names_the_classes_it_cannot_hold_out(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    lines = [f"cat/{i}.jpg,cat" for i in range(12)] + [f"dog/{i}.jpg,dog" for i in range(8)]
    data = table(photos, "two_yaks.csv", [*lines, "yak/0.jpg,yak", "yak/1.jpg,yak", "yak/2.jpg,"])
    with pytest.warns(UserWarning, match=r"1 of 3 classes have too few labels .*\(yak; at most 2"):
        model = finetune(run, data, tmp_path / "m", epochs=2)
    classes = {one["name"]: one for one in model.result["validation"]["classes"]}
    numbers = {k: (one["num_train"], one["num_validation"]) for k, one in classes.items()}
    assert numbers == {"cat": (10, 2), "dog": (6, 2), "yak": (2, 0)}, "the empty label is left out"
    assert classes["yak"]["accuracy"] is None


def test_images_of_a_group_are_held_out_together(run: Run, photos: Path, tmp_path: Path) -> None:
    lines = ["path,label,camera"]
    lines += [f"cat/{i}.jpg,cat,c{i // 3}" for i in range(12)]
    lines += [f"dog/{i}.jpg,dog,d{i // 2}" for i in range(8)]
    (photos / "grouped.csv").write_text("\n".join(lines))
    data = labels_of(photos, "grouped.csv").with_values({"group_by": "camera"})
    model = finetune(run, data, tmp_path / "m", epochs=2, validation_share=0.3)
    rows = (model.folder / "validation.csv").read_text().splitlines()[1:]
    cats = sorted(int(row.split(",")[0][4:-4]) for row in rows if row.startswith("cat"))
    assert cats
    assert all(cats.count(3 * (i // 3) + k) == 1 for i in cats for k in range(3))


def test_features_of_another_precision_are_made_anew(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(build_module, "_mean_and_std", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(run, labels_of(photos), tmp_path / "m", epochs=2, precision="fp64")
    with pytest.warns(UserWarning, match="they are made again"):
        model = finetune(run, labels_of(photos), tmp_path / "m", epochs=2, precision="fp32")
    alone = finetune(run, labels_of(photos), tmp_path / "alone", epochs=2, precision="fp32")
    assert model.result == alone.result


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_without_validation_images_it_says_that_nobody_knows(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="no validation images"):
        model = finetune(run, labels_of(photos), tmp_path / "m", epochs=2, validation_share=0.0)
    assert model.result["validation"] is None
    assert model.result["epoch"] == 2, "the last one is kept"
    assert model.result["calibration"]["note"].startswith("not calibrated")
    assert "not calibrated" in model.summary()
    assert load_classifier(model).temperature is None


def test_labels_that_cannot_be_learned_from_are_refused_in_one_sentence(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    good = [f"cat/{i}.jpg,cat" for i in range(12)]
    wrong: dict[str, tuple[list[str], type[Exception], str]] = {
        "one class": (good, DataError, "has one class only, cat"),
        "twice": ([*good, "cat/0.jpg,dog"], DataError, "listed already, in line 2"),
        "missing": ([*good, "dog/99.jpg,dog"], MissingInputError, r"dog/99\.jpg"),
        "no labels": (["cat/0.jpg,", "cat/1.jpg,"], DataError, "no row has a label"),
    }
    for name, (lines, kind, words) in wrong.items():
        data = table(photos, "wrong.csv", lines)
        with pytest.raises(kind, match=words):
            finetune(run, data, tmp_path / name)
        assert not (tmp_path / name).exists(), "nothing was begun"
    plain = DataConfig.parse({"name": "images", "path": str(photos), "subset": "all"})
    with pytest.raises(DataError, match="has no labels to learn from"):
        finetune(run, plain, tmp_path / "plain")


def test_unreadable_images_are_an_error_or_left_out_with_a_warning(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    (photos / "cat" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    lines = [f"cat/{i}.jpg,cat" for i in range(12)] + [f"dog/{i}.jpg,dog" for i in range(8)]
    data = table(photos, "with_bad.csv", [*lines, "cat/bad.jpg,cat"])
    with pytest.raises(DataError, match=r"bad\.jpg"):
        finetune(run, data, tmp_path / "m", epochs=2)
    with pytest.warns(UserWarning, match="1 of 21 images cannot be decoded"):
        model = finetune(run, data.with_values({"on_error": "skip"}), tmp_path / "m", epochs=2)
    assert sum(one["num_train"] for one in model.result["validation"]["classes"]) == 16


# ---- the parts


def test_weights_are_those_of_the_closed_form() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced(labels, 3, "weights").loss_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[torch.from_numpy(labels)].mean() == pytest.approx(1.0)
    drawn = balanced(labels, 3, "sampling").sampling
    assert drawn is not None
    shares = np.bincount(labels, weights=drawn.numpy()) / float(drawn.sum())
    assert shares.tolist() == pytest.approx([1 / 3] * 3), "each class as often"
    shares_of = balanced(labels, 3, "logits").log_shares
    assert shares_of is not None
    assert shares_of.exp().tolist() == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.journeys
def test_every_way_to_balance_helps_the_rare_classes(run: Run, tmp_path: Path) -> None:
    few = {}
    for balance in ("none", "weights", "sampling", "logits"):
        model = finetune(
            run, DIGITS, tmp_path / balance, balance=balance, epochs=40, early_stop_epochs=0
        )
        few[balance] = model.result["validation"]["groups"]["few"]["accuracy"]
    for balance in ("weights", "sampling", "logits"):
        assert few[balance] > few["none"], few


def test_a_last_batch_of_one_image_joins_the_one_before() -> None:
    assert batch_sizes(129, 64) == [64, 65]
    assert batch_sizes(130, 64) == [64, 64, 2]
    assert batch_sizes(3, 64) == [3]
    assert sum(batch_sizes(12_345, 64)) == 12_345


def test_training_ends_early_where_nothing_becomes_better(run: Run, tmp_path: Path) -> None:
    model = finetune(run, DIGITS, tmp_path / "m", epochs=100, early_stop_epochs=3)
    lines = [json.loads(x) for x in (model.folder / "metrics.jsonl").read_text().splitlines()]
    scores = [(x["validation_balanced_accuracy"], -x["validation_loss"]) for x in lines]
    assert model.result["epoch"] == 1 + scores.index(max(scores))
    least = renewed = 0
    for epoch, (_, minus_loss) in enumerate(scores, 1):
        if epoch == 1 or -minus_loss < 0.99 * least:
            least, renewed = -minus_loss, epoch
    trained = model.result["epochs_trained"]
    assert 5 <= trained < 100
    assert trained == max(renewed, model.result["epoch"]) + 3


def judged(validated: list[tuple[float, float]], **settings: Any) -> tuple[int, State]:
    """How many epochs of one step each are trained with such losses and accuracies, and what is known then."""
    config = FinetuneConfig(**settings)
    training: Any = SimpleNamespace(
        config=config,
        steps_per_epoch=1,
        total_steps=config.epochs,
        head=torch.nn.Linear(2, 2),
        is_full=False,
    )
    state = State.begin(torch.device("cpu"))
    for loss, accuracy in validated:
        if is_to_stop_early(training, state):
            break
        state.step += 1
        seen = Validated(loss, accuracy, accuracy)
        loop_module._keep_the_best(training, state, state.step, seen)
    return state.step, state


def test_a_lucky_epoch_of_the_warm_up_does_not_end_a_training_that_still_learns() -> None:
    falling = [(2.0 * 0.97**epoch, 0.9 if epoch == 3 else 0.8) for epoch in range(1, 61)]
    trained, state = judged(falling)
    assert (trained, state.best_epoch) == (60, 3), "the epoch that is kept is chosen as before"
    slow = [(2.0 * 0.9995**epoch, 0.9 if epoch == 3 else 0.8) for epoch in range(1, 61)]
    assert judged(slow)[0] == 13, "a loss that hardly moves renews nothing"
    assert judged([(2.0, 0.5)] * 60, epochs=500, early_stop_epochs=3)[0] == 25, "the warm-up"
    assert judged([(2.0, 0.5)] * 60, early_stop_epochs=0)[0] == 60


@pytest.mark.parametrize("older", [False, True])
def test_a_training_that_was_stopped_knows_its_least_loss(
    older: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "m", {"epochs": 6, "batch_size": 100}
    with pytest.raises(Preempted):
        finetune(run, DIGITS, out, progress=AfterFeatures(6), **settings)
    seen: list[State] = []

    def restored(training: Any, state: State, checkpoint: Any, where: str) -> None:
        if older:
            del checkpoint.facts["least_loss"], checkpoint.facts["least_loss_epoch"]
        restore(training, state, checkpoint, where)
        seen.append(replace(state))

    monkeypatch.setattr(job_module, "restore", restored)
    finetune(run, DIGITS, out, **settings)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epoch = seen[0].best_epoch if older else seen[0].least_loss_epoch
    assert seen[0].least_loss_epoch == epoch > 0
    assert seen[0].least_loss == pytest.approx(lines[epoch - 1]["validation_loss"])


def test_settings_that_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="backbone_learning_rate does nothing in mode linear"):
        FinetuneConfig.parse({"backbone_learning_rate": 1e-3})
    with pytest.raises(ConfigError, match="mode"):
        FinetuneConfig.parse({"mode": "lora"})
    assert FinetuneConfig.parse({"mode": "full"}).augment == "crops"


def counts_of(model: Finetuned) -> tuple[int, int]:
    """Images that were trained on, and held out."""
    classes = model.result["validation"]["classes"]
    num_train, num_validation = (
        sum(one[name] for one in classes) for name in ("num_train", "num_validation")
    )
    return num_train, num_validation


class Remarks(NoProgress):
    """Keeps what is printed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def print(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("with_test", [False, True])
def test_a_val_folder_is_held_out_with_or_without_a_test_folder(
    with_test: bool, run: Run, photos: Path, tmp_path: Path
) -> None:
    parts = {"train": range(6), "val": range(6, 8)} | ({"test": range(5, 6)} if with_test else {})
    for part, numbers in parts.items():
        for kind in ("cat", "dog"):
            (tmp_path / "parts" / part / kind).mkdir(parents=True)
            for n in numbers:
                shutil.copy(photos / kind / f"{n}.jpg", tmp_path / "parts" / part / kind)
    data = labelled_images(run.folder, tmp_path / "parts", None, {})
    assert (data.layout, data.labels) == ("splits", "folders")
    show = Remarks()
    model = finetune(run, data, tmp_path / "m", epochs=1, progress=show)
    assert counts_of(model) == (12, 4)
    said = [text for text in show.texts if "left out: sdclr predict" in text]
    assert len(said) == with_test
    if said:  # the command works as it is printed
        words = shlex.split(said[0].partition(": sdclr ")[2].removesuffix(" measures on them"))
        asked = [*words, "--out", str(tmp_path / "tested.csv"), "--device", "cpu"]
        assert CliRunner().invoke(cli.app, asked).exit_code == 0
        assert len((tmp_path / "tested.csv").read_text().splitlines()) == 1 + 2
        flat = [word for word in words if not word.startswith("data.")]
        error = CliRunner().invoke(cli.app, [*flat, "--out", str(tmp_path / "flat.csv")]).exception
        assert isinstance(error, ConfigError)
        assert "Give data.layout=splits data.labels=folders beside --part test." in str(error)
    with pytest.raises(ConfigError, match=r"--validation\) does nothing: the folder of validation"):
        finetune(run, data, tmp_path / "n", epochs=1, validation_share=0.3)


def test_folders_of_splits_are_recognised_without_what_is_left_out(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    for part in ("train", "val"):
        shutil.copytree(photos / "cat", tmp_path / "parts" / part / "cat")
        shutil.copytree(photos / "dog", tmp_path / "parts" / part / "dog")
    for other in ("raw", "model"):
        (tmp_path / "parts" / other).mkdir()
        shutil.copy(photos / "cat" / "0.jpg", tmp_path / "parts" / other)
    out = tmp_path / "parts" / "model"
    given = {"data.exclude": ["raw"]}
    assert labelled_images(run.folder, tmp_path / "parts", None, given, [out]).layout == "splits"
    assert labelled_images(run.folder, tmp_path / "parts", None, {}, [out]).layout == "flat"


def test_a_file_of_weights_may_fit_in_order(photos: Path, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", pretrained=False)
    renamed = {f"x{number}": one for number, one in enumerate(network.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pth")
    words = ["timm:test_resnet", "--weights", str(tmp_path / "w.pth"), "--image-size", "16"]
    labels = ["--labels", str(photos / "labels.csv")]
    rest = ["--epochs", "1", "--device", "cpu", "--weights-match"]
    for match, code in (("exact", 1), ("order", 0)):
        asked = ["finetune", *words, *labels, "--out", str(tmp_path / "m"), *rest, match]
        assert CliRunner().invoke(cli.app, asked).exit_code == code


def test_a_npz_with_a_tail_of_its_own_is_learned_from_as_it_is(run: Run, tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 3], [20, 10, 2])  # no image of class 2
    images = np.random.default_rng(0).integers(0, 255, (len(labels), 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.warns(UserWarning, match=r"too few labels .*\(3; at most 2 images each\)"):
        model = finetune(
            run, labelled_images(run.folder, tmp_path / "x.npz", None, {}), tmp_path / "m", epochs=1
        )
    assert sum(counts_of(model)) == 32
    assert [one["name"] for one in model.result["validation"]["classes"]] == ["0", "1", "3"]


@pytest.fixture(scope="module")
def unflipped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = recipe("digits_simclr").with_values(
        {"epochs": 1, "views.size": 8, "backbone.width": 4, "views.flip": 0.0}
    )
    return pretrain(config, tmp_path_factory.mktemp("unflipped") / "run")


def test_views_are_those_of_the_pre_training_from_the_run_its_file_and_its_model(
    unflipped: Run, tmp_path: Path
) -> None:
    model = finetune(unflipped, DIGITS, tmp_path / "m", epochs=1)
    config = FinetuneConfig.parse({"mode": "full", "augment": "views"})
    expected = ViewsConfig.parse(unflipped.settings()["views"])
    assert expected.flip == 0
    for source in (unflipped.folder, unflipped.backbone_path, model.folder):
        start = open_start(source, config, None, "exact", None)
        assert (start.records_views, start.views) == (True, expected)
    shutil.copy(unflipped.backbone_path, tmp_path / "alone.safetensors")
    start = open_start(tmp_path / "alone.safetensors", config, None, "exact", None)
    assert (start.records_views, start.views.flip) == (False, 0.5)


def test_a_start_that_records_no_views_says_so_and_continues_no_other_one(
    unflipped: Run, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(unflipped.backbone_path, alone)
    settings: dict[str, Any] = {"mode": "full", "augment": "views", "epochs": 1}
    with pytest.warns(UserWarning, match=r"alone\.safetensors records no views of its pre-train"):
        finetune(alone, DIGITS, tmp_path / "a", **settings)
    finetune(unflipped, DIGITS, tmp_path / "b", **settings)
    with pytest.raises(ConfigError, match="the views that the start records of its pre-training"):
        finetune(alone, DIGITS, tmp_path / "b", **settings)


def test_a_store_of_pixels_is_refused_as_it_would_do_nothing(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    data = DataConfig.parse(
        {"name": "images", "path": str(photos), "labels": "folders", "store": str(tmp_path / "s")}
    )
    with pytest.raises(ConfigError, match=r"data\.store does nothing here"):
        finetune(run, data, tmp_path / "m", epochs=1)


def test_a_first_try_that_trained_nothing_leaves_no_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m"
    monkeypatch.setattr(sys, "argv", ["sdclr", "finetune", "--head-lr", "1e9"])
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(run, DIGITS, out, epochs=1)
    monkeypatch.setattr(sys, "argv", ["sdclr", "finetune", "--epochs", "2"])
    finetune(run, DIGITS, out, epochs=2)
    recorded = json.loads((out / "environment.json").read_text())["command"]
    assert recorded == "sdclr finetune --epochs 2"
