"""Views of a user's own: what they get, what they give, and that a resumed run equals a whole one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import own_views as theirs
import sdclr
from sdclr.backbones import BACKBONES
from sdclr.batch import Views
from sdclr.cli import app
from sdclr.data import SOURCES, DataConfig
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.config import ViewsConfig
from sdclr.data.own_views import OWN_VIEWS, named_views
from sdclr.data.sources.python_objects import given_images
from sdclr.errors import ConfigError, DataError
from sdclr.jobs.status import read_status
from sdclr.run.next_step import next_command, report_command
from sdclr.settings import PretrainConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 14, 12, 3), dtype=np.uint8)
ARRAYS = ImageArrays(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), None)
SMALL = {"views.size": 8, "backbone.width": 4, "batch_size": 32, "health_every_epochs": 0}
INDEX = torch.arange(24)


@pytest.fixture(autouse=True)
def _forgotten_afterwards() -> Iterator[None]:
    # a function that --use names is known as whatever it may be
    with OWN_VIEWS.temporarily(), BACKBONES.temporarily(), SOURCES.temporarily():
        yield


def spec_of(name: str, field: str = "own") -> Any:
    sdclr.register_views(getattr(theirs, name), name.lower())
    whole = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "grey": 0.0}
    return ViewsConfig(size=8, jitter_probability=0.0, **whole, **{field: name.lower()}).spec()


def views(spec: Any, images: Any = ARRAYS, *, batches: int = 1, epoch: int = 1) -> Tensor:
    found = list(images.views(INDEX.chunk(batches), spec, seed=5, epoch=epoch))
    a, b = (torch.cat([getattr(one, name) for one in found]) for name in "ab")
    return torch.stack([a, b])


REPEATED = [
    *("torchvision_views", "augmix", "with_dropout", "with_rng", "with_globals"),
    *("with_rng_and_globals", "as_numpy"),
]


@pytest.mark.parametrize("name", REPEATED)
def test_a_view_is_a_function_of_seed_epoch_and_image_alone(name: str) -> None:
    """Whatever the batches are, in however many threads, wherever the images lie."""
    spec = spec_of(name)
    found = views(spec)
    assert torch.equal(found, views(spec, batches=5))
    few = given_images(list(IMAGES), num_workers=1).train
    many = given_images(list(IMAGES), num_workers=7).train
    assert torch.equal(found, views(spec, few))
    assert torch.equal(found, views(spec, many))
    if name != "as_numpy":
        assert not torch.equal(found[0], found[1])
        assert not torch.equal(found, views(spec, epoch=2))


@pytest.mark.parametrize("name", ["torchvision_views", "augmix", "with_dropout"])
def test_torch_draws_what_it_draws_with_the_seed_of_the_view(name: str) -> None:
    from sdclr.compute.stateless_random import Stream, derive

    found = views(spec_of(name))
    for row in range(8):
        torch.manual_seed(derive(5, Stream.OWN_VIEWS, 1, 1, row))
        alone = getattr(theirs, name)(ARRAYS.images[row].contiguous())
        if not alone.is_floating_point():
            alone = alone.float() / 255
        torch.testing.assert_close(found[1, row], alone.clamp(0, 1), rtol=0, atol=1e-6)


class _LikeAlbumentations:
    """Draws from a generator that it keeps, and takes and gives arrays by name."""

    __module__ = "albumentations.of_a_test"

    def __init__(self) -> None:
        self.random = random.Random(0)

    def set_random_seed(self, seed: int) -> None:
        self.random.seed(seed)

    def __call__(self, *, image: np.ndarray) -> dict[str, np.ndarray]:
        top = self.random.randrange(image.shape[0] - 7)
        return {"image": image[top : top + 8, :8]}


def test_a_transform_that_keeps_its_generator_is_seeded_for_each_view() -> None:
    sdclr.register_views(_LikeAlbumentations(), "like")
    spec = ViewsConfig(size=8, area=(1.0, 1.0), aspect=(1.0, 1.0), own="like").spec()
    few, many = (given_images(list(IMAGES), num_workers=number).train for number in (1, 7))
    found = views(spec, few)
    assert torch.equal(found, views(spec, many))
    assert not torch.equal(found, views(spec, epoch=2))


@pytest.mark.journeys
def test_generators_of_the_process_are_as_they_were() -> None:
    torch.manual_seed(1)
    random.seed(2)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(1)
    random.seed(2)
    many = given_images(list(IMAGES), num_workers=7).train
    for name in [*REPEATED, *["with_rng_and_globals"] * 10]:  # threads meet now and then
        views(spec_of(name), many)
    assert (torch.rand(1).item(), random.random()) == expected


def test_a_view_is_what_the_callable_made() -> None:
    found = views(spec_of("as_numpy"))
    assert torch.equal(found[0], ARRAYS.images[:, :, :8, :8].float() / 255)


def test_flips_and_colours_follow_where_they_are_asked_for() -> None:
    sdclr.register_views(theirs.as_numpy)
    plain = sdclr.recipe("digits_sdclr").with_values({"views.own": "as_numpy", "views.size": 8})
    assert plain.views.flip == plain.views.grey == plain.views.jitter_probability == 0
    grey = plain.with_values({"views.grey": 1.0, "views.flip": 1.0}).views.spec()
    found = views(grey)
    mirrored = ARRAYS.images[:, :, :8, :8].float().flip(3) / 255
    luma = (mirrored * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1)
    torch.testing.assert_close(found[0, :, 0], luma, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"own makes the whole view"):
        plain.with_values({"views.area": [0.2, 1.0]})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too_small", r"returned the shape \[3, 7, 12\]; it must be \[3, 8, 8\] \(views.size=8\)"),
        ("not_finite", "returned numbers that are not finite"),
        ("normalised", r"values from -2 to -2; views lie in \[0, 1\]. Leave normalisation out"),
        ("failing", r"failed: KeyError: .*nothing here.*called with a uint8 tensor \[3, 14, 12\]"),
        ("no_image", "returned a str; a view is a tensor, an array or a PIL image"),
    ],
)
def test_an_error_names_the_callable_and_the_image(name: str, words: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    with pytest.raises(DataError, match=rf"views\.own={name} on image 0 .*{words}|{words}") as said:
        views(spec)
    assert f"views.own={name} on image 0" in str(said.value)
    paths = tmp_path / "cat.png"
    Image.fromarray(IMAGES[0]).save(paths)
    with pytest.raises(DataError, match=r"cat\.png"):
        list(given_images([paths]).train.views([torch.tensor([0])], spec, seed=0, epoch=0))


def test_a_module_on_the_batch_changes_finished_views_and_can_be_repeated() -> None:
    plain = views(ViewsConfig(size=8).spec())
    sdclr.register_views(theirs.Noise)
    spec = ViewsConfig(size=8, own_batch="noise").spec()
    found = views(spec)
    assert torch.equal(found, views(spec))
    assert 0.02 < float((found - plain).abs().mean()) < 0.12
    assert torch.equal(
        views(spec, given_images(list(IMAGES)).train), views(spec, given_images(list(IMAGES)).train)
    )


def test_errors_of_a_module_name_it_and_the_image() -> None:
    with pytest.raises(DataError, match=r"views\.own_batch=badrow made numbers .* from image 1\."):
        views(spec_of("BadRow", "own_batch"))
    with pytest.raises(
        DataError, match=r"own_batch=half returned the shape \[24, 3, 8, 8\]; it must"
    ):
        views(spec_of("half", "own_batch"))
    with pytest.raises(
        DataError, match=r"failing failed on the batch that begins with image 0: Key"
    ):
        views(spec_of("failing", "own_batch"))


def config_of(field: str, name: str, epochs: int = 2) -> PretrainConfig:
    return sdclr.recipe("digits_simclr").with_values(
        {f"views.{field}": name, "epochs": epochs, **SMALL}
    )


def losses(run: sdclr.Run) -> list[float]:
    return [one["loss"] for one in run.metrics()]


class _Stop(sdclr.Observer):
    """A signal in the second epoch."""

    def on_step(self, done: Any) -> None:
        import os
        import signal

        if done.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.journeys
@pytest.mark.parametrize(
    ("field", "name"),
    [("own", "torchvision_views"), ("own", "with_rng"), ("own_batch", "noise")],
)
def test_a_resumed_run_equals_a_whole_one(field: str, name: str, tmp_path: Path) -> None:
    from sdclr.errors import Preempted

    sdclr.register_views(getattr(theirs, name, theirs.Noise), name)
    config = config_of(field, name)
    whole = sdclr.pretrain(config, tmp_path / "whole", images=NOISE)
    with pytest.raises(Preempted):
        sdclr.pretrain(config, tmp_path / "stopped", images=NOISE, observers=[_Stop()])
    stopped = sdclr.pretrain(config, tmp_path / "stopped", images=NOISE)
    assert losses(stopped) == losses(whole)
    one, other = (sdclr.load_backbone(run).state_dict() for run in (whole, stopped))
    assert all(torch.equal(one[key], other[key]) for key in one)
    facts = whole.read_json("environment.json")["resolved"]["own_views"]
    assert facts["repeatable"] is True


NOISE = np.random.default_rng(1).integers(0, 256, (96, 10, 10, 3), dtype=np.uint8)


def test_what_cannot_be_repeated_says_so(tmp_path: Path) -> None:
    sdclr.register_views(theirs.counting)
    with pytest.warns(UserWarning, match="own_views:counting differ from one time to the next"):
        run = sdclr.pretrain(config_of("own", "counting", 1), tmp_path / "run", images=NOISE)
    facts = run.read_json("environment.json")["resolved"]["own_views"]
    assert facts == {"own": "own_views:counting", "repeatable": False}


@pytest.mark.filterwarnings("ignore:epoch .*:UserWarning")
def test_a_draw_that_is_not_led_is_noticed_while_the_run_trains(tmp_path: Path) -> None:
    """The images that are tried before the run are not among the few that draw so."""
    sdclr.register_views(theirs.seldom_from_the_default)
    config = config_of("own", "seldom_from_the_default")
    with pytest.warns(
        UserWarning, match="own_views:seldom_from_the_default differ from one"
    ) as warned:
        run = sdclr.pretrain(config, tmp_path / "run", images=NOISE)
    assert sum("differ from one" in str(one.message) for one in warned) == 1
    facts = run.read_json("environment.json")["resolved"]["own_views"]
    assert facts == {"own": "own_views:seldom_from_the_default", "repeatable": False}
    assert "their random draws are reproducible" in (tmp_path / "run" / "log.txt").read_text()


def test_a_function_with_a_generator_waits_for_no_other_thread() -> None:
    """Two calls at once meet; where one waited for the other, the barrier would break."""
    meeting = threading.Barrier(2)

    def meets(image: Tensor, generator: torch.Generator) -> Tensor:
        meeting.wait(timeout=60)
        return image[:, :8, :8]

    sdclr.register_views(meets)
    spec = ViewsConfig(size=8, area=(1.0, 1.0), aspect=(1.0, 1.0), own="meets").spec()
    assert len(views(spec, given_images(list(IMAGES), num_workers=2).train)) == 2


def test_what_fails_fails_before_a_run_folder_is_there(tmp_path: Path) -> None:
    sdclr.register_views(theirs.failing)
    with pytest.raises(DataError, match=r"views\.own=failing on image"):
        sdclr.pretrain(config_of("own", "failing", 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.journeys
def test_the_command_line_takes_a_module_and_names_it_again(tmp_path: Path) -> None:
    """A run folder alone imports nothing."""
    words = [
        "epochs=1",
        "views.size=8",
        "backbone.width=4",
        "health_every_epochs=0",
        "views.own=own_views:with_rng",
    ]
    out = str(tmp_path / "run")
    with OWN_VIEWS.temporarily():
        found = CliRunner().invoke(app, ["pretrain", "digits_simclr", *words, "--out", out])
    assert found.exit_code == 0, f"{found.output} {found.exception}"
    assert "own: with_rng" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"resume \S+ --use own_views:with_rng$"):
        sdclr.resume(out)
    # what does not make views reads the run all the same
    sdclr.load_backbone(out)
    assert set(sdclr.evaluate(out, probes=["knn"]).probes) == {"knn"}
    again = CliRunner().invoke(app, ["resume", out, "--use", "own_views:with_rng"])
    assert again.exit_code == 0, f"{again.output} {again.exception}"


@pytest.mark.journeys
def test_what_is_proposed_names_the_views(tmp_path: Path) -> None:
    from sdclr.errors import Preempted

    use = "--use own_views:with_rng"
    config = config_of("own", named_views("own_views:with_rng"), 1)
    out = tmp_path / "run"
    with pytest.raises(Preempted, match=rf"Continue with: sdclr resume \S+ {use}$"):
        sdclr.pretrain(config, out, observers=[_Stop()])
    assert read_status(out).next == f"sdclr resume {out} {use}"
    run = sdclr.resume(out)
    assert report_command(run, run) == f"sdclr report {out} {out} {use}"
    run.write_json("split.json", run.read_json("split.json") | {"counts": {}})  # as without labels
    assert read_status(out).next == f"sdclr report {out} {use}"
    OWN_VIEWS._rows.clear()
    with pytest.warns(UserWarning, match="reported without measurements: there are no views"):
        found = CliRunner().invoke(app, ["report", str(out)])
    assert found.exit_code == 0, f"{found.output} {found.exception}"
    words = " ".join(found.output.split())
    assert "was not examined: there are no views 'with_rng' here" in words
    assert f"Here: sdclr report {out} {use}" in words
    assert "--data PATH" not in words
    found = CliRunner().invoke(app, ["report", str(out), *use.split()])
    assert "finds its second one" in " ".join(found.output.split()), (
        f"{found.output} {found.exception}"
    )


@pytest.mark.journeys
def test_views_that_use_cannot_name_are_not_proposed(tmp_path: Path) -> None:
    sdclr.register_views(theirs.torchvision_views, "crops")
    run = sdclr.pretrain(config_of("own", "crops", 1), tmp_path / "run")
    assert run.read_json("environment.json")["resolved"]["own_views"]["own"].endswith(":Compose")
    assert next_command(run, "interrupted") == f"sdclr resume {run.folder}"


def test_what_cannot_be_views_is_refused() -> None:
    with pytest.raises(ConfigError, match="it cannot be called"):
        sdclr.register_views(3, "three")
    with pytest.raises(ConfigError, match=r"no views 'absent' here"):
        sdclr.recipe("digits_sdclr").with_values({"views.own": "absent"})

    class Needs:
        def __init__(self, size: int) -> None:
            self.size = size

        def __call__(self, image: Tensor) -> Tensor:
            return image

    sdclr.register_views(Needs)
    config = sdclr.recipe("digits_sdclr").with_values({"views.own": "needs"})
    with pytest.raises(ConfigError, match="called without arguments: TypeError"):
        config.views.spec()


def test_views_of_other_channels_go_through_too() -> None:
    five = np.random.default_rng(0).integers(0, 256, (6, 9, 10, 5), dtype=np.uint8)
    images = given_images(list(five)).train
    spec = spec_of("with_rng")
    (found,) = images.views([torch.arange(6)], spec, seed=0, epoch=0)
    assert isinstance(found, Views)
    assert found.a.shape == (6, 5, 8, 8)


@pytest.mark.journeys
def test_a_fine_tuning_uses_own_views_or_asks_for_them(tmp_path: Path) -> None:
    labels = ["a", "b"] * 48
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(NOISE):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02d}.png")
    lines = [f"images/{number:02d}.png,{label}" for number, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    sdclr.register_views(theirs.with_rng)
    run = sdclr.pretrain(config_of("own", "with_rng", 1), tmp_path / "run")
    data = DataConfig(name="images", path=str(tmp_path / "labels.csv"), subset="all")
    sdclr.finetune(run, data, tmp_path / "model", epochs=1, augment="views")
    assert (tmp_path / "model" / "classifier.safetensors").is_file()
    OWN_VIEWS._rows.clear()
    with pytest.raises(ConfigError, match="no views 'with_rng' here"):
        sdclr.finetune(run, data, tmp_path / "other", epochs=1, augment="views")
    sdclr.finetune(run, data, tmp_path / "plain", epochs=1)
