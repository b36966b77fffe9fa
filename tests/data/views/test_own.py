"""Of ``random`` and ``numpy.random``, which all threads share, a view that seeds them is alone with them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sdclr.data.views.own import OwnBatch, OwnView, _ReadersWriterLock
from sdclr.planes import ArrayPicture
from sdclr.stills import DecodedPicture


def test_an_owner_is_alone_and_others_are_together() -> None:
    shared, together = _ReadersWriterLock(lambda: None), threading.Barrier(3, timeout=60)
    inside: list[str] = []
    seen: list[tuple[str, ...]] = []

    def leave(_: int) -> None:
        with shared.reading():
            inside.append("leaves")
            seen.append(tuple(inside))
            inside.remove("leaves")

    def own(_: int) -> None:
        with shared.writing(), shared.writing():  # a call inside a call
            inside.append("owns")
            seen.append(tuple(inside))
            inside.remove("owns")

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit((leave, own)[i % 3 == 0], i) for i in range(600)]
        for one in waiting:
            one.result(timeout=60)
    assert len(seen) == 600
    assert all(others == ("owns",) for others in seen if "owns" in others)

    def leave_together(_: int) -> None:
        with shared.reading():
            together.wait()  # all three are inside at once, or this breaks

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(leave_together, range(3)))


def test_what_fails_inside_keeps_nobody_out() -> None:
    shared = _ReadersWriterLock(lambda: None)
    for entered in (shared.writing, shared.reading, shared.writing):
        with pytest.raises(ValueError, match="theirs"), entered():
            raise ValueError("theirs")
    with shared.writing():
        pass


def test_views_and_a_batch_module_that_draw_at_once_do_not_wait_for_each_other() -> None:
    """Both take the generators of ``random`` and NumPy and those of torch: in one order, or for ever."""
    picture = DecodedPicture(Image.new("RGB", (8, 8)))

    def drops(image: Tensor) -> Tensor:
        return torch.native_dropout(image.float(), 0.5, True)[0]  # takes no generator

    def with_rng(image: Tensor, rng: np.random.Generator) -> Tensor:
        return drops(image) * float(rng.random())

    rng = frozenset({"rng"})
    views = [OwnView("drops", drops, "function"), OwnView("rng", with_rng, "function", rng)]
    batch = OwnBatch("noise", lambda x: F.dropout(x, 0.5) / 2)

    def make_views(number: int) -> None:
        for draw in range(150):
            place: dict[str, Any] = {"seed": 1, "epoch": 1, "draw": draw, "number": 0}
            views[number % 2].view(picture, "x", 8, **place)

    def make_batches() -> None:
        for epoch in range(150):
            batch.views(torch.rand(4, 3, 8, 8), torch.arange(4), seed=1, epoch=epoch)

    works = [*(partial(make_views, number) for number in range(3)), make_batches]
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_writes_into_its_image_gets_the_same_pixels_when_it_is_called_again(
    channels: int,
) -> None:
    pixels = np.full((8, 8, channels), 255, np.uint8)

    def writes(image: Tensor, rng: np.random.Generator) -> Tensor:
        view = image.float() / 255
        image[:] = 0
        np.random.rand()  # noqa: NPY002 - of the process, so that it is called a second time
        return view

    view = OwnView("writes", writes, "function", frozenset({"rng"}))
    found = view.view(ArrayPicture(pixels), "x", 8, seed=1, epoch=1, draw=0, number=0)
    assert view.escapes.from_globals
    assert (found == 1).all()
    assert (pixels == 255).all()
