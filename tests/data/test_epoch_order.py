"""Batches of an epoch: every image once, an order that is a function of (seed, epoch), refusals that help."""

from __future__ import annotations

import re

import pytest
import torch

from sdclr.data.epoch_order import epoch_batches, epoch_draws, steps_per_epoch
from sdclr.errors import ConfigError


def order(
    num_images: int = 100, batch_size: int = 16, *, seed: int = 1, epoch: int = 3
) -> list[int]:
    return torch.cat(list(epoch_batches(num_images, batch_size, seed=seed, epoch=epoch))).tolist()


@pytest.mark.parametrize(
    ("num_images", "batch_size"), [(100, 16), (96, 16), (11_165, 512), (5, 5), (2, 2), (18, 16)]
)
def test_an_epoch_holds_every_image_exactly_once(num_images: int, batch_size: int) -> None:
    batches = list(epoch_batches(num_images, batch_size, seed=7, epoch=1))
    assert sorted(torch.cat(batches).tolist()) == list(range(num_images))
    assert len(batches) == steps_per_epoch(num_images, batch_size)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert len(batches[-1]) == (num_images % batch_size or batch_size), (
        "the short last batch is kept"
    )
    assert batches[0].dtype == torch.int64


def test_the_papers_step_counts_come_out() -> None:
    assert [steps_per_epoch(*sizes) for sizes in ((11_165, 512), (9_754, 512), (12_205, 256))] == [
        22,
        20,
        48,
    ]
    assert len(list(epoch_batches(11_165, 512, seed=1, epoch=1))[-1]) == 413
    assert len(list(epoch_batches(9_754, 512, seed=1, epoch=1))[-1]) == 26


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    assert order() == order()
    assert order() == order(batch_size=50), "not of the batch size"
    orders = [order(seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (1, 2, 3)] + [
        list(range(100))
    ]
    assert len(set(map(tuple, orders))) == 7
    assert order(seed=1, epoch=2) != order(seed=2, epoch=1)


def test_images_are_equally_likely_to_come_first() -> None:
    first = torch.tensor(
        [next(epoch_batches(4, 2, seed=5, epoch=epoch)).tolist()[0] for epoch in range(4000)]
    )
    counts = torch.bincount(first, minlength=4)
    assert (counts - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("first", range(8))
def test_first_skips_exactly_the_batches_before_it(first: int) -> None:
    whole = list(epoch_batches(100, 16, seed=1, epoch=2))
    rest = list(epoch_batches(100, 16, seed=1, epoch=2, first=first))
    if first < 7:
        assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in whole[first:]]
    else:
        assert sum(map(len, rest)) == 0


@pytest.mark.parametrize(
    ("num_images", "batch_size"), [(97, 16), (513, 512), (3, 2), (9_217, 512), (5, 4), (10, 1)]
)
def test_a_last_batch_of_one_image_is_refused_with_a_batch_size_that_works(
    num_images: int, batch_size: int
) -> None:
    with pytest.raises(
        ConfigError, match=rf"leaves a last batch of one image \({num_images} images\)"
    ) as caught:
        steps_per_epoch(num_images, batch_size)
    proposed = int(re.findall(r"batch_size=(\d+)", str(caught.value))[-1])
    assert steps_per_epoch(num_images, proposed) >= 1


def test_the_proposed_batch_size_works_for_every_small_data_set() -> None:
    failures = []
    for num_images in range(2, 130):
        for batch_size in range(1, num_images + 1):
            try:
                steps_per_epoch(num_images, batch_size)
            except ConfigError as error:
                proposed = int(re.findall(r"batch_size=(\d+)", str(error))[-1])
                try:
                    steps_per_epoch(num_images, proposed)
                except ConfigError:
                    failures.append((num_images, batch_size, proposed))
    assert not failures


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 11), (1, 2), (0, 2)])
def test_a_batch_larger_than_the_data_is_refused(num_images: int, batch_size: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"must not exceed the {num_images} training images, got {batch_size}"
    ):
        steps_per_epoch(num_images, batch_size)


def test_weights_draw_images_in_proportion_and_with_replacement() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])
    drawn = torch.cat(
        [
            torch.cat(list(epoch_batches(5, 2, seed=1, epoch=e, weights=weights)))
            for e in range(2000)
        ]
    )
    counts = torch.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    share = counts[3].item() / 10_000
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 10_000) ** 0.5


def test_weighted_batches_are_a_function_of_seed_and_epoch_and_first_skips_batches() -> None:
    weights = torch.linspace(0, 1, 11)
    all_of_them = list(epoch_batches(11, 3, seed=1, epoch=4, weights=weights))
    assert [len(batch) for batch in all_of_them] == [3, 3, 3, 2]
    rest = list(epoch_batches(11, 3, seed=1, epoch=4, first=2, weights=weights))
    assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in all_of_them[2:]]
    other = torch.cat(list(epoch_batches(11, 3, seed=1, epoch=5, weights=weights)))
    assert other.tolist() != torch.cat(all_of_them).tolist()


def test_weights_of_zero_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="no image can be drawn"):
        list(epoch_batches(3, 2, seed=1, epoch=0, weights=torch.zeros(3)))


def test_an_image_that_comes_again_is_another_draw() -> None:
    weights = torch.tensor([5.0, 1.0, 0.0, 1.0])
    settings = {"seed": 1, "epoch": 2, "weights": weights}
    draws = torch.cat(list(epoch_draws(4, 3, **settings)))
    positions = torch.cat(list(epoch_batches(4, 3, **settings)))
    assert torch.equal(draws % 4, positions)
    assert len(draws.unique()) == 4
    times: dict[int, int] = {}
    for draw, position in zip(draws.tolist(), positions.tolist(), strict=True):
        assert draw // 4 == times.get(position, 0)
        times[position] = times.get(position, 0) + 1
    assert max(times.values()) > 1
    rest = list(epoch_draws(4, 3, first=1, **settings))
    assert torch.equal(torch.cat(rest), draws[3:]), "also where a run goes on"


def test_without_weights_a_draw_is_a_position() -> None:
    draws = list(epoch_draws(10, 4, seed=1, epoch=2))
    assert all(map(torch.equal, draws, epoch_batches(10, 4, seed=1, epoch=2)))
