from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sdclr import draw_long_tail, recipe
from sdclr.compute.stateless_random import Stream, derive, permutation, random_bits, uniforms
from sdclr.errors import ConfigError

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The published generator's output function (Steele, Lea, Flood 2014), on Python integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_mixer_is_splitmix64_on_unbounded_integers() -> None:
    key, gamma = derive(3, 1, 4), 0x9E3779B97F4A7C15
    index = torch.tensor([0, 1, 2, 10**12, -5])
    expected = [splitmix64(splitmix64(i * gamma + key) + gamma) for i in index.tolist()]
    assert [bits & MASK for bits in random_bits(key, index).tolist()] == expected


def test_uniforms_are_uniform_independent_and_below_one() -> None:
    u = uniforms(derive(0, Stream.VIEWS), torch.arange(50_000), 4).double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert all(stats.kstest(u[:, j], "uniform").pvalue > 1e-3 for j in range(4))
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.02
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.02


def test_a_row_depends_on_its_own_counter_alone() -> None:
    whole = uniforms(7, torch.arange(100), 5)
    assert torch.equal(uniforms(7, torch.tensor([42, 3]), 5), whole[[42, 3]])
    assert torch.equal(uniforms(7, torch.arange(100), 3), whole[:, :3])


def test_keys_depend_on_every_counter_and_their_order() -> None:
    keys = [
        derive(),
        derive(0),
        derive(1),
        derive(0, 0),
        derive(0, 1),
        derive(1, 0),
        derive(2**63 - 1),
        derive(-1),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)


def test_the_draws_never_change_between_versions() -> None:
    assert derive(10, Stream.VIEWS, 0, 1) == 7675629599783818788
    assert [round(u, 6) for u in uniforms(5, torch.tensor([3]), 3)[0].tolist()] == [
        0.342706,
        0.625759,
        0.131148,
    ]


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_a_permutation_has_every_position_once(n: int) -> None:
    assert sorted(permutation(derive(n), n).tolist()) == list(range(n))


def test_permutations_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for seed in range(5000):
        counts[np.arange(5), permutation(derive(seed), 5).numpy()] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("seed", [2**63, 2**64 + 5, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_refused_wherever_it_enters(seed: int) -> None:
    with pytest.raises(ConfigError, match="between"):
        derive(seed, 1)
    with pytest.raises(ConfigError, match="between"):
        draw_long_tail(np.arange(200) % 10, imbalance_ratio=10, seed=seed)
    for setting in ("seed", "data.split"):
        with pytest.raises(ConfigError, match=setting):
            recipe("digits_sdclr").with_values({setting: seed})


def test_numpys_integers_are_seeds_as_well_and_other_kinds_are_refused() -> None:
    assert derive(np.int32(-5), np.int64(2**62)) == derive(-5, 2**62)
    labels = np.arange(200) % 10
    ours, theirs = (
        draw_long_tail(labels, imbalance_ratio=10, seed=seed) for seed in (7, np.int64(7))
    )
    assert ours.fingerprint == theirs.fingerprint
    for seed in (1.5, "x", None):
        with pytest.raises(ConfigError, match="must be whole numbers"):
            derive(seed)  # type: ignore[arg-type]
