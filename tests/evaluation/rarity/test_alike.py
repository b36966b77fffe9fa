"""Groups equal a slow, obvious search through the definition; the rarest group is the first."""

from __future__ import annotations

import pytest
import torch

from sdclr.errors import DataError
from sdclr.evaluation.rarity import look_alike, nearest, rarest_group_first
from sdclr.evaluation.rarity.neighbours import Neighbours


def slow_groups(neighbours: Neighbours, copy_of: list[int], mutual: int) -> list[int]:
    n = len(copy_of)
    near = []
    for i in range(n):
        found = [j for j in neighbours.indices[i].tolist() if copy_of[j] == j]
        near.append(found[:mutual] if copy_of[i] == i else [])
    group = list(range(n))
    changed = True
    while changed:
        changed = False
        for i in range(n):
            for j in range(n):
                mine = copy_of[i] == j or (j in near[i] and i in near[j])
                if mine and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    seen = list(dict.fromkeys(group))
    return [seen.index(one) for one in group]


@pytest.mark.parametrize("mutual", [1, 2, 3])
def test_groups_are_the_components_of_mutual_nearest_images(mutual: int) -> None:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(2))
    x[40:44] = x[7] + 1e-3 * x[40:44]
    copy_of = torch.arange(60)
    copy_of[40:44] = 7
    found = look_alike(nearest(x, 20), copy_of, mutual)
    for fewer in range(mutual, 0, -1):
        expected = slow_groups(nearest(x, 20), copy_of.tolist(), fewer)
        if max(map(expected.count, expected)) <= 10:
            break
    assert found.tolist() == expected
    assert found[40:44].tolist() == [int(found[7])] * 4, "a copy is where its original is"


def test_a_chain_through_all_images_is_no_group() -> None:
    x = torch.arange(200.0).unsqueeze(1)  # everyone's neighbours are the next on both sides
    x += torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) / 10
    groups = look_alike(nearest(x, 6), torch.arange(200))
    assert groups.bincount().max() <= 20


def test_groups_without_anything_to_show_are_judged_by_all_their_images() -> None:
    groups = torch.tensor([0, 0, 1, 1])
    score = torch.tensor([1.0, 5.0, 2.0, 9.0])
    numbered, means = rarest_group_first(groups, score, torch.tensor([False, False, True, False]))
    assert numbered.tolist() == [0, 0, 1, 1]
    assert means.tolist() == [3.0, 2.0]


def test_a_wrong_number_of_copies_is_refused() -> None:
    with pytest.raises(DataError, match="copy_of for each of 5 images"):
        look_alike(nearest(torch.arange(5.0).unsqueeze(1), 2), torch.arange(4))


def test_copies_do_not_make_a_group_too_large() -> None:
    """25 copies of one image, folded already, once left nearly every other image alone."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(30, 6, generator=generator).repeat_interleave(6, dim=0)
    pictures = kinds + 0.05 * torch.randn(180, 6, generator=generator)
    x = torch.cat([pictures, pictures[:1].expand(25, 6)])
    copy_of = torch.cat([torch.arange(180), torch.zeros(25, dtype=torch.int64)])
    without = look_alike(nearest(pictures, 20), torch.arange(180))
    found = look_alike(nearest(x, 60), copy_of)
    assert torch.equal(found[:180], without)
    assert torch.equal(found[180:], found[:1].expand(25))
