"""The device's form of views is the threads' form of them, from the same parameters: here on the CPU, of one store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn.functional import interpolate

from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import DecodedStore, build_store, choose_placement
from sdclr.data.views import cutting_on_device
from sdclr.data.views.cutting_on_device import ResidentPixels, _similar
from sdclr.data.views.parameters import ViewSpec, draw_view_parameters
from sdclr.errors import ConfigError

CPU = torch.device("cpu")
NUM = 16
BARE = ViewSpec(size=32, jitter_probability=0, grey=0)
FULL = ViewSpec(size=32, blur=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DecodedStore:
    """Photographs of 16 sizes; among them one pixel, a strip, and one that fills the memory's end."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    photo = load_sample_image("china.jpg")
    for number in range(NUM):
        height, width = {3: (1, 1), 7: (2, 300), 11: (200, 3)}.get(
            number, tuple(rng.integers(20, 200, 2))
        )
        top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
        Image.fromarray(photo[top : top + height, left : left + width].copy()).save(
            root / f"{number:02d}.png"
        )
    files = ImageFiles(root, tuple(f"{number:02d}.png" for number in range(NUM)), None)
    return build_store(files, tmp_path_factory.mktemp("stores") / "store")


def resident(store: DecodedStore, device: torch.device = CPU) -> ResidentPixels:
    pixels = torch.from_numpy(np.array(store.pixels.content)).view(-1, 3)
    return ResidentPixels(pixels, store.starts // 3, store.sizes, device, store.names)


def both_views(
    pixels: ResidentPixels | DecodedStore, spec: ViewSpec, *batches: list[int]
) -> torch.Tensor:
    views = list(pixels.views(map(torch.tensor, batches), spec, seed=3, epoch=4))
    return torch.cat([torch.cat([one.a, one.b]) for one in views])


@pytest.mark.parametrize("size", [8, 32, 96])
def test_crops_agree_with_those_of_threads_but_for_rounding(store: DecodedStore, size: int) -> None:
    """Theirs are rounded, and cut off at 0 and 255, between the two passes as well."""
    spec = replace(BARE, size=size)
    difference = (
        both_views(resident(store), spec, [*range(NUM)]) - both_views(store, spec, [*range(NUM)])
    ).abs() * 255
    assert difference.mean() <= 0.5
    assert (difference <= 2).float().mean() >= 0.995


def test_crops_are_torchs_antialiased_bicubic(store: DecodedStore) -> None:
    """In floats, without rounding, to a hundredth of a level."""
    ours = both_views(resident(store), BARE, [*range(NUM)])
    for view in (0, 1):
        for position in range(NUM):
            height, width = store.sizes[position].tolist()
            drawn = draw_view_parameters(
                BARE, torch.tensor([position]), height, width, seed=3, epoch=4, view=view
            )
            top, left, tall, wide = drawn.box[0].tolist()
            pixels = torch.from_numpy(
                store.picture(position)
                .pixels(left, top, left + wide, top + tall)
                .astype(np.float64)
            )
            expected = interpolate(
                pixels.permute(2, 0, 1)[None], (32, 32), mode="bicubic", antialias=True
            )[0]
            expected = expected.clamp(0, 255).flip(2) if drawn.flip[0] else expected.clamp(0, 255)
            torch.testing.assert_close(
                ours[view * NUM + position].double() * 255, expected, rtol=0, atol=1e-2
            )


def test_whole_views_agree_within_the_tolerance_of_rounding(store: DecodedStore) -> None:
    ours, theirs = (both_views(one, FULL, [*range(NUM)]) for one in (resident(store), store))
    difference = (ours - theirs).abs() * 255
    assert difference.mean() <= 1.6
    assert (difference <= 4).float().mean() >= 0.98
    assert -1e-6 <= ours.min() <= ours.max() <= 1 + 1e-6


def test_other_parameters_would_be_noticed(store: DecodedStore) -> None:
    ours = both_views(resident(store), BARE, [*range(NUM)])
    others = torch.cat([*next(iter(store.views([torch.arange(NUM)], BARE, seed=3, epoch=5)))[:2]])
    assert (ours - others).abs().mean() * 255 > 10


def test_no_view_depends_on_what_shares_its_canvas(
    store: DecodedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = both_views(resident(store), FULL, [*range(NUM)])
    alone = torch.stack(
        [both_views(resident(store), FULL, [position]) for position in range(NUM)], dim=1
    )
    torch.testing.assert_close(alone.flatten(0, 1), together, rtol=0, atol=1e-5)
    monkeypatch.setattr(cutting_on_device, "CANVAS_PIXELS", 5000)
    torch.testing.assert_close(
        both_views(resident(store), FULL, [*range(NUM)]), together, rtol=0, atol=1e-5
    )


def test_what_lies_beside_a_crop_is_never_seen(store: DecodedStore) -> None:
    """Every image alone in memory gives the view it gives between its neighbours."""
    whole = resident(store)
    for position in (0, 3, 7, 11, NUM - 1):
        first, length = int(whole.first[position]), int(store.sizes[position].prod())
        for filling in (0, 255):
            pixels = torch.full_like(whole.pixels, filling)
            pixels[first : first + length] = whole.pixels[first : first + length]
            torch.testing.assert_close(
                both_views(replace(whole, pixels=pixels), FULL, [position]),
                both_views(whole, FULL, [position]),
            )


def test_pixels_fetched_from_elsewhere_give_the_same_views(store: DecodedStore) -> None:
    """As from pinned memory: only the rows of a crop are copied, and the rest is not needed."""
    here = resident(store)
    there = _Elsewhere(here.pixels, here.first, here.sizes, CPU, here.names)
    batches = [[*range(NUM)], [4, 4, 9]]
    assert torch.equal(both_views(there, FULL, *batches), both_views(here, FULL, *batches))
    assert 0 < there.fetched < 2 * (NUM + 3) * 200 * 200


class _Elsewhere(ResidentPixels):
    """Copies rows before it cuts, as it does where ``pixels`` are not on ``device``."""

    fetched = 0

    def _crop_source(
        self, begin: torch.Tensor, length: torch.Tensor, left: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        type(self).fetched += int(length.sum())
        return self._fetched(begin, length, left)


def test_groups_hold_every_crop_once_and_no_canvas_is_too_large() -> None:
    generator = torch.Generator().manual_seed(0)
    tall, wide = torch.randint(1, 300, (2, 500), generator=generator)
    groups = list(_similar(tall, wide, 400_000))
    assert sorted(torch.cat(groups).tolist()) == list(range(500))
    assert len(groups) > 10
    for group in groups:
        assert (
            len(group) == 1
            or len(group) * int(tall[group].max()) * int(wide[group].max()) <= 400_000
        )
    assert [group.tolist() for group in _similar(tall[:1], wide[:1], 1)] == [[0]]


def test_pixels_go_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(
        "sdclr.data.collections.image_store.free_memory",
        lambda device: {"cuda": 100, "cpu": 200}[device.type],
    )
    assert [choose_placement("auto", size, cuda) for size in (1, 40, 41, 100, 101)] == [
        *("device", "device", "pinned", "pinned", "mapped")
    ]
    assert choose_placement("mapped", 1, cuda) == "mapped"
    assert choose_placement("auto", 1, CPU) == choose_placement("mapped", 1, CPU) == "mapped"
    for wanted in ("device", "pinned"):
        with pytest.raises(ConfigError, match=rf"data\.placement={wanted} needs a CUDA device"):
            choose_placement(wanted, 1, CPU)


@pytest.mark.gpu
@pytest.mark.parametrize("placement", ["device", "pinned", "mapped"])
def test_views_on_the_device_are_those_of_the_cpu(store: DecodedStore, placement: str) -> None:
    moved = replace(store, placement=placement).to(torch.device("cuda"))
    ours, theirs = both_views(moved, BARE, [*range(NUM)]), both_views(store, BARE, [*range(NUM)])
    assert ours.device.type == "cuda"
    assert ((ours.cpu() - theirs).abs() * 255 <= 2).float().mean() >= 0.995
    assert len(moved.describe()) > 0
    assert (moved.resident is None) == (placement == "mapped")
    chosen = moved.at(np.array([5, 2])).to(torch.device("cuda"))
    torch.testing.assert_close(
        next(chosen.stills(32)).cpu(), next(store.at(np.array([5, 2])).stills(32))
    )


def test_a_single_view_is_the_first_of_two_wherever_the_pixels_lie(store: DecodedStore) -> None:
    arrays = ImageArrays(torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).view(4, 3, 8, 8), None)
    for images in (store, resident(store), store.files, arrays):
        batches = [torch.tensor([3, 0]), torch.tensor([2])]
        for both, one in zip(
            images.views(batches, FULL, seed=3, epoch=4),
            images.views(batches, replace(FULL, single=True), seed=3, epoch=4),
            strict=True,
        ):
            assert one.a.equal(both.a)
            assert one.index.equal(both.index)
            assert one.b.shape == (0, 3, 32, 32)
