"""From how many pixels on does the jitter gain by sorting its rows by their order?

    python benchmarks/jitter.py

Both executions of ``sdclr.data.views.augment`` on the same views, one after the other in every round, on one thread:
CPU milliseconds, median (smallest, largest), and whether the bits are the same.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from sdclr.data.views import augment

SHAPES = ((200, 8), (1024, 8), (200, 16), (512, 16), (1024, 16), (100, 32), (200, 32), (1024, 32))
"""(views, side)"""
ROUNDS = 15
WAYS = ("_jitter_in_place", "_jitter_grouped")


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print("| views, side | pixels | in place, ms | grouped, ms | grouped / in place | same bits |")
    print("|---|---|---|---|---|---|")
    for number, side in SHAPES:
        x = torch.rand(number, 3, side, side, generator=generator)
        factors = torch.rand(number, 4, generator=generator) + 0.5
        order = torch.randint(-1, 24, (number,), generator=generator)
        found, taken = {}, {way: np.empty(ROUNDS) for way in WAYS}
        for turn in range(ROUNDS):
            for way in WAYS:
                copy, start = x.clone(), time.thread_time()
                found[way] = getattr(augment, way)(copy, factors, order)
                taken[way][turn] = 1000 * (time.thread_time() - start)
        in_place, grouped = (
            f"{np.median(t):.1f} ({t.min():.1f} .. {t.max():.1f})" for t in taken.values()
        )
        ratio = np.median(taken[WAYS[1]] / taken[WAYS[0]])
        same = "yes" if torch.equal(*found.values()) else "NO"
        print(
            f"| {number}, {side} px | {number * side**2:,} | {in_place} | {grouped} | {ratio:.2f} | {same} |"
        )


if __name__ == "__main__":
    main()
