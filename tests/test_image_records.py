"""Records of each image: what a run writes, cuts when it goes on, and hands to the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from killing import SignalAt
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.errors import ConfigError, DataError, MissingInputError, Preempted
from sdclr.image_records import append_records, cut_records, moving_average, read_records
from sdclr.methods.hardest_mass import hardest_mass
from sdclr.methods.nt_xent import nt_xent
from several_processes import codes, started

N = 405


def config(*overrides: str) -> PretrainConfig:
    tiny = [
        "backbone.width=2",
        "views.size=8",
        "batch_size=200",
        "epochs=3",
        "health_every_epochs=0",
    ]
    more = ["checkpoint_every_epochs=1", "record_images=true", *overrides]
    return recipe("digits_sdclr").with_overrides([*tiny, *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(config(), tmp_path_factory.mktemp("records") / "x").folder


def test_every_image_has_a_loss_a_mass_and_a_disagreement_in_every_epoch(whole: Path) -> None:
    records = read_records(whole, N)
    assert records.values.shape == (3, N, 3)
    assert np.isfinite(records.values).all()
    assert (records.losses > 0).all()
    assert ((records.masses >= 0) & (records.masses <= 1)).all()
    assert ((records.disagreements > -1e-6) & (records.disagreements <= 2)).all()
    table = pyarrow.parquet.read_table(whole / "images.parquet")
    assert table.column_names == [
        "epoch",
        "path",
        "loss",
        "hardest_mass",
        "disagreement",
        "loss_average",
    ]
    assert len(table) == 3 * N
    np.testing.assert_array_equal(table["loss"].to_numpy(), records.losses.flatten())
    assert table["epoch"].to_pylist()[-N:] == [3] * N
    last = table["loss_average"].to_numpy()[-N:]
    np.testing.assert_allclose(last, moving_average(records.losses, 0.97), rtol=1e-6)


def test_the_mean_of_the_recorded_losses_is_the_epochs_loss(whole: Path) -> None:
    from sdclr import Run

    logged = [line["loss"] for line in Run(whole).metrics()]
    means = read_records(whole, N).losses.double().mean(dim=1)
    np.testing.assert_allclose(means, logged, rtol=1e-6)


def test_recording_changes_no_weight(whole: Path, tmp_path: Path) -> None:
    plain = pretrain(config("record_images=false"), tmp_path / "x")
    assert not (plain.folder / "image_records.f32").exists()
    from sdclr import load_backbone

    ours, theirs = load_backbone(whole).state_dict(), load_backbone(plain.folder).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.journeys
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_run_that_stops_and_goes_on_records_what_a_whole_one_does(
    whole: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(Preempted):
        pretrain(config(), tmp_path / "x", progress=SignalAt(step))
    with (tmp_path / "x" / "image_records.f32").open("ab") as file:
        file.write(b"more than the checkpoint knows of")
    resume(tmp_path / "x")
    found, expected = (read_records(folder, N).values for folder in (tmp_path / "x", whole))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.processes
def test_two_processes_record_what_one_does(tmp_path: Path) -> None:
    fp64 = config("precision=fp64", "batch_size=151", "epochs=1")
    assert codes(started(2, lambda _: pretrain(fp64, tmp_path / "two"))) == [0, 0]
    pretrain(fp64, tmp_path / "one")
    found, expected = (read_records(tmp_path / name, N).values for name in ("two", "one"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lost_records_become_nan_with_a_warning(tmp_path: Path) -> None:
    append_records(tmp_path, torch.ones(4, 3))
    with pytest.warns(UserWarning, match="are lost and are NaN"):
        cut_records(tmp_path, 3, 4)
    values = read_records(tmp_path, 4).values
    assert values.shape == (3, 4, 3)
    assert np.isnan(values[1:]).all()
    assert (values[0] == 1).all()


def test_what_is_missing_or_of_other_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="record_images=true"):
        read_records(tmp_path, 4)
    append_records(tmp_path, torch.ones(4, 3))
    with pytest.raises(DataError, match="other than 5 images"):
        read_records(tmp_path, 5)


def test_a_method_that_does_not_say_its_projections_cannot_record(tmp_path: Path) -> None:
    import sdclr
    from outside_method import HardImages
    from sdclr.methods import METHODS

    with METHODS.temporarily():
        sdclr.register_method(HardImages)
        asked = config("method.name=hard_images")
        with pytest.raises(ConfigError, match="HardImages does not say what they are"):
            pretrain(asked, tmp_path / "x")


def test_an_image_alone_in_a_batch_has_no_negatives() -> None:
    from torch import nn

    from sdclr import Views
    from sdclr.methods.simclr import SimCLR

    method = SimCLR(nn.Flatten())
    method.start_recording(5)
    a, b = torch.rand(2, 5, 3, 2, 2)
    method(Views(a[:4], b[:4], torch.arange(4)))
    method(Views(a[4:], b[4:], torch.tensor([4])))
    found = method.epoch_records()
    assert found is not None
    z_a, z_b = a.flatten(1), b.flatten(1)
    torch.testing.assert_close(found[:4, 0], nt_xent(z_a[:4], z_b[:4], 0.2))
    torch.testing.assert_close(found[:4, 1], hardest_mass(z_a[:4], z_b[:4], 0.2))
    assert found[4, 1] == 0
    method.forget_records()
    assert method.epoch_records().isnan().all()


def test_the_mass_is_computed_in_fp32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 16, generator=generator)
    z_a, z_b = (base + 0.1 * torch.randn(64, 16, generator=generator) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = hardest_mass(z_a, z_b)
        of_half = hardest_mass(z_a.bfloat16(), z_b.bfloat16())
    assert found.dtype == of_half.dtype == torch.float32
    torch.testing.assert_close(found, hardest_mass(z_a, z_b), rtol=0, atol=0)
    assert len(of_half.unique()) == 64
